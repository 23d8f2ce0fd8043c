//! Raw mode as a guard.
#![expect(unsafe_code, reason = "blocking a signal and process group 0 have no safe interface")]

use std::io::{self, IsTerminal as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr,
};
use tokio::sync::oneshot;

use crate::{panics, process};

/// The terminal in raw mode. Restored when this is dropped, when any thread panics, and by [`restore`].
///
/// Every byte goes to the remote: no signals, no line editing, no echo, no `^S`/`^Q`, no `^V`/`^O`/`^Y`
/// (the official plugin's cbreak keeps the latter, smp#29). Output passes untouched, since the remote terminal has
/// already made `\r\n` of its newlines (as OpenSSH does it), but only where stdout is that terminal: with a filter
/// behind stdout (`aws … | sed 's/\r$//'`) it is others who write there, and theirs are plain newlines.
#[derive(Debug)]
#[must_use = "the terminal is restored when this is dropped"]
pub(crate) struct RawMode(());

impl RawMode {
    /// Puts the terminal on stdin into raw mode; `None` if stdin is no terminal.
    ///
    /// In the background, job control stops the process here until it is in the foreground.
    ///
    /// # Errors
    /// If the terminal does not take the mode.
    pub(crate) fn enter() -> io::Result<Option<RawMode>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let stdin = io::stdin();
        let writes_to_it = is_same_terminal(&stdin, io::stdout());
        RawMode::on(stdin.as_fd().try_clone_to_owned()?, writes_to_it).map(Some)
    }

    pub(super) fn on(fd: OwnedFd, writes_to_it: bool) -> io::Result<RawMode> {
        PANIC_HOOK.call_once(restore_on_panic);
        let mut saved = lock();
        if saved.is_none() {
            let original = tcgetattr(&fd)?;
            let raw = raw(original.clone(), writes_to_it);
            tcsetattr(&fd, OptionalActions::Now, &raw)?;
            *saved = Some(SavedMode { fd, original, raw });
        }
        RAW.store(true, Ordering::Release);
        Ok(RawMode(()))
    }

    /// Enters raw mode again after [`Signal::Continue`](crate::process::Signal::Continue): the shell has set the
    /// terminal as it likes until then. Does nothing in the background.
    ///
    /// # Errors
    /// If the terminal does not take the mode.
    pub(crate) fn reenter(&self) -> io::Result<()> {
        match &*lock() {
            Some(saved) if !in_background(&saved.fd) => saved.apply(&saved.raw),
            _ => Ok(()),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its settings back if [`RawMode`] changed them. At any time, from any thread, as
/// often as one likes.
///
/// In the background only if it has not been set since: a shell that finds its job gone either sets the terminal for
/// itself, and then it is the shell's, or takes it as it is, and then it must not stay raw. Bash does the latter when
/// the job has ended (`timeout --foreground … aws …`). Its line editor may be faster than we are: then we let it
/// finish its line first ([`settled`]).
pub(super) fn restore() {
    if let Some(saved) = lock().take() {
        if !in_background(&saved.fd) || saved.is_untouched() {
            // Nothing better could be done about a terminal that is gone.
            let _ = saved.apply(&saved.original);
        } else if saved.is_being_edited() {
            let (editing, edited) = oneshot::channel();
            let waiting = move || {
                saved.restore_after_editing();
                drop(editing);
            };
            if thread::Builder::new().name("terminal".to_owned()).spawn(waiting).is_ok() {
                *EDITED.lock().unwrap_or_else(PoisonError::into_inner) = Some(edited);
            }
        }
    }
    RAW.store(false, Ordering::Release);
}

/// Resolves when [`restore`] has done all it can: at once, or, where a line editor works with our modes, when that has
/// given them back, at the latest after 30 s ([`EDITING`]). A call after a cancelled one does not wait: meant for the end
/// of the process.
pub(crate) async fn settled() {
    let edited = EDITED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(edited) = edited {
        let _ = edited.await;
    }
}

/// Returns whether the terminal is in raw mode through us, so that a line needs `\r\n`.
#[must_use]
pub(crate) fn is_raw() -> bool {
    RAW.load(Ordering::Acquire)
}

struct SavedMode {
    fd: OwnedFd,
    original: Termios,
    raw: Termios,
}

impl SavedMode {
    /// Applies `mode` at once (waiting for the output to drain could wait forever), also in the background.
    fn apply(&self, mode: &Termios) -> io::Result<()> {
        Ok(without(libc::SIGTTOU, || tcsetattr(&self.fd, OptionalActions::Now, mode))?)
    }

    /// Returns whether the terminal is as we have left it.
    fn is_untouched(&self) -> bool {
        let modes = |mode: &Termios| (mode.input_modes, mode.output_modes, mode.local_modes);
        tcgetattr(&self.fd).is_ok_and(|now| modes(&now) == modes(&self.raw))
    }

    /// Returns whether another program has changed our modes and will put them back: readline switches signals on, but
    /// leaves the extensions (IEXTEN) off if it finds them off. All other modes that we meet have them on.
    fn is_being_edited(&self) -> bool {
        let has_extensions = |mode: &Termios| mode.local_modes.contains(LocalModes::IEXTEN);
        has_extensions(&self.original) && tcgetattr(&self.fd).is_ok_and(|now| !has_extensions(&now))
    }

    fn restore_after_editing(&self) {
        let begin = Instant::now();
        while self.is_being_edited() && begin.elapsed() < EDITING {
            if self.is_untouched() {
                let _ = self.apply(&self.original);
                return;
            }
            thread::sleep(EDITING_POLL);
        }
    }
}

fn raw(mut mode: Termios, writes_to_it: bool) -> Termios {
    let output_modes = mode.output_modes;
    mode.make_raw();
    if !writes_to_it {
        mode.output_modes = output_modes;
    }
    mode.input_modes.remove(InputModes::IXANY | InputModes::IXOFF);
    mode.special_codes[SpecialCodeIndex::VMIN] = 1;
    mode.special_codes[SpecialCodeIndex::VTIME] = 0;
    mode
}

/// Returns whether both are one terminal, by whatever name they were opened: `/dev/tty` is a device of its own,
/// but no process has two controlling terminals.
pub(super) fn is_same_terminal(one: impl AsFd, other: impl AsFd) -> bool {
    let device = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| stat.st_rdev).ok();
    let (one, other) = (one.as_fd(), other.as_fd());
    isatty(one)
        && isatty(other)
        && (device(one) == device(other) || is_controlling(one) && is_controlling(other))
}

fn is_controlling(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: `tcgetsid` takes and returns numbers only; the descriptor is open.
    unsafe { libc::tcgetsid(terminal.as_raw_fd()) >= 0 }
}

/// Returns whether another process group has the terminal. False if it is not the controlling one. Group 0
/// stands for every group whose leader is in another PID namespace; if ours is such a group, 0 counts as ours.
pub(super) fn in_background(terminal: impl AsFd) -> bool {
    // SAFETY: `tcgetpgrp` takes and returns numbers only; the descriptor is open.
    let foreground = unsafe { libc::tcgetpgrp(terminal.as_fd().as_raw_fd()) };
    foreground >= 0 && foreground != process::group()
}

/// Runs `change` with one signal blocked in this thread. The process may lose the foreground right after it
/// looked: touching the terminal would then stop it for good, with its ports open.
pub(super) fn without<T>(signal: libc::c_int, change: impl FnOnce() -> T) -> T {
    let mut block = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes `block`, which the two calls after it use; `pthread_sigmask` fills
    // `before` when it returns 0, and only then it is read.
    let before = unsafe {
        libc::sigemptyset(block.as_mut_ptr());
        libc::sigaddset(block.as_mut_ptr(), signal);
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, block.as_ptr(), before.as_mut_ptr()) == 0;
        blocked.then(|| before.assume_init())
    };
    let result = change();
    if let Some(before) = before {
        // SAFETY: `before` is the mask this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    }
    result
}

fn restore_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The session continues after a contained one.
        if !panics::is_contained() {
            restore();
        }
        next(info);
    }));
}

fn lock() -> MutexGuard<'static, Option<SavedMode>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time limit for editing a line.
const EDITING: Duration = Duration::from_secs(30);
/// Interval at which the line editor is checked: the command that its line starts may begin this soon.
const EDITING_POLL: Duration = Duration::from_millis(10);

static EDITED: Mutex<Option<oneshot::Receiver<()>>> = Mutex::new(None);
static SAVED: Mutex<Option<SavedMode>> = Mutex::new(None);
static RAW: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();
