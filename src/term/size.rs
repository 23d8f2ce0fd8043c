//! The terminal's size.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::tcgetwinsize;

use crate::protocol::TerminalSize;

/// The size of the first standard stream that knows one; stdout first, as the official plugin.
pub(super) fn of_standard_streams() -> Option<TerminalSize> {
    of(std::io::stdout().as_fd())
        .or_else(|| of(std::io::stderr().as_fd()))
        .or_else(|| of(std::io::stdin().as_fd()))
}

pub(super) fn of(fd: BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize { cols: size.ws_col, rows: size.ws_row })
}
