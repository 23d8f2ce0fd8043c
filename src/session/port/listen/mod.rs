//! Sources of connections: ports, socket files, clients of the proxy.

mod bind;
mod listener;
mod listeners;
mod memory;
mod socks;

pub(crate) use self::listener::{AcceptPause, Listener};
pub(crate) use self::listeners::{Accepted, Listeners};
pub(crate) use self::memory::Ports;
pub(crate) use self::socks::SocksListener;
