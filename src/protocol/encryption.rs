//! The encryption of one session, which only goes forward.
//!
//! ```text
//! Plain ──the agent asks──▶ KeyRequested ──data key──▶ Encrypted
//!   └──────────────────────────┴──────────────────────────┴─────▶ Closed
//! ```
//!
//! No message of the peer leads back: a cipher in use is neither replaced nor removed, and while a key is missing
//! nothing is sent or delivered.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::cipher::{self, Cipher, CipherError};
use super::payload::{Challenge, to_json};

/// The protection of a session's data, both ways.
#[derive(Debug, Default)]
pub(super) enum Encryption {
    /// The agent has not asked for it.
    #[default]
    Plain,
    /// The agent has asked for it, and the data key is still to come.
    KeyRequested,
    /// In use, to the end of the session.
    Encrypted(Box<Cipher>),
    /// The session is over. Nothing is sealed or opened any more, and the keys are wiped.
    Closed,
}

impl Encryption {
    /// Stops data both ways until the key is there.
    pub(super) fn request_key(&mut self) {
        if matches!(self, Encryption::Plain) {
            *self = Encryption::KeyRequested;
        }
    }

    /// Starts to encrypt, if a key was requested.
    pub(super) fn handle_key(&mut self, cipher: Cipher) {
        if matches!(self, Encryption::KeyRequested) {
            *self = Encryption::Encrypted(Box::new(cipher));
        }
    }

    /// Ends it, with the session.
    pub(super) fn close(&mut self) {
        *self = Encryption::Closed;
    }

    /// Returns true for a session whose data is not protected, because the agent has not asked for it.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Encryption::Plain)
    }

    /// Returns true from the first data key on.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Encryption::Encrypted(_))
    }

    /// Bytes that encryption adds to a payload.
    pub(super) fn overhead(&self) -> usize {
        if self.is_encrypted() { cipher::OVERHEAD } else { 0 }
    }

    /// Prepares user data for the agent.
    ///
    /// # Errors
    /// [`CipherError::NoKey`] unless the session is plain or has its key, [`CipherError::Exhausted`].
    pub(super) fn seal(&mut self, body: Bytes) -> Result<Bytes, CipherError> {
        match self {
            Encryption::Plain => Ok(body),
            Encryption::Encrypted(cipher) => cipher.encrypt(&body),
            Encryption::KeyRequested | Encryption::Closed => Err(CipherError::NoKey),
        }
    }

    /// Reads user data of the agent.
    ///
    /// # Errors
    /// [`CipherError::NoKey`] unless the session is plain or has its key, [`CipherError::Decrypt`] for data that was
    /// not encrypted with it.
    pub(super) fn open(&self, payload: Bytes) -> Result<Bytes, CipherError> {
        match self {
            Encryption::Plain => Ok(payload),
            Encryption::Encrypted(cipher) => cipher.decrypt(&payload),
            Encryption::KeyRequested | Encryption::Closed => Err(CipherError::NoKey),
        }
    }

    /// Answers the agent's proof of the key: the same bytes, encrypted with the client's half.
    ///
    /// # Errors
    /// As [`Encryption::open`]; [`CipherError::NoKey`] for a plain session, too.
    pub(super) fn answer(&mut self, challenge: &Challenge) -> Result<Bytes, CipherError> {
        let Encryption::Encrypted(cipher) = self else { return Err(CipherError::NoKey) };
        let sealed = BASE64_STANDARD.decode(&challenge.challenge).map_err(|_| CipherError::Decrypt)?;
        let answer = cipher.encrypt(&cipher.decrypt(&sealed)?)?;
        Ok(to_json(&Challenge { challenge: BASE64_STANDARD.encode(answer) }).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::cipher::DataKey;

    fn cipher(half: u8) -> Cipher {
        Cipher::new(&DataKey { plaintext: [half; 64].into(), ciphertext: vec![] }, [half; 4])
    }

    const TYPED: Bytes = Bytes::from_static(b"typed");

    #[test]
    fn a_key_is_neither_replaced_nor_removed() {
        let mut encryption = Encryption::default();
        encryption.handle_key(cipher(1));
        assert!(encryption.is_plain(), "not requested");
        encryption.request_key();
        encryption.handle_key(cipher(1));
        let sealed = encryption.seal(TYPED).unwrap();
        encryption.request_key();
        encryption.handle_key(cipher(2));
        // Both halves of the test's keys are the same: it reads what it has sealed.
        assert_eq!(encryption.open(sealed), Ok(TYPED));
        assert_ne!(encryption.seal(TYPED), Ok(TYPED));
    }

    #[test]
    fn nothing_passes_while_the_key_is_missing_or_after_the_end() {
        let mut encryption = Encryption::default();
        assert_eq!(encryption.seal(TYPED), Ok(TYPED));
        encryption.request_key();
        for _ in 0..2 {
            assert_eq!(encryption.seal(TYPED), Err(CipherError::NoKey));
            assert_eq!(encryption.open(TYPED), Err(CipherError::NoKey));
            assert!(!encryption.is_plain() && !encryption.is_encrypted());
            encryption.close();
            encryption.request_key();
            encryption.handle_key(cipher(1));
        }
    }

    #[test]
    fn a_challenge_is_answered_with_the_key_alone() {
        let mut encryption = Encryption::default();
        let mut agent = Cipher::new(&DataKey { plaintext: [1; 64].into(), ciphertext: vec![] }, [9; 4]);
        let proof = BASE64_STANDARD.encode(agent.encrypt(b"proof").unwrap());
        let challenge = |challenge: &str| Challenge { challenge: challenge.to_owned() };
        assert_eq!(encryption.answer(&challenge(&proof)), Err(CipherError::NoKey));
        encryption.request_key();
        encryption.handle_key(cipher(1));
        for bad in ["", "%", "cHJvb2Y="] {
            assert_eq!(encryption.answer(&challenge(bad)), Err(CipherError::Decrypt), "{bad}");
        }
        let answer: Challenge =
            serde_json::from_slice(&encryption.answer(&challenge(&proof)).unwrap()).unwrap();
        assert_ne!(answer.challenge, proof);
        let answer = BASE64_STANDARD.decode(answer.challenge).unwrap();
        assert_eq!(cipher(1).decrypt(&answer).unwrap(), "proof");
    }
}
