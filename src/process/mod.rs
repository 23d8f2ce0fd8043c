//! The local process: its arguments, environment, descriptors, signals and parent.
//!
//! With [`crate::term`] the only module that may hold `unsafe`. It has the same face on every system; `windows` stands
//! in for the UNIX parts there.

mod argv;
#[cfg(unix)]
mod descriptors;
mod env;
#[cfg(unix)]
mod group;
mod parent;
#[cfg(unix)]
mod signals;
#[cfg(windows)]
mod windows;

pub use self::argv::hide_argument;
pub use self::env::take_var;
pub use self::parent::Parent;
#[cfg(windows)]
pub use self::windows::{Signals, raise_descriptor_limit};
#[cfg(unix)]
pub use self::{
    descriptors::{raise_descriptor_limit, watch_readable},
    group::{group, group_of},
    signals::Signals,
};

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
    /// SIGCONT: running again after a stop; time for [`crate::term::RawMode::reenter`].
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

#[cfg(all(test, unix))]
mod tests;
