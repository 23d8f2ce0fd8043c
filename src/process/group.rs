//! Process groups. Group 0 stands for one whose leader is in another PID namespace (`unshare --pid`, bwrap, firejail);
//! rustix assumes that it cannot occur: a panic or undefined behaviour.
#![expect(unsafe_code, reason = "the safe interface takes group 0 for impossible")]

use rustix::process::Pid;

/// Our process group.
pub(crate) fn group() -> libc::pid_t {
    // SAFETY: `getpgrp` takes and returns a number only.
    unsafe { libc::getpgrp() }
}

/// The group of another process; `None` if there is no such process.
pub(crate) fn group_of(id: Pid) -> Option<libc::pid_t> {
    // SAFETY: `getpgid` takes and returns numbers only.
    let group = unsafe { libc::getpgid(id.as_raw_pid()) };
    (group >= 0).then_some(group)
}
