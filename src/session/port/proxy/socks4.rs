//! SOCKS version 4, and 4a with names, sans-IO.
//!
//! No RFC: the memorandum "SOCKS: A protocol for TCP proxy across firewalls" by Ying-Da Lee, and its extension "SOCKS 4A".
//! The user's name in a request is not checked, as SOCKS5 clients are not asked for one.

use std::net::Ipv4Addr;

use bytes::BytesMut;

use super::request::{Protocol, Refusal, Reply, Request, Step, refused_destination};
use crate::destination::Destination;

/// Returns the server's answer to a request, with the address left out.
pub(super) fn reply(reply: Reply) -> [u8; 8] {
    let code = if reply == Reply::Succeeded { GRANTED } else { REJECTED };
    [0, code, 0, 0, 0, 0, 0, 0]
}

/// Reads `VN CD DSTPORT DSTIP USERID NUL [NAME NUL]`, and leaves the data behind it in the request. `None` while it is
/// incomplete.
pub(super) fn parse(held: &mut BytesMut) -> Option<Step> {
    let (&[_, command, high, low, a, b, c, d], rest) = held.split_first_chunk::<HEAD>()?;
    let port = u16::from_be_bytes([high, low]);
    let user = position_of_end(rest)?;
    let (host, length) = match [a, b, c, d] {
        [0, 0, 0, last] if last > 0 => {
            let name = &rest[user + 1..];
            let end = position_of_end(name)?;
            (String::from_utf8_lossy(&name[..end]).into_owned(), HEAD + user + 1 + end + 1)
        }
        octets => (Ipv4Addr::from(octets).to_string(), HEAD + user + 1),
    };
    if command != CONNECT {
        return Some(Step::Refuse(reply(Reply::CommandNotSupported).to_vec(), Refusal::Command));
    }
    Some(match Destination::new(&host, port) {
        Ok(destination) => {
            let mut request = Request::new(destination, Protocol::Socks4);
            request.preface.early = held.split_off(length);
            Step::Connect(request)
        }
        Err(error) => Step::Refuse(reply(Reply::HostUnreachable).to_vec(), refused_destination(&host, error)),
    })
}

fn position_of_end(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == 0)
}

pub(super) const VERSION: u8 = 4;
/// Longest request, in bytes: the memorandum has no limit; user and name have 255 bytes each in SOCKS5.
pub(super) const MAX_REQUEST: usize = HEAD + 256 + 256;
/// Bytes before the user's name.
const HEAD: usize = 8;
const CONNECT: u8 = 1;
const GRANTED: u8 = 90;
const REJECTED: u8 = 91;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::DestinationError;
    use crate::session::port::proxy::tests::{play, refusal_of, request_of};

    fn request(command: u8, port: u16, address: [u8; 4], rest: &[u8]) -> Vec<u8> {
        [&[VERSION, command][..], &port.to_be_bytes(), &address, rest].concat()
    }

    #[test]
    fn addresses_and_names_with_early_data() {
        for (address, rest, host) in [
            ([10, 0, 0, 7], &b"\0"[..], "10.0.0.7"),
            ([10, 0, 0, 7], b"somebody\0", "10.0.0.7"),
            ([0, 0, 0, 1], b"\0db.internal\0", "db.internal"),
            ([0, 0, 0, 255], b"somebody\0db.internal\0", "db.internal"),
        ] {
            let bytes = request(CONNECT, 5432, address, rest);
            for end in 0..bytes.len() {
                assert_eq!(play(&bytes[..end], usize::MAX).1, None, "{end} bytes");
            }
            for piece in [1, 3, usize::MAX] {
                let whole = [&bytes[..], b"GET /\0"].concat();
                let expected = (format!("{host}:5432"), Protocol::Socks4, b"GET /\0".to_vec());
                assert_eq!(request_of(&whole, piece), expected, "{piece}");
            }
        }
    }

    #[test]
    fn refusals() {
        let no = vec![0, 91, 0, 0, 0, 0, 0, 0];
        assert_eq!(refusal_of(&request(2, 80, [10, 0, 0, 1], b"\0")), (no.clone(), Refusal::Command));
        let port = Refusal::Destination("10.0.0.1".to_owned(), DestinationError::PortZero);
        assert_eq!(refusal_of(&request(1, 0, [10, 0, 0, 1], b"\0")), (no.clone(), port));
        let host = Refusal::Destination("a b.c".to_owned(), DestinationError::Host);
        assert_eq!(refusal_of(&request(1, 80, [0, 0, 0, 1], b"\0a b.c\0")), (no.clone(), host));
        let endless = request(1, 80, [10, 0, 0, 1], &[b'x'; MAX_REQUEST]);
        assert_eq!(refusal_of(&endless), (no, Refusal::TooLong));
        assert_eq!(reply(Reply::Succeeded), [0, 90, 0, 0, 0, 0, 0, 0]);
    }
}
