//! What may end a session from outside: signals, and the death of the process that started us.

use std::io;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::process::{Parent, Signal, Signals};

/// Signals and the parent in one stream. A dead parent counts as a hangup, unless we shall outlive it.
#[derive(Debug)]
pub(super) struct Watch {
    signals: Signals,
    parent: Option<Parent>,
    check: Interval,
}

impl Watch {
    /// Starts to listen.
    pub fn start(parent: Parent, outlives_parent: bool) -> io::Result<Watch> {
        let mut check = tokio::time::interval(PARENT_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watch { signals: Signals::install()?, parent: (!outlives_parent).then_some(parent), check })
    }

    /// The next signal. Cancel-safe.
    pub async fn recv(&mut self) -> Signal {
        loop {
            tokio::select! {
                signal = self.signals.recv() => return signal,
                _ = self.check.tick(), if self.parent.is_some() => {
                    if self.parent.as_ref().is_some_and(Parent::is_gone) {
                        tracing::info!("the calling process has died");
                        self.parent = None;
                        return Signal::Hangup;
                    }
                }
            }
        }
    }
}

const PARENT_CHECK: Duration = Duration::from_millis(500);
