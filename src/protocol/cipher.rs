//! The encryption of shell sessions: AES-256-GCM, a message is a 12-byte nonce, the ciphertext and its tag.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

/// The length of the data key that KMS generates for a session, in bytes.
pub const DATA_KEY_LENGTH: usize = 64;

/// A data key as KMS gave it. Wiped when dropped; never shown.
pub struct DataKey {
    /// The first 32 bytes decrypt what the agent sends, the last 32 encrypt what the client sends.
    pub plaintext: Zeroizing<[u8; DATA_KEY_LENGTH]>,
    /// The same key encrypted by KMS, for the agent.
    pub ciphertext: Vec<u8>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(redacted)")
    }
}

/// Both directions of an encrypted session. The keys are wiped when it is dropped.
pub(super) struct Cipher {
    decrypt: Aes256Gcm,
    encrypt: Aes256Gcm,
    nonce_prefix: [u8; 4],
    sent: u64,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(redacted)")
    }
}

/// A message that does not decrypt, or more messages than nonces.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum CipherError {
    /// The tag is wrong: another key, or damage.
    #[error("message cannot be decrypted with this session's key")]
    Decrypt,
    /// The agent has asked for encryption, and there is no key yet, or no longer.
    #[error("the session has no data key")]
    NoKey,
    /// 2^64 messages were sent under one key.
    #[error("no nonces left under this session's key")]
    Exhausted,
}

impl Cipher {
    /// A cipher for a session. Nonces are the prefix and a counter: as a data key belongs to one process and one
    /// session, none is used twice under it, reconnects included.
    pub(super) fn new(key: &DataKey, nonce_prefix: [u8; 4]) -> Cipher {
        let (agent, client) = key.plaintext.as_chunks::<{ DATA_KEY_LENGTH / 2 }>().0.split_at(1);
        Cipher {
            decrypt: Aes256Gcm::new((&agent[0]).into()),
            encrypt: Aes256Gcm::new((&client[0]).into()),
            nonce_prefix,
            sent: 0,
        }
    }

    /// Encrypts one payload.
    ///
    /// # Errors
    /// [`CipherError::Exhausted`] after 2^64 messages.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Result<Bytes, CipherError> {
        let mut nonce = [0; NONCE_LENGTH];
        nonce[..4].copy_from_slice(&self.nonce_prefix);
        nonce[4..].copy_from_slice(&self.sent.to_be_bytes());
        self.sent = self.sent.checked_add(1).ok_or(CipherError::Exhausted)?;
        let mut sealed = BytesMut::with_capacity(OVERHEAD + plaintext.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = self
            .encrypt
            .encrypt_inout_detached(&nonce.into(), b"", (&mut sealed[NONCE_LENGTH..]).into())
            .map_err(|_| CipherError::Exhausted)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed.freeze())
    }

    /// Decrypts one payload.
    ///
    /// # Errors
    /// [`CipherError::Decrypt`] when it was not encrypted with this session's key.
    pub(super) fn decrypt(&self, sealed: &[u8]) -> Result<Bytes, CipherError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(CipherError::Decrypt)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LENGTH>().ok_or(CipherError::Decrypt)?;
        let mut plaintext = BytesMut::from(ciphertext);
        self.decrypt
            .decrypt_inout_detached(nonce.into(), b"", plaintext.as_mut().into(), tag.into())
            .map_err(|_| CipherError::Decrypt)?;
        Ok(plaintext.freeze())
    }
}

const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
/// Bytes that encryption adds to a payload.
pub(super) const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Cipher, Cipher) {
        let key = |bytes: [u8; 64]| DataKey { plaintext: Zeroizing::new(bytes), ciphertext: vec![] };
        let mut client = [1; 64];
        client[32..].fill(2);
        let mut agent = client;
        agent.rotate_left(32);
        (Cipher::new(&key(client), [7; 4]), Cipher::new(&key(agent), [7; 4]))
    }

    #[test]
    fn each_side_reads_the_other_and_not_itself() {
        let (mut client, mut agent) = pair();
        let up = client.encrypt(b"typed").unwrap();
        assert_eq!(up.len(), 5 + OVERHEAD);
        assert_eq!(agent.decrypt(&up).unwrap(), "typed");
        assert_eq!(client.decrypt(&up), Err(CipherError::Decrypt));
        let down = agent.encrypt(b"").unwrap();
        assert_eq!(client.decrypt(&down).unwrap(), "");
    }

    #[test]
    fn nonces_differ_and_damage_is_noticed() {
        let (mut client, agent) = pair();
        let (a, b) = (client.encrypt(b"x").unwrap(), client.encrypt(b"x").unwrap());
        assert_ne!(a[..12], b[..12]);
        for at in 0..a.len() {
            let mut bad = a.to_vec();
            bad[at] ^= 1;
            assert_eq!(agent.decrypt(&bad), Err(CipherError::Decrypt));
        }
        assert_eq!(agent.decrypt(&a[..20]), Err(CipherError::Decrypt));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = DataKey { plaintext: Zeroizing::new([b'k'; 64]), ciphertext: b"kkk".to_vec() };
        assert_eq!(format!("{key:?} {:?}", pair().0), "DataKey(redacted) Cipher(redacted)");
    }
}
