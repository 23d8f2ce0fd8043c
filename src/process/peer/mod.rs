//! The user at the other end of a loopback connection.
//!
//! Linux reports the owner of each socket of the network namespace. A lookup that yields nothing refuses nobody: a client
//! behind another namespace's forwarder (WSL's mirrored network), a system without the interface (gVisor), an owner that
//! has no number in this user namespace. Of sockets that their process has closed, older kernels report no owner.

#[cfg(target_os = "linux")]
mod linux;
mod owner;

use std::net::SocketAddr;

pub(crate) use self::owner::PeerOwner;

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
