//! Command line and end of a process, on Linux.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::command::Command;

/// Readable when the process has ended. Linux has it since 5.3; some sandboxes do not allow it.
pub(super) fn exit_descriptor(id: Pid) -> Option<OwnedFd> {
    pidfd_open(id, PidfdFlags::empty()).ok()
}

/// From `/proc`.
pub(super) fn command(id: Pid) -> Option<Command> {
    let folder = PathBuf::from(format!("/proc/{id}"));
    let line = std::fs::read(folder.join("cmdline")).ok()?;
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    let arguments = line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    // That of another user's process cannot be read.
    let executable = std::fs::read_link(folder.join("exe")).ok().map(|path| {
        // It may have been upgraded since.
        let bytes = path.as_os_str().as_bytes();
        PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
    });
    Some(Command { executable, arguments })
}
