//! Wait for a websocket, as far as the session is informed of it.

use std::time::{Duration, Instant};

/// A wait that is reported when it lasts, and then again and again.
#[derive(Debug)]
pub(super) struct Wait {
    since: Instant,
    next: Instant,
}

impl Wait {
    /// A wait that begins at `now`.
    pub(super) fn new(now: Instant) -> Wait {
        Wait { since: now, next: now + FIRST }
    }

    /// When the next report is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Returns the time waited so far, if that is to be reported now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        self.next = now + REPEAT;
        Some(now.saturating_duration_since(self.since))
    }
}

/// Most waits end before.
const FIRST: Duration = Duration::from_secs(3);
const REPEAT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_reported_after_three_seconds_and_then_each_fifteen() {
        let start = Instant::now();
        let mut wait = Wait::new(start);
        let mut reports = Vec::new();
        while reports.len() < 4 {
            let now = wait.poll_timeout();
            assert_eq!(wait.handle_timeout(now - Duration::from_millis(1)), None);
            reports.extend(wait.handle_timeout(now));
        }
        assert_eq!(reports, [3, 18, 33, 48].map(Duration::from_secs));
    }
}
