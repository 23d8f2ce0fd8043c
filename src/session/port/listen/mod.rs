//! Sources of connections: ports, socket files, clients of the proxy.

mod accept_pause;
mod accepted;
mod bind;
mod listener;
mod listeners;
mod memory;
mod socks;
#[cfg(unix)]
mod unix;

#[cfg(feature = "cli")]
pub(crate) use self::accept_pause::AcceptPause;
pub(crate) use self::accepted::Accepted;
pub(crate) use self::listener::{ListenError, Listener};
pub(crate) use self::listeners::Listeners;
pub(crate) use self::memory::{MemoryPorts, Ports};
#[cfg(all(test, target_os = "linux"))]
pub(crate) use self::memory::{PortSpace, StreamListener};
#[cfg(feature = "cli")]
pub(crate) use self::socks::SocksListener;
