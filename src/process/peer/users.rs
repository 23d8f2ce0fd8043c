//! The users whose clients are this user's own.

use rustix::process::{geteuid, getuid};

/// Returns the effective user, the real one, and the one that called `sudo`: a port below 1024 needs it, and its clients
/// are still the user's.
pub(super) fn own() -> [Option<u32>; 3] {
    let caller = if geteuid().is_root() { std::env::var("SUDO_UID").ok() } else { None };
    [Some(geteuid().as_raw()), Some(getuid().as_raw()), caller.and_then(|uid| uid.parse().ok())]
}
