//! Commands that we run.
#![expect(unsafe_code, reason = "the system's calls between fork and exec have no safe interface")]

use std::io;
use std::mem::MaybeUninit;

#[cfg(target_os = "linux")]
use rustix::process::getpid;
use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::process::{Child, Command};

use super::Signal;

/// Bond between a command and this process, for as long as this exists. The kernel keeps it here.
#[derive(Debug)]
pub(crate) struct Tie;

/// Spawns a command that ends when this process does, however that ends. To be called on the main thread: Linux follows
/// the thread. (macOS has nothing of the kind.)
///
/// # Errors
/// As the system's.
pub(crate) fn spawn_tied(command: &mut Command) -> io::Result<(Child, Tie)> {
    #[cfg(target_os = "linux")]
    {
        let parent = getpid().as_raw_pid();
        // SAFETY: between fork and exec only `prctl` and `getppid` are called, which are safe there and allocate nothing.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // We may have ended before.
                if libc::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            });
        }
    }
    command.spawn().map(|child| (child, Tie))
}

/// Passes a signal on to a process.
pub(crate) fn pass_on(id: u32, signal: Signal) {
    let number = match signal {
        Signal::Interrupt => Number::INT,
        Signal::Quit => Number::QUIT,
        Signal::Suspend => Number::TSTP,
        Signal::Terminate => Number::TERM,
        Signal::Hangup => Number::HUP,
        Signal::WindowChanged => Number::WINCH,
        Signal::Continue => Number::CONT,
        Signal::Usr1 => Number::USR1,
    };
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // One that has ended needs none.
        let _ = kill_process(id, number);
    }
}

/// Stops this process, as job control does, until it is continued. By the default action of the signal, which the system
/// leaves out in a process group that no shell would continue (an orphaned one; POSIX, `sigaction`).
pub(crate) fn stop() {
    let mut ours = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a zeroed action has no flags and an empty mask. `ours` is read when the call that fills it has returned 0. The
    // signal goes to this thread, which blocks none, so that it has been delivered when `raise` returns.
    unsafe {
        let mut default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        default.sa_sigaction = libc::SIG_DFL;
        if libc::sigaction(libc::SIGTSTP, &raw const default, ours.as_mut_ptr()) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, ours.as_ptr(), std::ptr::null_mut());
        }
    }
}

/// Returns whether a terminal's keys send their signals to this process and to the commands that it runs.
pub(crate) fn is_in_foreground() -> bool {
    // SAFETY: `tcgetpgrp` takes and returns numbers only.
    let foreground = [0, 1, 2].map(|descriptor| unsafe { libc::tcgetpgrp(descriptor) });
    foreground.contains(&super::group())
}
