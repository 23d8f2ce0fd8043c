//! The user at the other end of a loopback connection.
//!
//! Linux reports the owner of each socket of the network namespace. A lookup that yields nothing refuses nobody: a client
//! behind another namespace's forwarder (WSL's mirrored network), a system without the interface (gVisor), an owner that
//! has no number in this user namespace. Of sockets that their process has closed, Linux before 6.17 reports no owner.

#[cfg(target_os = "linux")]
mod linux;

use std::net::SocketAddr;

/// The owner of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerOwner {
    /// This user, the user that called `sudo`, or root.
    Trusted,
    /// Another user, by number.
    Other(u32),
    /// The client has closed its socket already.
    Gone,
    /// The system does not report it.
    Unknown,
}

/// Returns the owner of the other end of a TCP connection whose both ends are on this machine.
#[cfg(target_os = "linux")]
pub(crate) fn peer_owner(local: SocketAddr, peer: SocketAddr) -> PeerOwner {
    linux::peer_owner(local, peer)
}

/// The system does not report it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peer_owner(_local: SocketAddr, _peer: SocketAddr) -> PeerOwner {
    PeerOwner::Unknown
}
