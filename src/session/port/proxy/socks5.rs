//! SOCKS version 5 (RFC 1928), the server's half of the handshake, sans-IO.
//!
//! ```text
//!  Greeting ── no authentication ─▶ Request ── CONNECT ─▶ Connect(destination) … then one reply
//!      │ version, methods               │ command, address, port
//!      └────────────────────────────────┴─▶ Refuse(bytes to send before the end)
//! ```
//!
//! The handshake requests the number of bytes that it needs next, so that data behind the request stays in the socket. It
//! holds 262 bytes at most.
//!
//! In scope: CONNECT with names and addresses, no authentication. BIND, UDP and other methods are refused as the RFC says.
//! Out of scope: deadlines, sockets.
//!
//! No crate fits: `fast-socks5` takes the socket with its errors, so that an unknown command cannot be
//! answered, and brings second versions of crates that are linked already; `socks5-impl` is under the GPL.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::request::{Protocol, Refusal, Reply, Request, Step, refused_destination};
use crate::destination::{Destination, DestinationError};

/// The state of one client's handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    is_greeted: bool,
    bytes: Vec<u8>,
}

/// The server's answer to a request. The bound address is left unspecified: only the agent knows it.
pub(crate) fn reply(reply: Reply) -> [u8; 10] {
    [VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

impl Handshake {
    /// Takes the bytes that were requested, or continues after an answer was sent (no bytes).
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Step {
        self.bytes.extend_from_slice(bytes);
        if self.is_greeted { self.request() } else { self.greeting() }
    }

    /// `VER NMETHODS METHODS`.
    fn greeting(&mut self) -> Step {
        match self.bytes.as_slice() {
            [] => Step::Read(2),
            [version, ..] if *version != VERSION => Step::Refuse(Vec::new(), Refusal::Version),
            [_, count, methods @ ..] if methods.len() < usize::from(*count) => {
                Step::Read(usize::from(*count) - methods.len())
            }
            [_, _, methods @ ..] if methods.contains(&NO_AUTHENTICATION) => {
                self.is_greeted = true;
                self.bytes.clear();
                Step::Send(&[VERSION, NO_AUTHENTICATION])
            }
            _ => Step::Refuse(vec![VERSION, NO_ACCEPTABLE_METHOD], Refusal::Authentication),
        }
    }

    /// `VER CMD RSV ATYP DST.ADDR DST.PORT`.
    fn request(&mut self) -> Step {
        let refuse = |code, why| Step::Refuse(reply(code).to_vec(), why);
        let [version, command, _, kind, first, rest @ ..] = self.bytes.as_slice() else {
            // The shortest part that includes the length of the rest.
            return Step::Read(REQUEST_HEAD - self.bytes.len());
        };
        if *version != VERSION {
            return Step::Refuse(Vec::new(), Refusal::Version);
        }
        let length = match *kind {
            IPV4 => 3 + 2,
            NAME => usize::from(*first) + 2,
            IPV6 => 15 + 2,
            _ => return refuse(Reply::AddressNotSupported, Refusal::AddressType),
        };
        if rest.len() < length {
            return Step::Read(length - rest.len());
        }
        if *command != CONNECT {
            return refuse(Reply::CommandNotSupported, Refusal::Command);
        }
        let (address, port) = rest.split_at(length - 2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        let host = match (*kind, address) {
            (IPV4, &[b, c, d]) => Ipv4Addr::new(*first, b, c, d).to_string(),
            (IPV6, rest) => {
                let mut octets = [*first; 16];
                octets[1..].copy_from_slice(rest);
                Ipv6Addr::from(octets).to_string()
            }
            (_, name) => String::from_utf8_lossy(name).into_owned(),
        };
        match Destination::new(&host, port) {
            Ok(destination) => Step::Connect(Request::new(destination, Protocol::Socks5)),
            Err(error) => {
                let code = match error {
                    DestinationError::PortZero => Reply::GeneralFailure,
                    DestinationError::Host | DestinationError::TooShort => Reply::HostUnreachable,
                };
                refuse(code, refused_destination(&host, error))
            }
        }
    }
}

pub(super) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// Up to the address's first byte, which is a name's length.
const REQUEST_HEAD: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::port::proxy::tests::{play, refusal_of, request_of};

    fn request(command: u8, kind: u8, address: &[u8], port: u16) -> Vec<u8> {
        let mut bytes = vec![5, 1, 0, 5, command, 0, kind];
        bytes.extend_from_slice(address);
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes
    }

    fn name(name: &str) -> Vec<u8> {
        [&[name.len() as u8], name.as_bytes()].concat()
    }

    #[test]
    fn connect_to_names_and_addresses() {
        for (kind, address, host) in [
            (IPV4, vec![10, 0, 0, 7], "10.0.0.7".to_owned()),
            (IPV6, [&[0xfd][..], &[0; 14], &[1]].concat(), "[fd00::1]".to_owned()),
            (NAME, name("db.internal"), "db.internal".to_owned()),
            (NAME, name(&"a".repeat(255)), "a".repeat(255)),
        ] {
            let mut bytes = request(CONNECT, kind, &address, 5432);
            assert_eq!(play(&bytes, 1).0, [5, 0]);
            let length = bytes.len();
            bytes.extend_from_slice(b"GET /");
            let expected = (format!("{host}:5432"), Protocol::Socks5, b"GET /".to_vec());
            assert_eq!(request_of(&bytes, usize::MAX), expected);
            // In pieces of one byte more is wanted up to the last.
            for end in 0..length {
                assert_eq!(play(&bytes[..end], 1).1, None, "{end} bytes");
            }
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        let refused = |bytes: &[u8]| refusal_of(bytes).0;
        assert_eq!(refused(&[5, 0]), [5, 0xff]);
        assert_eq!(refused(&[5, 2, 1, 2]), [5, 0xff], "GSSAPI or a password");
        assert_eq!(refused(&request(2, IPV4, &[10, 0, 0, 1], 80))[1], 7, "BIND");
        assert_eq!(refused(&request(3, IPV4, &[10, 0, 0, 1], 80))[1], 7, "UDP ASSOCIATE");
        assert_eq!(refused(&request(CONNECT, 2, &[10, 0, 0, 1], 80))[1], 8);
        assert_eq!(refused(&request(CONNECT, IPV4, &[10, 0, 0, 1], 0))[1], 1);
        assert_eq!(refused(&request(CONNECT, NAME, &name(""), 80))[1], 4);
        assert_eq!(refused(&request(CONNECT, NAME, &name("a\"b.c"), 80))[1], 4);
        assert_eq!(refused(&request(CONNECT, NAME, &[3, 0xff, 0xfe, 0xfd], 80))[1], 4);
        assert!(refused(&[5, 1, 0, 4, 1, 0, 1, 1]).is_empty(), "another version in the request");
    }
}
