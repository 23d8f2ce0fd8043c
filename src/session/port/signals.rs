//! Signals to a forwarded port.

use crate::output::{Console, official};
use crate::process::Signal;
use crate::session::shutdown::ends_session;

/// Effect of a signal on a forwarded port.
pub(super) enum SignalEffect {
    End,
    Report,
    Nothing,
}

impl SignalEffect {
    /// Returns the effect of a signal, and prints the official sentence where it ends the run.
    pub(super) fn of(signal: Signal, console: &mut Console) -> SignalEffect {
        match signal {
            Signal::Usr1 => SignalEffect::Report,
            signal if ends_session(signal) || signal == Signal::Suspend => {
                console.print(official::TERMINATE_SIGNAL);
                SignalEffect::End
            }
            _ => SignalEffect::Nothing,
        }
    }
}
