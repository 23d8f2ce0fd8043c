//! The user at the other end of a loopback connection.
//!
//! Linux and macOS report the owner of each socket, Windows its process. A lookup without a result refuses no client: a
//! client behind another namespace's forwarder (WSL's mirrored network), a system without the interface (gVisor), an owner
//! that has no number in this user namespace. Of sockets that their process has closed, older kernels report no owner.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod owner;
#[cfg(any(target_os = "macos", test))]
mod pcb_list;
#[cfg(any(windows, test))]
mod tcp_table;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod users;
#[cfg(windows)]
mod windows;

use std::net::SocketAddr;

pub(crate) use self::owner::{PeerOwner, Stranger};

/// Returns the owner of the other end of a TCP connection whose both ends are on this machine.
pub(crate) fn peer_owner(local: SocketAddr, peer: SocketAddr) -> PeerOwner {
    #[cfg(target_os = "linux")]
    return linux::peer_owner(local, peer);
    #[cfg(target_os = "macos")]
    return macos::peer_owner(local, peer);
    #[cfg(windows)]
    return windows::peer_owner(local, peer);
    #[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
    {
        let _ = (local, peer);
        PeerOwner::Unknown
    }
}
