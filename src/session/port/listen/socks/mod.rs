//! SOCKS clients: the listener, and the form of their requests.

mod handshake;
mod listener;

pub(crate) use self::handshake::{Refusal, Reply, reply};
pub(crate) use self::listener::{Client, SocksListener};
