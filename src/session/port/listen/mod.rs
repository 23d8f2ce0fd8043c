//! Sources of connections: ports, socket files, clients of the proxy.

mod accept_pause;
mod bind;
mod listener;
mod listeners;
mod memory;
mod socks;
#[cfg(unix)]
mod unix;

pub(crate) use self::accept_pause::AcceptPause;
pub(crate) use self::listener::{ListenError, Listener};
pub(crate) use self::listeners::{Accepted, Listeners};
#[cfg(test)]
pub(crate) use self::memory::MemoryPorts;
pub(crate) use self::memory::Ports;
pub(crate) use self::socks::SocksListener;
