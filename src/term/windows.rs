//! The same interface on Windows, over the console API.
//!
//! Kept small and not exercised by the tests here: a change of the window's size is only seen by asking again.
#![expect(unsafe_code, reason = "the console API is C")]

use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, CONSOLE_SCREEN_BUFFER_INFO, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_ECHO_INPUT,
    ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT, ENABLE_PROCESSED_OUTPUT, ENABLE_VIRTUAL_TERMINAL_INPUT,
    ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, GetConsoleScreenBufferInfo, GetStdHandle,
    STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetConsoleMode,
};

use super::utf8::Utf8;
use super::{READ_SIZE, STDIN_CHUNKS};
use crate::protocol::TerminalSize;

/// The console in raw mode; restored when dropped, at a panic, and by [`restore`]. Keys come as terminal
/// sequences, so that AltGr, arrows and function keys reach the remote (smp#36, smp#140).
#[derive(Debug)]
#[must_use = "the console is restored when this is dropped"]
pub struct RawMode(());

impl RawMode {
    /// Puts the console into raw mode; `None` if stdin is no console.
    ///
    /// # Errors
    /// If the console does not take the mode.
    pub fn enter() -> io::Result<Option<RawMode>> {
        let Some(input) = mode(STD_INPUT_HANDLE) else { return Ok(None) };
        PANIC_HOOK.call_once(restore_on_panic);
        let output = mode(STD_OUTPUT_HANDLE);
        let mut saved = lock();
        if saved.is_none() {
            let cooked = ENABLE_ECHO_INPUT | ENABLE_LINE_INPUT | ENABLE_PROCESSED_INPUT;
            set_mode(STD_INPUT_HANDLE, (input & !cooked) | ENABLE_VIRTUAL_TERMINAL_INPUT)?;
            if let Some(output) = output {
                let terminal = ENABLE_PROCESSED_OUTPUT
                    | ENABLE_VIRTUAL_TERMINAL_PROCESSING
                    | DISABLE_NEWLINE_AUTO_RETURN;
                set_mode(STD_OUTPUT_HANDLE, output | terminal)?;
            }
            *saved = Some((input, output));
        }
        Ok(Some(RawMode(())))
    }

    /// There is no job control here: does nothing.
    ///
    /// # Errors
    /// None.
    pub fn reenter(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the console its modes back if [`RawMode`] changed them.
pub fn restore() {
    if let Some((input, output)) = lock().take() {
        // Nothing better could be done about a console that is gone.
        let _ = set_mode(STD_INPUT_HANDLE, input);
        if let Some(output) = output {
            let _ = set_mode(STD_OUTPUT_HANDLE, output);
        }
    }
}

/// Whether the console is in raw mode through us.
#[must_use]
pub fn is_raw() -> bool {
    lock().is_some()
}

/// There are no shells with job control here: at once.
pub async fn settled() {}

pub(super) fn size() -> Option<TerminalSize> {
    let mut info = CONSOLE_SCREEN_BUFFER_INFO::default();
    // SAFETY: the handle is ours; `info` is a valid place for the answer.
    let known = unsafe { GetConsoleScreenBufferInfo(GetStdHandle(STD_OUTPUT_HANDLE), &raw mut info) } != 0;
    let window = info.srWindow;
    let span = |low: i16, high: i16| u16::try_from(i32::from(high) - i32::from(low) + 1).ok();
    let (cols, rows) = (span(window.Left, window.Right)?, span(window.Top, window.Bottom)?);
    (known && cols > 0 && rows > 0).then_some(TerminalSize { cols, rows })
}

/// Standard input, read by a thread.
#[derive(Debug)]
pub struct Stdin {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stdin {
    /// Starts to read.
    ///
    /// # Errors
    /// If the process has no thread left.
    pub fn open() -> io::Result<Stdin> {
        let (sender, chunks) = mpsc::channel(STDIN_CHUNKS);
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut buffer = vec![0; READ_SIZE];
            loop {
                let chunk = match io::stdin().lock().read(&mut buffer) {
                    // The standard library takes ^Z in a console for the end of input; in raw mode it is a key.
                    Ok(0) if is_raw() => Ok(Bytes::from_static(b"\x1a")),
                    Ok(0) => return,
                    Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                    Err(err) => Err(err),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Stdin { chunks })
    }

    /// The next bytes; empty at the end of input. Cancel-safe.
    ///
    /// # Errors
    /// A read error.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        self.chunks.recv().await.unwrap_or(Ok(Bytes::new()))
    }
}

/// A standard stream to write to; always through the thread.
#[derive(Debug)]
pub(super) enum Sink {
    /// Stdout to a console. The standard library hands it text in its own encoding, whatever the code page is
    /// (smp#115), and refuses bytes that are no UTF-8, which would end the session.
    Console(Mutex<Utf8>),
    Stdout,
    Stderr,
}

impl Sink {
    pub(super) fn stdout() -> io::Result<Sink> {
        let is_console = io::stdout().is_terminal();
        Ok(if is_console { Sink::Console(Mutex::default()) } else { Sink::Stdout })
    }

    pub(super) fn stderr() -> io::Result<Sink> {
        Ok(Sink::Stderr)
    }

    pub(super) fn write_now(&self, _bytes: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// Writes the first piece.
    pub(super) fn write(&self, batch: &[Bytes]) -> io::Result<usize> {
        let Some(piece) = batch.first() else { return Ok(0) };
        match self {
            Sink::Console(utf8) => {
                let text = utf8.lock().unwrap_or_else(PoisonError::into_inner).text(piece);
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(piece)?;
                stdout.flush()?;
            }
            Sink::Stderr => io::stderr().lock().write_all(piece)?,
        }
        Ok(piece.len())
    }
}

fn mode(which: u32) -> Option<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the handle is ours; `mode` is a valid place for the answer.
    (unsafe { GetConsoleMode(handle(which), &raw mut mode) } != 0).then_some(mode)
}

fn set_mode(which: u32, mode: CONSOLE_MODE) -> io::Result<()> {
    // SAFETY: the handle is ours.
    if unsafe { SetConsoleMode(handle(which), mode) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn handle(which: u32) -> HANDLE {
    // SAFETY: takes no pointers.
    unsafe { GetStdHandle(which) }
}

fn restore_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        next(info);
    }));
}

fn lock() -> MutexGuard<'static, Option<(CONSOLE_MODE, Option<CONSOLE_MODE>)>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

static SAVED: Mutex<Option<(CONSOLE_MODE, Option<CONSOLE_MODE>)>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();
