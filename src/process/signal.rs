//! Signals that a session reacts to.

/// A signal, by what it means to a session.
#[cfg_attr(windows, expect(dead_code, reason = "there are Ctrl-C, Ctrl-Break and the closed console only"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Signal {
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
    /// SIGCONT: running again after a stop; time for [`crate::term::RawMode::reenter`].
    Continue,
    /// SIGUSR1.
    Usr1,
}

impl Signal {
    /// The byte a terminal would have sent for it: the official plugin passes these three on to the
    /// remote shell.
    #[must_use]
    pub(crate) fn control_byte(self) -> Option<u8> {
        match self {
            Signal::Interrupt => Some(0x03),
            Signal::Quit => Some(0x1c),
            Signal::Suspend => Some(0x1a),
            _ => None,
        }
    }
}
