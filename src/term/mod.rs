//! The local terminal: raw mode, size, standard streams.
//!
//! With [`crate::process`] the only module that may hold `unsafe`. It has the same interface on every system; `windows`
//! stands in for the UNIX parts there.
//!
//! Nothing here sets `O_NONBLOCK`: the descriptors are inherited, the flag would be the caller's too
//! (a terminal's reader then fails with "resource temporarily unavailable", smp#29). Where the
//! runtime reads or writes itself, it asks `poll` first.

// The keys of a console; terminals send theirs themselves.
#[cfg(any(windows, test))]
mod keys;
mod limits;
mod output;
#[cfg(unix)]
mod raw;
#[cfg(unix)]
mod size;
#[cfg(unix)]
mod stdin;
// A console takes text alone; everything else takes the bytes as they are.
#[cfg(any(windows, test))]
mod utf8;
#[cfg(windows)]
mod windows;

use std::io::IsTerminal;

use crate::protocol::TerminalSize;

pub(crate) use self::output::{OUTPUT_QUEUE, Output};
#[cfg(windows)]
pub(crate) use self::windows::{RawMode, Stdin, is_raw, settled};
#[cfg(unix)]
pub(crate) use self::{
    raw::{RawMode, is_raw, settled},
    stdin::Stdin,
};

/// The size of the first of stdout, stderr and stdin that knows one, else `fallback`. A terminal
/// that says 0 does not know.
#[must_use]
pub(crate) fn current_size(fallback: TerminalSize) -> TerminalSize {
    #[cfg(unix)]
    let known = size::of_standard_streams();
    #[cfg(windows)]
    let known = windows::size();
    known.unwrap_or(fallback)
}

/// Returns whether stdin is a terminal: the condition for raw mode, escapes and size changes.
#[must_use]
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Returns whether there is input that is not typed: a pipe, a socket or a file that is not empty.
#[must_use]
pub(crate) fn stdin_has_data() -> bool {
    #[cfg(unix)]
    return stdin::has_data();
    #[cfg(windows)]
    return false;
}

/// Returns whether stdin is the terminal of Cygwin or MSYS (mintty, as in Git Bash). To all but their own
/// programs that is a pipe, by whose name (`\msys-…-pty0-from-master`) the standard library takes it for a
/// terminal; there is no console behind it that could be put into raw mode.
#[must_use]
pub(crate) fn stdin_is_pipe_terminal() -> bool {
    #[cfg(unix)]
    return false;
    #[cfg(windows)]
    {
        stdin_is_terminal() && windows::stdin_is_pipe()
    }
}

/// Returns whether stdout is a terminal.
#[must_use]
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Switches off what a remote program may have left on in the terminal when a session ends without it:
/// bracketed paste, mouse reports, focus reports, application keys, a hidden cursor, colours. For stdout,
/// if that is a terminal, after a shell that was cut off. (The alternate screen stays: leaving it
/// would move the cursor where it was never entered.)
pub(crate) const MODES_OFF: &[u8] =
    b"\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?1l\x1b>\x1b[?25h\x1b[0m";

#[cfg(all(test, unix))]
mod tests;
