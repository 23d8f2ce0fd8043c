//! Raw mode of the console as a guard.

use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT,
    ENABLE_PROCESSED_OUTPUT, ENABLE_VIRTUAL_TERMINAL_INPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING,
};

use super::console::{mode, set_mode};
use super::handle::{Handle, Standard};
use crate::panics;

/// The console in raw mode; restored when dropped, at a panic, and by [`restore`]. Keys come as terminal
/// sequences, so that AltGr, arrows and function keys reach the remote (smp#36, smp#140).
#[derive(Debug)]
#[must_use = "the console is restored when this is dropped"]
pub(crate) struct RawMode(());

impl RawMode {
    /// Puts the console into raw mode; `None` if stdin is no console.
    ///
    /// # Errors
    /// If the console does not take the mode; it is then as it was.
    pub(crate) fn enter() -> io::Result<Option<RawMode>> {
        let Some(input) = Standard::Input.get() else { return Ok(None) };
        let Some(input_mode) = mode(input) else { return Ok(None) };
        PANIC_HOOK.call_once(restore_on_panic);
        let mut saved = lock();
        if saved.is_none() {
            let output = Standard::Output.get().and_then(|output| Some((output, mode(output)?)));
            set_input(input, input_mode)?;
            if let Some((output, output_mode)) = output
                && let Err(error) = set_output(output, output_mode)
            {
                // Nothing better could be done about a console that takes back nothing either.
                let _ = set_mode(input, input_mode);
                return Err(error);
            }
            *saved = Some(SavedMode { input: (input, input_mode), output });
        }
        Ok(Some(RawMode(())))
    }

    /// There is no job control here: does nothing.
    ///
    /// # Errors
    /// None.
    pub(crate) fn reenter(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the console its modes back if [`RawMode`] changed them.
pub(crate) fn restore() {
    if let Some(saved) = lock().take() {
        for (handle, mode) in [Some(saved.input), saved.output].into_iter().flatten() {
            // Nothing better could be done about a console that is gone.
            let _ = set_mode(handle, mode);
        }
    }
}

/// Returns whether the console is in raw mode through us.
#[must_use]
pub(crate) fn is_raw() -> bool {
    lock().is_some()
}

/// There are no shells with job control here: at once.
pub(crate) async fn settled() {}

/// Consoles that cannot translate keys refuse the flag for it, and hand over keys, which [`super::stdin`] translates.
fn set_input(input: Handle, before: CONSOLE_MODE) -> io::Result<()> {
    let raw = before & !(ENABLE_ECHO_INPUT | ENABLE_LINE_INPUT | ENABLE_PROCESSED_INPUT);
    set_mode(input, raw | ENABLE_VIRTUAL_TERMINAL_INPUT).or_else(|_| set_mode(input, raw))
}

/// Consoles that know terminal sequences but not the newer flag (a newline only moves down) are set without it.
fn set_output(output: Handle, before: CONSOLE_MODE) -> io::Result<()> {
    let terminal = before | ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING;
    set_mode(output, terminal | DISABLE_NEWLINE_AUTO_RETURN).or_else(|_| set_mode(output, terminal))
}

struct SavedMode {
    input: (Handle, CONSOLE_MODE),
    output: Option<(Handle, CONSOLE_MODE)>,
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

static SAVED: Mutex<Option<SavedMode>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();
