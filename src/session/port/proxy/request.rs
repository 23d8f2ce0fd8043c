//! Requests of proxy clients and the answers to them, whatever the protocol.

use bytes::BytesMut;

use crate::destination::{Destination, DestinationError};
use crate::printable;

/// Protocol in which a proxy client waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Socks5,
    Socks4,
    Http,
}

/// Next step of a client's request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read exactly this many bytes.
    Read(usize),
    /// Read from 1 to this many bytes.
    ReadSome(usize),
    /// Send these, then continue without bytes.
    Send(&'static [u8]),
    /// Connect; then answer with a [`Reply`].
    Connect(Request),
    /// Send these, then close.
    Refuse(Vec<u8>, Refusal),
}

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub destination: Destination,
    pub preface: Preface,
}

/// Start of a local connection, before its data: empty for the clients of a forwarded port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Preface {
    /// Protocol of the answer that the client waits for.
    pub protocol: Option<Protocol>,
    /// Data that came together with the request.
    pub early: BytesMut,
}

/// Reason that a client is refused, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the client speaks neither SOCKS nor HTTP")]
    Version,
    #[error("the client requires authentication")]
    Authentication,
    #[error("the client requests a command other than CONNECT")]
    Command,
    #[error("unknown address type")]
    AddressType,
    #[error("an HTTP request other than CONNECT; for http:// URLs use SOCKS, or curl --proxytunnel")]
    Method,
    #[error("invalid request")]
    Malformed,
    #[error("a request of more than {MAX_REQUEST} bytes")]
    TooLong,
    #[error("{0:?}: {1}")]
    Destination(String, DestinationError),
}

/// Answer to a request. The values are the reply codes of SOCKS5 (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    /// "TTL expired": the code that proxies such as Tor send for a timeout.
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

impl Request {
    /// A request without data.
    pub(crate) fn new(destination: Destination, protocol: Protocol) -> Request {
        Request { destination, preface: Preface { protocol: Some(protocol), early: BytesMut::new() } }
    }
}

/// Returns the refusal that names a destination as a client wrote it.
pub(crate) fn refused_destination(host: &str, error: DestinationError) -> Refusal {
    Refusal::Destination(printable::beginning(host), error)
}

/// Longest request that is read, in bytes: the head of an HTTP request is the longest. Proxies commonly allow as much.
pub(crate) const MAX_REQUEST: usize = 8 << 10;
