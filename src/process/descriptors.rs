//! The limit of open file descriptors, and waiting for one.
#![expect(unsafe_code, reason = "the runtime wants a promise about the descriptor it watches")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Raises the limit towards what the administrator allows. Shells set it low (256 on macOS, 1,024 on Linux), and each
/// forwarded connection takes one. Go programs, so the official plugin too, do the same when they start.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }
}

/// Returns the number of descriptors that the process may have open.
pub(crate) fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Checks that as many descriptors can be opened as every run needs.
///
/// # Errors
/// A sentence about the limit when they cannot.
pub(crate) fn check_descriptors() -> io::Result<()> {
    let stderr = io::stderr();
    let opened: io::Result<Vec<OwnedFd>> =
        (0..NEEDED_AT_START).map(|_| stderr.as_fd().try_clone_to_owned()).collect();
    opened.map(drop).map_err(|error| {
        let limit = descriptor_limit();
        io::Error::other(format!("the limit of open files is too low (ulimit -n: {limit}): {error}"))
    })
}

/// Registers the descriptor with the runtime, so that its readiness can be awaited; returns it where that is impossible
/// (a file).
///
/// # Errors
/// The descriptor itself.
pub(crate) fn watch_readable(descriptor: OwnedFd) -> Result<AsyncFd<OwnedFd>, OwnedFd> {
    // SAFETY: an `OwnedFd` stays open, and the same descriptor, until the `AsyncFd` that owns it is gone.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().0)
}

/// 8 sessions of 1,024 streams, and some; macOS takes no more, whatever the hard limit says.
const ENOUGH: u64 = 10_240;
/// The runtime has four (two for readiness, two for signals), the console two, stdin and the websocket one each; the
/// others are for looking up names, credentials, certificates and calls to AWS.
const NEEDED_AT_START: usize = 16;
