//! The process that called us.
#![expect(unsafe_code, reason = "the safe interface to process groups panics on group 0")]

use rustix::process::{Pid, getpgrp, getpid, getppid};

/// The parent at the start. When the `aws` process is killed, the kernel hands us to another one; the
/// official plugin then keeps its port open until the session idles out (cli#5149).
///
/// Not `PR_SET_PDEATHSIG`: that follows the *thread* that made us, and a start can miss it.
#[derive(Debug)]
pub struct Parent {
    id: Option<Pid>,
    /// It had died before we could look.
    was_gone: bool,
}

impl Parent {
    /// The parent now; to be called first thing. No parent (it is in another PID namespace, as under
    /// `docker exec`) never counts as gone.
    ///
    /// A child is born into its parent's process group. One that is in neither its own nor its parent's has been
    /// handed to another parent: the caller died while we were being started.
    pub fn current() -> Parent {
        let (id, group) = (getppid(), getpgrp());
        let has_other_group = id.is_some_and(|id| group_of(id) != group.as_raw_pid());
        Parent { id, was_gone: group != getpid() && has_other_group }
    }

    /// Whether that parent is gone.
    pub fn is_gone(&self) -> bool {
        self.was_gone || getppid() != self.id
    }
}

/// Process 1 may be in group 0, which the safe interface takes for impossible.
fn group_of(id: Pid) -> libc::pid_t {
    // SAFETY: `getpgid` takes and gives numbers only; -1 says that there is no such process.
    unsafe { libc::getpgid(id.as_raw_pid()) }
}
