//! A key made for one run, in memory only.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::failure::Failure;

/// An ed25519 pair.
#[derive(Debug)]
pub(super) struct Identity(Ed25519KeyPair);

impl Identity {
    /// Makes a pair.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn generate() -> Result<Identity, Failure> {
        let mut seed = Zeroizing::new([0; SEED]);
        let filled = SystemRandom::new().fill(&mut seed[..]);
        let pair = filled.ok().and_then(|()| Ed25519KeyPair::from_seed_unchecked(&seed[..]).ok());
        pair.map(Identity)
            .ok_or_else(|| Failure::new("cannot create a key: the system provides no random numbers"))
    }

    /// Returns the public key in the form of `authorized_keys`.
    pub(super) fn public_line(&self) -> String {
        format!("{KIND} {}", BASE64_STANDARD.encode(self.blob()))
    }

    /// Returns the public key in the form of RFC 8709, section 4.
    pub(super) fn blob(&self) -> Vec<u8> {
        [string(KIND.as_bytes()), string(self.0.public_key().as_ref())].concat()
    }

    /// Returns a signature in the form of RFC 8709, section 6.
    #[cfg(any(unix, test))]
    pub(super) fn sign(&self, data: &[u8]) -> Vec<u8> {
        [string(KIND.as_bytes()), string(self.0.sign(data).as_ref())].concat()
    }
}

/// A `string` of RFC 4251, section 5.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    // Keys and signatures have some hundred bytes.
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

const KIND: &str = "ssh-ed25519";
/// Bytes of an ed25519 seed.
const SEED: usize = 32;

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_signature_fits_its_public_key() {
        let identity = Identity::generate().unwrap();
        let (blob, signature) = (identity.blob(), identity.sign(b"data"));
        assert_eq!((blob.len(), signature.len()), (51, 83), "RFC 8709: both with the kind and lengths");
        UnparsedPublicKey::new(&ED25519, &blob[19..]).verify(b"data", &signature[19..]).unwrap();
        assert_eq!(identity.public_line(), format!("ssh-ed25519 {}", BASE64_STANDARD.encode(blob)));
        assert_ne!(identity.public_line(), Identity::generate().unwrap().public_line());
    }
}
