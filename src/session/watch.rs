//! Events from outside that end a session: signals, and the death of the calling AWS CLI.

use std::io;

use crate::process::{Parent, Signal, Signals};

/// Signals and the parent in one stream. The AWS CLI's death counts as a hangup, unless the settings say
/// otherwise.
#[derive(Debug)]
pub(super) struct Watch {
    signals: Signals,
    parent: Option<Parent>,
    last: Option<Signal>,
}

impl Watch {
    /// Starts to listen. `parent`: the caller, if its death counts.
    pub(super) fn start(parent: Option<Parent>) -> io::Result<Watch> {
        Ok(Watch { signals: Signals::install()?, parent, last: None })
    }

    /// The last signal that may have ended the session.
    pub(super) fn last(&self) -> Option<Signal> {
        self.last
    }

    /// Ignores the parent's death from here on.
    pub(super) fn outlive_parent(&mut self) {
        self.parent = None;
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Signal {
        let signal = tokio::select! {
            signal = self.signals.recv() => signal,
            () = death(&mut self.parent) => {
                tracing::info!("the AWS CLI that called us has died");
                self.parent = None;
                Signal::Hangup
            }
        };
        if !matches!(signal, Signal::WindowChanged | Signal::Continue | Signal::Usr1) {
            self.last = Some(signal);
        }
        signal
    }
}

async fn death(parent: &mut Option<Parent>) {
    match parent {
        Some(parent) => parent.death().await,
        None => std::future::pending().await,
    }
}
