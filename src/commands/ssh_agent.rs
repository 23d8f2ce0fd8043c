//! The ssh agent's protocol (draft-miller-ssh-agent), as far as listing identities.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The agent's first key of one of these kinds, in the form of `authorized_keys`; `None` without an agent or such a key.
pub(super) async fn first_key(kinds: &[&str]) -> Option<String> {
    let path = std::env::var_os("SSH_AUTH_SOCK")?;
    let answer = tokio::time::timeout(TIMEOUT, identities(path)).await.ok()?;
    first_in(&answer.ok()?, kinds)
}

async fn identities(path: std::ffi::OsString) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES]).await?;
    let length = stream.read_u32().await?.min(MAX_ANSWER);
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn first_in(answer: &[u8], kinds: &[&str]) -> Option<String> {
    let (kind, rest) = answer.split_first()?;
    if *kind != IDENTITIES_ANSWER {
        return None;
    }
    let (count, mut rest) = number(rest)?;
    for _ in 0..count {
        let (key, after) = string(rest)?;
        let (_comment, after) = string(after)?;
        rest = after;
        let (name, _) = string(key)?;
        if let Some(kind) = kinds.iter().find(|kind| kind.as_bytes() == name) {
            return Some(format!("{kind} {}", BASE64_STANDARD.encode(key)));
        }
    }
    None
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), rest))
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
/// Bytes; OpenSSH's own limit.
const MAX_ANSWER: u32 = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_is_accepted() {
        const KINDS: &[&str] = &["ssh-ed25519", "ssh-rsa"];
        let string = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
        let identity = |kind: &[u8]| [string(&string(kind)), string(b"comment")].concat();
        let answer = [&[12, 0, 0, 0, 2][..], &identity(b"ecdsa"), &identity(b"ssh-ed25519")].concat();
        let key = string(b"ssh-ed25519");
        assert_eq!(first_in(&answer, KINDS), Some(format!("ssh-ed25519 {}", BASE64_STANDARD.encode(key))));
        for end in 0..answer.len() {
            assert_eq!(first_in(&answer[..end], KINDS), None, "{end} bytes");
        }
        assert_eq!(first_in(&[5], KINDS), None);
    }
}
