//! The local terminal and process: raw mode, size, standard streams, signals, parent.
//!
//! The only module that may hold `unsafe`; everything here has the same face on every system.

use std::ffi::OsString;
use std::io;

use bytes::Bytes;

/// The terminal in raw mode; restored when dropped, at a panic, and by [`restore`].
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Puts the terminal on stdin into raw mode; `None` if stdin is no terminal.
    pub fn enter() -> io::Result<Option<RawMode>> {
        unimplemented!()
    }
    /// Enters raw mode again, after a stop and continue (`Signal::Continue`).
    pub fn reenter(&self) -> io::Result<()> {
        unimplemented!()
    }
}

/// Gives the terminal back its settings if [`RawMode`] changed them; may be called at any time, from any thread, repeatedly.
pub fn restore() {
    unimplemented!()
}
/// Is the terminal in raw mode through us?
pub fn is_raw() -> bool {
    unimplemented!()
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /** Columns. */
    pub cols: u16,
    /** Rows. */
    pub rows: u16,
}
impl Size {
    /// The terminal's size, of the first of stdout, stderr, stdin that knows it, else `fallback`.
    pub fn current(_fallback: Size) -> Size {
        unimplemented!()
    }
}

/// Standard input as a bounded, cancel-safe source.
#[derive(Debug)]
pub struct Stdin(());
impl Stdin {
    /// Opens stdin in the way that fits what it is.
    pub fn open() -> io::Result<Stdin> {
        unimplemented!()
    }
    /// The next bytes; empty at the end of input. Cancel-safe.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        unimplemented!()
    }
}
/// Is stdin a terminal?
pub fn stdin_is_terminal() -> bool {
    unimplemented!()
}

/// Standard output or error, written without blocking the runtime, in order.
#[derive(Debug)]
pub struct Output(());
impl Output {
    /// Writes to stdout.
    pub fn stdout() -> io::Result<Output> {
        unimplemented!()
    }
    /// Writes to stderr.
    pub fn stderr() -> io::Result<Output> {
        unimplemented!()
    }
    /// Takes bytes; writes them at once if that cannot block.
    pub fn push(&mut self, _bytes: Bytes) {
        unimplemented!()
    }
    /// Fewer than [`OUTPUT_QUEUE`] bytes are waiting.
    pub fn has_room(&self) -> bool {
        unimplemented!()
    }
    /// All is written.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Resolves after some progress, or with the error that ended the stream; pends while empty. Cancel-safe.
    pub async fn drive(&mut self) -> io::Result<()> {
        unimplemented!()
    }
    /// Resolves when all is written. Cancel-safe.
    pub async fn flush(&mut self) -> io::Result<()> {
        unimplemented!()
    }
}

/// What the system tells us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal {
    Interrupt,
    Quit,
    Suspend,
    Terminate,
    Hangup,
    WindowChanged,
    Continue,
    Usr1,
}
/// The stream of signals.
#[derive(Debug)]
pub struct Signals(());
impl Signals {
    /// Starts to listen; needs a tokio runtime.
    pub fn install() -> io::Result<Signals> {
        unimplemented!()
    }
    /// The next signal. Cancel-safe.
    pub async fn recv(&mut self) -> Signal {
        unimplemented!()
    }
}

/// The process that called us.
#[derive(Debug)]
pub struct Parent(());
impl Parent {
    /// The parent now: call it first thing.
    pub fn current() -> Parent {
        unimplemented!()
    }
    /// Resolves when that parent has died. Cancel-safe.
    pub async fn gone(&self) {
        unimplemented!()
    }
}

/// Takes a variable out of the environment.
pub fn take_var(_name: &str) -> Option<OsString> {
    unimplemented!()
}
