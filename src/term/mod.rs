//! The local terminal and process: raw mode, size, standard streams, signals, parent.
//!
//! The only module that may hold `unsafe`. It has the same face on every system; `windows` stands in
//! for the UNIX parts there.
//!
//! Nothing here sets `O_NONBLOCK`: the descriptors are inherited, the flag would be the caller's too
//! (a terminal's reader then fails with "resource temporarily unavailable", smp#29). Where the
//! runtime reads or writes itself, it asks `poll` first.

mod argv;
#[cfg(unix)]
mod descriptors;
mod env;
mod output;
#[cfg(unix)]
mod parent;
#[cfg(unix)]
mod raw;
#[cfg(unix)]
mod signals;
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

pub use self::argv::hide_argument;
pub use self::env::take_var;
pub use self::output::Output;
#[cfg(windows)]
pub use self::windows::{Parent, RawMode, Signals, Stdin, is_raw, raise_descriptor_limit};
#[cfg(unix)]
pub use self::{
    descriptors::raise_descriptor_limit,
    parent::Parent,
    raw::{RawMode, is_raw},
    signals::Signals,
    stdin::Stdin,
};

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// The size of the first of stdout, stderr and stdin that knows one, else `fallback`. A terminal
    /// that says 0 does not know.
    #[must_use]
    pub fn current(fallback: Size) -> Size {
        #[cfg(unix)]
        let known = size::of_standard_streams();
        #[cfg(windows)]
        let known = windows::size();
        known.unwrap_or(fallback)
    }
}

/// What the system tells the process.
#[cfg_attr(windows, expect(dead_code, reason = "there are Ctrl-C, Ctrl-Break and the closed console only"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGQUIT, Ctrl-\.
    Quit,
    /// SIGTSTP, Ctrl-Z.
    Suspend,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
    /// SIGWINCH: the terminal has another size.
    WindowChanged,
    /// SIGCONT: running again after a stop; time for [`RawMode::reenter`].
    Continue,
    /// SIGUSR1.
    Usr1,
}

impl Signal {
    /// The byte a terminal would have sent for it: the official plugin passes these three on to the
    /// remote shell.
    #[must_use]
    pub fn control_byte(self) -> Option<u8> {
        match self {
            Signal::Interrupt => Some(0x03),
            Signal::Quit => Some(0x1c),
            Signal::Suspend => Some(0x1a),
            _ => None,
        }
    }
}

/// Whether stdin is a terminal: the condition for raw mode, escapes and size changes.
#[must_use]
pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether stdout is a terminal.
#[must_use]
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Switches off what a remote program may have left on in the terminal when a session ends without it:
/// bracketed paste, mouse reports, focus reports, application keys, a hidden cursor, colours. For stdout,
/// if that is a terminal, after a shell that did not end by itself. (The alternate screen stays: leaving it
/// would move the cursor where it was never entered.)
pub const MODES_OFF: &[u8] =
    b"\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?1l\x1b>\x1b[?25h\x1b[0m";

/// Bytes read from stdin at once.
const READ_SIZE: usize = 64 * 1024;
/// Reads that wait between the stdin thread and the session.
const STDIN_CHUNKS: usize = 4;

#[cfg(all(test, unix))]
mod tests;
