//! A key store with data keys.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// An encryption context: names and values.
pub(crate) type Context = BTreeMap<String, String>;

/// Seals data keys under a key of its own, made at the start and kept nowhere.
pub(crate) struct KeyStore {
    master: LessSafeKey,
    random: SystemRandom,
}

/// A new data key.
pub(crate) struct DataKey {
    pub plaintext: Vec<u8>,
    pub blob: Vec<u8>,
}

impl KeyStore {
    /// A store with a random master key.
    pub fn new() -> anyhow::Result<KeyStore> {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        random.fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let master = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| anyhow::anyhow!("bad key"))?;
        Ok(KeyStore { master: LessSafeKey::new(master), random })
    }

    /// A data key of `length` bytes that opens only with the same context. `None` when there is no randomness.
    pub fn generate(&self, key_id: &str, length: usize, context: &Context) -> Option<DataKey> {
        let mut plaintext = vec![0; length];
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut plaintext).ok()?;
        self.random.fill(&mut nonce).ok()?;
        let mut blob = MAGIC.to_vec();
        blob.push(u8::try_from(key_id.len()).ok()?);
        blob.extend_from_slice(key_id.as_bytes());
        blob.extend_from_slice(&nonce);
        let mut sealed = plaintext.clone();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.master.seal_in_place_append_tag(nonce, Aad::from(digest(key_id, context)), &mut sealed).ok()?;
        blob.extend_from_slice(&sealed);
        Some(DataKey { plaintext, blob })
    }

    /// The key's id and the data key, if the blob is ours and the context the one it was made with.
    pub fn decrypt(&self, blob: &[u8], context: &Context) -> Option<(String, Vec<u8>)> {
        let rest = blob.strip_prefix(MAGIC)?;
        let (&length, rest) = rest.split_first()?;
        let (key_id, rest) = rest.split_at_checked(usize::from(length))?;
        let key_id = std::str::from_utf8(key_id).ok()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plaintext =
            self.master.open_in_place(nonce, Aad::from(digest(key_id, context)), &mut sealed).ok()?;
        Some((key_id.to_owned(), plaintext.to_vec()))
    }
}

fn digest(key_id: &str, context: &Context) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(key_id).chain(context.iter().flat_map(|(n, v)| [n.as_str(), v.as_str()])) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// Marks a blob as one of this simulator's.
const MAGIC: &[u8] = b"ssm-sim data key 1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_exact_context() {
        let store = KeyStore::new().expect("store");
        let context = Context::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let key = store.generate("alias/x", 64, &context).expect("key");
        assert_eq!(key.plaintext.len(), 64);
        assert_eq!(store.decrypt(&key.blob, &context), Some(("alias/x".to_owned(), key.plaintext.clone())));
        let mut other = context.clone();
        other.remove("b");
        assert_eq!(store.decrypt(&key.blob, &other), None);
        other.insert("b".to_owned(), "3".to_owned());
        assert_eq!(store.decrypt(&key.blob, &other), None);
        for at in 0..key.blob.len() {
            assert_eq!(store.decrypt(&key.blob[..at], &context), None);
            let mut bent = key.blob.clone();
            bent[at] ^= 1;
            assert_eq!(store.decrypt(&bent, &context), None);
        }
    }
}
