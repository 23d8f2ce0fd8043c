//! Core dumps, which would write the session's memory to a disk.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Prevents core dumps of this process: its memory holds the token, credentials and all that was typed.
///
/// The process stays "dumpable" in Linux's sense: otherwise `lsof`, `ss` and `fuser` of the same user no longer show which
/// process holds a forwarded port, and scripts that end a tunnel by its port would find none.
#[cfg_attr(not(target_os = "linux"), expect(clippy::unnecessary_min_or_max, reason = "0 is the least"))]
pub(crate) fn forbid_core_dumps() {
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(NO_CORE_DUMP.min(limit.maximum.unwrap_or(NO_CORE_DUMP)));
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::debug!(%error, "core dumps stay as they are");
    }
}

/// Linux does not apply the limit where core dumps go to a program (systemd-coredump, apport), except for a limit of one
/// byte, which stops those, too (kernel source, `do_coredump`). No file is that small.
const NO_CORE_DUMP: u64 = if cfg!(target_os = "linux") { 1 } else { 0 };
