//! The same interface on Windows.

use std::io;

use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

use super::Signal;

/// The console's control events.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: CtrlC,
    quit: CtrlBreak,
    close: CtrlClose,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        Ok(Signals { interrupt: ctrl_c()?, quit: ctrl_break()?, close: ctrl_close()? })
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.close.recv() => Signal::Hangup,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.quit.recv() => Signal::Quit,
            else => std::future::pending().await,
        }
    }
}

/// How many sockets the process may have open: the system has no small limit.
pub(crate) fn descriptor_limit() -> usize {
    usize::MAX
}

/// Sockets have no such limit here.
pub(crate) fn raise_descriptor_limit() {}

/// Sockets have no such limit here.
///
/// # Errors
/// None.
pub(crate) fn check_descriptors() -> io::Result<()> {
    Ok(())
}
