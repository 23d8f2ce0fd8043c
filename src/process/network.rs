//! Notification of changes to the machine's network: addresses, links and routes. On Linux by netlink, elsewhere by a routing
//! socket. The messages themselves are not read: the reader looks at what concerns it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, recv};
use tokio::io::unix::AsyncFd;

use super::descriptors::watch_readable;

/// A stream of changes to the network.
#[derive(Debug)]
pub(crate) struct NetworkEvents(AsyncFd<OwnedFd>);

impl NetworkEvents {
    /// Starts to listen.
    ///
    /// # Errors
    /// As the system's `socket` and `bind`: sandboxes forbid them.
    pub(crate) fn open() -> io::Result<NetworkEvents> {
        let socket = open()?;
        watch_readable(socket)
            .map(NetworkEvents)
            .map_err(|_| io::Error::other("the socket cannot be watched"))
    }

    /// Resolves after one or more changes. Cancel-safe.
    ///
    /// # Errors
    /// When the socket has failed.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match recv(self.0.get_ref(), &mut buffer, RecvFlags::DONTWAIT) {
                Ok(_) => break,
                // More happened than the socket holds.
                Err(rustix::io::Errno::NOBUFS) => break,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        // The rest of a burst says the same.
        while recv(self.0.get_ref(), &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn open() -> io::Result<OwnedFd> {
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{SocketFlags, SocketType, bind, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

#[cfg(not(target_os = "linux"))]
fn open() -> io::Result<OwnedFd> {
    use rustix::net::{SocketType, socket};
    let socket = socket(AddressFamily::ROUTE, SocketType::RAW, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Links, addresses and routes of both families: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`,
/// `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE` (Linux, `rtnetlink.h`).
#[cfg(target_os = "linux")]
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
