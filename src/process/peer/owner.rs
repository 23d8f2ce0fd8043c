//! Owner of the other end of a connection, as far as known.

/// The owner of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerOwner {
    /// This user, the user that called `sudo`, or root.
    Trusted,
    /// Another user, by number.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux reports the owner"))]
    Other(u32),
    /// The client has closed its socket already.
    Gone,
    /// The system does not report it.
    Unknown,
}
