//! Pause after a failed accept.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::session::timer::sleep_until;

/// Pause after a failed accept, which keeps failing while there are no descriptors; everything else continues.
#[derive(Debug, Default)]
pub(crate) struct AcceptPause {
    until: Option<Instant>,
    was_reported: bool,
}

impl AcceptPause {
    /// Returns whether another connection may be accepted.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_none()
    }

    /// Waits for its end; forever while there is none. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        sleep_until(self.until).await;
        self.until = None;
    }

    /// Takes a failed accept. Returns the line about it, once until one succeeds.
    pub(crate) fn handle_failure(&mut self, error: &io::Error) -> Option<String> {
        self.until = Some(Instant::now() + ACCEPT_PAUSE);
        let is_news = !std::mem::replace(&mut self.was_reported, true);
        is_news.then(|| format!("cannot accept a connection: {error}"))
    }

    /// A connection was accepted.
    pub(crate) fn handle_success(&mut self) {
        self.was_reported = false;
    }
}

/// After a failed accept, before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
