//! The limit of open file descriptors.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit towards what the administrator allows. Shells set it low (256 on macOS, 1,024 on Linux), and each
/// forwarded connection takes one; programs of the official plugin's language do the same when they start.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }
}

/// 8 sessions of 1,024 streams, and some; macOS takes no more, whatever the hard limit says.
const ENOUGH: u64 = 10_240;
