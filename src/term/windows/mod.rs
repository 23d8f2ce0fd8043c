//! The same interface on Windows: consoles, pipes and files behind standard handles.

mod console;
mod handle;
mod raw;
mod sink;
mod stdin;

pub(super) use self::console::size;
pub(crate) use self::raw::{RawMode, is_raw, settled};
pub(super) use self::sink::Sink;
pub(crate) use self::stdin::Stdin;

use self::handle::{Standard, is_pipe};

pub(super) fn stdin_is_pipe() -> bool {
    Standard::Input.get().is_some_and(is_pipe)
}
