//! Owner of the other end of a connection, as far as known.

use std::fmt;
use std::net::SocketAddr;

/// The owner of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerOwner {
    /// This user, the user that called `sudo`, or the system's own (root, SYSTEM).
    Trusted,
    /// Another user.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "macos", windows)),
        expect(dead_code, reason = "known only where the system reports the owner")
    )]
    Other(Stranger),
    /// The client has closed its socket already.
    Gone,
    /// The system does not report it.
    Unknown,
}

/// Another user, by the number that the system reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// The user's own number.
    #[cfg_attr(all(windows, not(test)), expect(dead_code, reason = "users have no numbers there"))]
    User(u32),
    /// A process of the user's.
    #[cfg_attr(not(windows), expect(dead_code, reason = "users have no numbers on Windows"))]
    Process(u32),
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stranger::User(number) => write!(f, "uid {number}"),
            Stranger::Process(number) => write!(f, "process {number}"),
        }
    }
}

/// The address as the socket of a client has it: that of an IPv6 listener may carry IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
