//! Signals to a forwarded port.

use super::super::ending::ends_session;
use crate::output::{Console, official};
use crate::process::Signal;

/// Action that a signal requests of a forwarded port.
pub(super) enum Asked {
    End,
    Report,
    Nothing,
}

impl Asked {
    pub(super) fn by(signal: Signal, console: &mut Console) -> Asked {
        match signal {
            Signal::Usr1 => Asked::Report,
            signal if ends_session(signal) || signal == Signal::Suspend => {
                console.say(official::TERMINATE_SIGNAL);
                Asked::End
            }
            _ => Asked::Nothing,
        }
    }
}
