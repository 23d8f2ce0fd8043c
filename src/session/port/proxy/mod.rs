//! The proxy for SOCKS5, SOCKS4, SOCKS4a and HTTP CONNECT: requests and the answers to them, sans-IO.

mod handshake;
mod http_connect;
mod request;
mod socks4;
mod socks5;
#[cfg(test)]
mod tests;

pub(crate) use self::handshake::{Handshake, encode};
#[cfg(test)]
use self::request::MAX_REQUEST;
pub(crate) use self::request::{Preface, Protocol, Refusal, Reply, Request, Step};
