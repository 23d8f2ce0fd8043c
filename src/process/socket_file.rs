//! Socket files.

use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;

/// Listens on a new socket file that only this user can open, not even for a moment between two calls.
///
/// # Errors
/// As the system's `bind`.
pub(crate) fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mask = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(mask);
    listener
}
