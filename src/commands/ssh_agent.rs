//! The ssh agent's protocol (draft-miller-ssh-agent), as far as it is needed here: messages of identities and signatures.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::identity::{Identity, string};

/// Returns the running agent's first key of one of these kinds, in the form of `authorized_keys`; `None` without an agent
/// or such a key.
pub(super) async fn first_key(kinds: &[&str]) -> Option<String> {
    let path = std::env::var_os("SSH_AUTH_SOCK")?;
    let answer = tokio::time::timeout(TIMEOUT, async {
        let mut stream = UnixStream::connect(path).await?;
        ask(&mut stream, &[REQUEST_IDENTITIES]).await
    });
    first_in(&answer.await.ok()?.ok()?, kinds)
}

/// Sends a message to an agent and returns its answer.
///
/// # Errors
/// Of the socket; an answer that is too long.
pub(super) async fn ask(
    agent: &mut (impl AsyncRead + AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<Vec<u8>> {
    write(agent, message).await?;
    read(agent).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads a message; `None` at the end.
///
/// # Errors
/// Of the socket; a message that is empty or too long.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    if !(1..=MAX_MESSAGE).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = Vec::new();
    stream.take(length.into()).read_to_end(&mut message).await?;
    Ok((message.len() == length as usize).then_some(message))
}

/// Writes a message.
///
/// # Errors
/// Of the socket.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    stream.write_all(&string(message)).await
}

/// Returns the answer to a message about a key made for this run; `None` for other keys and messages. `known` is another
/// agent's answer to a request for identities.
pub(super) fn answer(message: &[u8], identity: &Identity, known: Option<&[u8]>) -> Option<Vec<u8>> {
    let (kind, rest) = message.split_first()?;
    match *kind {
        REQUEST_IDENTITIES => Some(identities(identity, known)),
        SIGN_REQUEST => {
            let (key, rest) = take_string(rest)?;
            let (data, _flags) = take_string(rest)?;
            (key == identity.blob()).then(|| [&[SIGN_RESPONSE][..], &string(&identity.sign(data))].concat())
        }
        _ => None,
    }
}

/// Returns whether a message asks for the keys.
pub(super) fn asks_for_identities(message: &[u8]) -> bool {
    message == [REQUEST_IDENTITIES]
}

/// The key made for this run first: a server may allow few attempts.
fn identities(identity: &Identity, known: Option<&[u8]>) -> Vec<u8> {
    let known = known.and_then(|known| match known.split_first() {
        Some((&IDENTITIES_ANSWER, rest)) => take_number(rest),
        _ => None,
    });
    let (count, rest) = known.unwrap_or((0, &[]));
    let ours = [string(&identity.blob()), string(COMMENT)].concat();
    [&[IDENTITIES_ANSWER][..], &count.saturating_add(1).to_be_bytes(), &ours, rest].concat()
}

fn first_in(answer: &[u8], kinds: &[&str]) -> Option<String> {
    let (kind, rest) = answer.split_first()?;
    if *kind != IDENTITIES_ANSWER {
        return None;
    }
    let (count, mut rest) = take_number(rest)?;
    for _ in 0..count {
        let (key, after) = take_string(rest)?;
        let (_comment, after) = take_string(after)?;
        rest = after;
        let (name, _) = take_string(key)?;
        if let Some(kind) = kinds.iter().find(|kind| kind.as_bytes() == name) {
            return Some(format!("{kind} {}", BASE64_STANDARD.encode(key)));
        }
    }
    None
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), rest))
}

fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_number(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// An agent's answer to what it cannot do.
pub(super) const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const COMMENT: &[u8] = b"session-manager-plugin";
/// Bytes; OpenSSH's own limit.
const MAX_MESSAGE: u32 = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &[&str] = &["ssh-ed25519", "ssh-rsa"];

    #[test]
    fn the_first_key_that_is_accepted() {
        let identity = |kind: &[u8]| [string(&string(kind)), string(b"comment")].concat();
        let answer = [&[12, 0, 0, 0, 2][..], &identity(b"ecdsa"), &identity(b"ssh-ed25519")].concat();
        let key = string(b"ssh-ed25519");
        assert_eq!(first_in(&answer, KINDS), Some(format!("ssh-ed25519 {}", BASE64_STANDARD.encode(key))));
        for end in 0..answer.len() {
            assert_eq!(first_in(&answer[..end], KINDS), None, "{end} bytes");
        }
        assert_eq!(first_in(&[5], KINDS), None);
    }

    #[test]
    fn the_key_of_the_run_comes_before_another_agent_s() {
        let identity = Identity::generate().unwrap();
        let other = [&[12, 0, 0, 0, 1][..], &string(b"a key"), &string(b"comment")].concat();
        for (known, count) in [(Some(&other[..]), 2), (None, 1), (Some(&[FAILURE][..]), 1)] {
            let listed = answer(&[REQUEST_IDENTITIES], &identity, known).unwrap();
            assert_eq!(listed[..5], [12, 0, 0, 0, count]);
            assert_eq!(first_in(&listed, KINDS), Some(identity.public_line()));
            assert_eq!(listed.ends_with(&other[5..]), count == 2);
        }
    }

    #[test]
    fn only_the_key_of_the_run_is_signed_with_here() {
        let identity = Identity::generate().unwrap();
        let request = |key: &[u8]| [&[13][..], &string(key), &string(b"data"), &[0; 4]].concat();
        let signed = answer(&request(&identity.blob()), &identity, None).unwrap();
        assert_eq!(signed, [&[14][..], &string(&identity.sign(b"data"))].concat());
        assert_eq!(answer(&request(b"another"), &identity, None), None);
        let whole = request(&identity.blob());
        for end in 0..whole.len() - 4 {
            assert_eq!(answer(&whole[..end], &identity, None), None, "{end} bytes");
        }
        for message in [&[][..], &[27, 1], &[1], &[19]] {
            assert_eq!(answer(message, &identity, None), None);
        }
    }

    #[tokio::test]
    async fn messages_are_bounded() {
        for length in [0, MAX_MESSAGE + 1, u32::MAX] {
            let bytes = length.to_be_bytes();
            assert!(read(&mut &bytes[..]).await.is_err(), "{length}");
        }
        assert_eq!(read(&mut &b""[..]).await.unwrap(), None);
        assert_eq!(read(&mut &[0, 0, 0, 2, 1][..]).await.unwrap(), None, "cut off");
        assert_eq!(read(&mut &[0, 0, 0, 1, 11, 9][..]).await.unwrap(), Some(vec![11]));
    }
}
