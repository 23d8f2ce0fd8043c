//! Encryption of a session: AES-256-GCM with a key of its own for each direction.

use std::sync::Mutex;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Both directions' keys, from one data key.
pub(super) struct Cipher {
    sealing: LessSafeKey,
    opening: LessSafeKey,
    /// The next nonce: counts up from a random start, little-endian (agent source).
    nonce: Mutex<[u8; NONCE_LEN]>,
}

impl Cipher {
    /// The first half of the data key encrypts what the agent sends, the second what the client sends.
    pub(super) fn new(data_key: &[u8]) -> Result<Cipher, String> {
        if data_key.len() != DATA_KEY_LEN {
            return Err(format!("the data key has {} bytes", data_key.len()));
        }
        let (agents, clients) = data_key.split_at(DATA_KEY_LEN / 2);
        let key = |bytes| UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| "not a key".to_owned());
        let mut nonce = [0; NONCE_LEN];
        nonce.fill_with(|| fastrand::u8(..));
        Ok(Cipher {
            sealing: LessSafeKey::new(key(agents)?),
            opening: LessSafeKey::new(key(clients)?),
            nonce: Mutex::new(nonce),
        })
    }

    /// Encrypts: nonce, then ciphertext and tag.
    pub(super) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let nonce = self.next_nonce();
        let mut ciphertext = plaintext.to_vec();
        let sealed = self.sealing.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut ciphertext,
        );
        // Fails only for payloads of gigabytes; the client then cannot decrypt, and says so.
        debug_assert!(sealed.is_ok());
        [&nonce[..], &ciphertext].concat()
    }

    /// Decrypts what the client encrypted.
    pub(super) fn open(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let failed = || "Error decrypting encrypted text, cipher: message authentication failed".to_owned();
        let (nonce, ciphertext) = message.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut plaintext = ciphertext.to_vec();
        let length =
            self.opening.open_in_place(nonce, Aad::empty(), &mut plaintext).map_err(|_| failed())?.len();
        plaintext.truncate(length);
        Ok(plaintext)
    }

    fn next_nonce(&self) -> [u8; NONCE_LEN] {
        let mut next = self.nonce.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let nonce = *next;
        for byte in next.iter_mut() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        nonce
    }
}

/// Agent source: `KMSKeySizeInBytes`.
const DATA_KEY_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_have_keys_of_their_own() {
        let key: Vec<u8> = (0..64).collect();
        let swapped = [&key[32..], &key[..32]].concat();
        let (agent, client) = (Cipher::new(&key).unwrap(), Cipher::new(&swapped).unwrap());
        let message = agent.seal(b"hello");
        assert_eq!(message.len(), 12 + 5 + 16);
        assert_eq!(client.open(&message).unwrap(), b"hello");
        assert!(agent.open(&message).is_err());
        assert_ne!(agent.seal(b"hello")[..12], message[..12]);
        assert!(agent.open(&message[..11]).is_err());
        assert!(Cipher::new(&key[1..]).is_err());
    }
}
