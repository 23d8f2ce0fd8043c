//! One port for SOCKS5, SOCKS4 with or without names (4a), and HTTP CONNECT, sans-IO.
//!
//! ```text
//!                 ┌─ 5 ──────▶ socks5 ────────┐
//!  first byte ────┼─ 4 ──────▶ socks4 ────────┼─▶ Connect(request), answered with `encode`
//!                 └─ letter ─▶ http_connect ──┘   or Refuse(bytes to send before the end)
//! ```
//!
//! A SOCKS5 request names its own lengths, so its bytes are read exactly. The other two end with a mark: input behind that
//! mark is the client's first data. A request holds [`MAX_REQUEST`] bytes at most.
//!
//! Out of scope: deadlines, sockets.

use bytes::BytesMut;

use super::request::{MAX_REQUEST, Protocol, Refusal, Reply, Step};
use super::{http_connect, socks4, socks5};

/// State of one client's request.
#[derive(Debug, Default)]
pub(crate) enum Handshake {
    /// No byte has come.
    #[default]
    Undecided,
    Socks5(socks5::Handshake),
    Socks4(BytesMut),
    Http(BytesMut),
}

/// Returns the bytes of an answer.
pub(crate) fn encode(protocol: Protocol, reply: Reply) -> Vec<u8> {
    match protocol {
        Protocol::Socks5 => socks5::reply(reply).to_vec(),
        Protocol::Socks4 => socks4::reply(reply).to_vec(),
        Protocol::Http => http_connect::reply(reply),
    }
}

impl Handshake {
    /// Returns the first step: the shortest request of any protocol has as many bytes.
    pub(crate) fn start(&self) -> Step {
        Step::Read(2)
    }

    /// Takes the bytes that were requested, or continues after an answer was sent (no bytes).
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Step {
        if matches!(self, Handshake::Undecided) {
            match bytes {
                [] => return self.start(),
                [socks5::VERSION, ..] => *self = Handshake::Socks5(socks5::Handshake::default()),
                [socks4::VERSION, ..] => *self = Handshake::Socks4(BytesMut::new()),
                // Methods are upper-case words. No other protocol that uses proxies begins with a letter.
                [letter, ..] if letter.is_ascii_alphabetic() => *self = Handshake::Http(BytesMut::new()),
                _ => return Step::Refuse(Vec::new(), Refusal::Version),
            }
        }
        match self {
            Handshake::Undecided => self.start(),
            Handshake::Socks5(handshake) => handshake.handle(bytes),
            Handshake::Socks4(held) => read_more(held, bytes, socks4::MAX_REQUEST, socks4::parse, || {
                Step::Refuse(socks4::reply(Reply::GeneralFailure).to_vec(), Refusal::TooLong)
            }),
            Handshake::Http(held) => {
                read_more(held, bytes, MAX_REQUEST, http_connect::parse, http_connect::too_long)
            }
        }
    }
}

/// Adds bytes to a request that ends with a mark, of at most `max` bytes. `parse` returns `None` while it is incomplete.
fn read_more(
    held: &mut BytesMut,
    bytes: &[u8],
    max: usize,
    parse: impl FnOnce(&mut BytesMut) -> Option<Step>,
    too_long: impl FnOnce() -> Step,
) -> Step {
    held.extend_from_slice(bytes);
    match parse(held) {
        Some(step) => step,
        None if held.len() >= max => too_long(),
        None => Step::ReadSome(max - held.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::port::proxy::tests::{play, refusal_of};

    #[test]
    fn clients_of_other_protocols_are_refused_without_an_answer() {
        for bytes in [&[0x16, 3, 1, 2, 0, 1][..], &[0, 0], &[6, 1], b"\r\nGET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(refusal_of(bytes), (Vec::new(), Refusal::Version), "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Bytes of any kind, in pieces of any size, end or wait within the limit, and each piece size ends the same way.
        #[test]
        fn any_client(
            start in prop_oneof![
                Just(vec![5, 1, 0, 5, 1, 0]), Just(vec![4, 1]), Just(b"CONNECT ".to_vec()), Just(Vec::new()),
            ],
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            piece in 1..64_usize,
        ) {
            let bytes = [start, bytes].concat();
            let outline = |(sent, end, _): (Vec<u8>, Option<Step>, usize)| match end {
                Some(Step::Connect(request)) => (sent, Some(Ok(request.destination))),
                Some(Step::Refuse(answer, refusal)) => (sent, Some(Err((answer, refusal)))),
                _ => (sent, None),
            };
            prop_assert_eq!(outline(play(&bytes, piece)), outline(play(&bytes, usize::MAX)));
        }
    }
}
