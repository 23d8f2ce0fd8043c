//! The limit on the size of files (`ulimit -f`).
#![expect(unsafe_code, reason = "setting a signal's disposition has no safe interface")]

use std::ffi::c_int;
use std::mem::MaybeUninit;

use tokio::signal::unix::SignalKind;

use super::signals::is_ignored;

/// Turns a write beyond the limit into an error of that write. By default it ends the process at once (SIGXFSZ), with the
/// terminal in raw mode and the session open.
///
/// A handler instead of `SIG_IGN`, which programs that we start would inherit.
pub(crate) fn survive_file_size_limit() {
    if is_ignored(SignalKind::from_raw(libc::SIGXFSZ)) {
        return;
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zero is a valid value of every field, and `sigemptyset` writes to a field of this value. The handler does
    // nothing, so it may run at any moment.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGXFSZ, action, std::ptr::null_mut());
    }
}

extern "C" fn nothing(_: c_int) {}
