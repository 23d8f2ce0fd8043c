//! Policy of connecting: first attempts, reconnecting, giving up.
//!
//! ```text
//!            opened                 lost
//!  Opening ─────────▶ Open ──────────────────▶ Waiting (backoff)
//!     ▲                                            │
//!     └────────────────────────────────────────────┘     … until the deadline
//! ```
//!
//! A websocket counts as proven to work when the service has sent a frame of the data channel or has answered a ping on
//! it. One that was closed before that resets neither the deadline nor the backoff, so a service that accepts and closes at
//! once is not called forever.

mod pace;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::pace::Pace;
use super::{Config, GaveUp, LinkEvent, OpenFailure};

/// Decides when a websocket is opened, and when there will be none.
#[derive(Debug)]
pub(super) struct Reconnect {
    host: String,
    open_timeout: Duration,
    reconnect_timeout: Duration,
    phase: Phase,
    pace: Pace,
    /// Until when a websocket must be proven.
    deadline: Option<Instant>,
    /// Error of the last attempt, or the reason that the last websocket was lost.
    last_failure: Option<String>,
    /// True if any websocket was open, and proven.
    was_open: bool,
    was_proven: bool,
    /// Opening of the last websocket that was lost, in case it recovers.
    lost_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Instant },
    Opening { since: Instant },
    Open { since: Instant, is_proven: bool },
    Over,
}

/// An attempt to make now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The session's first token has been used: a new one is needed.
    pub is_again: bool,
    /// When the attempt should have failed, so that there is a failure to tell when all time is over. Only the first:
    /// later attempts may be cut off.
    pub fail_by: Option<Instant>,
}

impl Reconnect {
    /// For a link that starts at `now`; `seed` is for the backoff's jitter.
    pub(super) fn new(now: Instant, config: &Config, host: String, seed: u64) -> Reconnect {
        Reconnect {
            host,
            open_timeout: config.open_timeout,
            reconnect_timeout: config.reconnect_timeout,
            phase: Phase::Waiting { until: now },
            pace: Pace::new(seed),
            deadline: Some(now + config.open_timeout),
            last_failure: None,
            was_open: false,
            was_proven: false,
            lost_since: None,
        }
    }

    /// The attempt that is due now. It ends with [`Reconnect::handle_opened`] or [`Reconnect::handle_failed`].
    #[must_use]
    pub(super) fn poll_attempt(&mut self, now: Instant) -> Option<Attempt> {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Opening { since: now };
                if self.was_open {
                    self.pace.handle_resume(now);
                }
                let fail_by = self.deadline.filter(|_| self.last_failure.is_none());
                Some(Attempt { is_again: self.was_open, fail_by })
            }
            _ => None,
        }
    }

    /// Host of the stream URL.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether there will be no websocket any more.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Returns whether an attempt is under way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// Start of the attempt under way.
    pub(super) fn opening_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening { since } => Some(since),
            _ => None,
        }
    }

    /// The attempt has opened a websocket. When that is to be pinged first, if not after the usual interval: an idle
    /// session has nothing else to tell by that it has come back.
    pub(super) fn handle_opened(&mut self, now: Instant) -> Option<Instant> {
        self.phase = Phase::Open { since: now, is_proven: false };
        self.lost_since = None;
        self.pace.handle_opened();
        if std::mem::replace(&mut self.was_open, true) {
            return Some(now + STEADY_AFTER);
        }
        self.deadline = None;
        None
    }

    /// The attempt has failed, with what else did not work on the way.
    pub(super) fn handle_failed(
        &mut self,
        now: Instant,
        failure: OpenFailure,
        warning: Option<String>,
    ) -> Option<LinkEvent> {
        if matches!(failure, OpenFailure::SessionGone) {
            return Some(self.give_up(GaveUp::SessionGone));
        }
        if !self.was_open && failure.is_permanent() {
            return Some(self.give_up(GaveUp::Open(failure)));
        }
        let with_warning = |reason: String| match &warning {
            Some(warning) => format!("{reason} ({warning})"),
            None => reason,
        };
        let reason = with_warning(failure.to_string());
        let brief = with_warning(failure.brief(&self.host));
        let event = if self.was_open {
            // The loss has been reported already.
            warning
        } else {
            // Reported once, while there is time for more attempts; the warning is a part of it.
            let is_over = self.deadline.is_some_and(|at| at <= now + NEARLY_OVER);
            let is_news = self.last_failure.is_none() && !is_over;
            is_news.then(|| format!("not connected yet: {reason}"))
        };
        self.retry(now, brief);
        event.map(LinkEvent::Warning)
    }

    /// The websocket works: the service has sent something on it, or has answered a ping and not closed it for our
    /// token. Says so where one had been lost.
    pub(super) fn handle_proof(&mut self) -> Option<LinkEvent> {
        match &mut self.phase {
            Phase::Open { is_proven, .. } if !*is_proven => *is_proven = true,
            _ => return None,
        }
        self.was_proven = true;
        self.last_failure = None;
        self.deadline.take().map(|_| LinkEvent::Resumed)
    }

    /// The websocket is gone. Says so only for one that had worked.
    pub(super) fn handle_lost(&mut self, now: Instant, reason: String) -> Option<LinkEvent> {
        let Phase::Open { since, is_proven } = self.phase else { return None };
        self.lost_since = Some(since);
        // A socket that was closed at once must not be followed by another at once, forever.
        if is_proven && now.saturating_duration_since(since) >= STEADY_AFTER {
            self.pace.reset();
        }
        let timeout = if self.was_proven { self.reconnect_timeout } else { self.open_timeout };
        // The time for which the next attempt is held back is not the network's.
        self.deadline.get_or_insert(self.may_resume_at(now) + timeout);
        self.retry(now, reason.clone());
        is_proven.then_some(LinkEvent::Lost(reason))
    }

    /// The websocket that was given up for its silence answers again: no other is needed.
    pub(super) fn handle_recovered(&mut self) -> Option<LinkEvent> {
        let since = self.lost_since.take()?;
        if self.phase == Phase::Over {
            return None;
        }
        let is_proven = std::mem::replace(&mut self.was_proven, true);
        self.phase = Phase::Open { since, is_proven: true };
        self.last_failure = None;
        self.deadline = None;
        self.pace.reset();
        is_proven.then_some(LinkEvent::Resumed)
    }

    /// The network has changed: an attempt that waits for its turn is due at once, or when there is a token for it. One
    /// that has been under way for a while starts over, since it may wait for answers to an address that is gone; later
    /// each time, so that an attempt on a slow path ends although the network keeps changing.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        let earliest = self.may_resume_at(now);
        match &mut self.phase {
            Phase::Waiting { until } => *until = earliest.min(*until),
            Phase::Opening { since } if self.pace.starts_over(now, *since) => {
                self.phase = Phase::Waiting { until: earliest };
            }
            _ => return,
        }
        self.pace.reset();
    }

    /// When [`Reconnect::poll_attempt`] or [`Reconnect::handle_timeout`] is due, and why.
    #[must_use]
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let attempt = match self.phase {
            Phase::Waiting { until } => Some((until, "next attempt")),
            Phase::Over => return None,
            Phase::Opening { .. } | Phase::Open { .. } => None,
        };
        let deadline = self.deadline.map(|at| (at, "giving up"));
        [attempt, deadline].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Gives up when it is time; may be called at any time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<LinkEvent> {
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        let reason = self.last_failure.take().unwrap_or_else(|| "no answer".into());
        let reason = if self.was_proven {
            GaveUp::Reconnect { timeout: self.reconnect_timeout, reason }
        } else {
            GaveUp::OpenTimeout { host: self.host.clone(), timeout: self.open_timeout, reason }
        };
        Some(self.give_up(reason))
    }

    fn give_up(&mut self, reason: GaveUp) -> LinkEvent {
        self.phase = Phase::Over;
        self.deadline = None;
        LinkEvent::GaveUp(reason)
    }

    fn retry(&mut self, now: Instant, reason: String) {
        self.last_failure = Some(reason);
        let until = (now + self.pace.next_delay()).max(self.may_resume_at(now));
        self.phase = Phase::Waiting { until };
    }

    /// The earliest time for the next attempt by the token bucket, which the first token of a session does not need.
    fn may_resume_at(&self, now: Instant) -> Instant {
        self.pace.may_resume_at(now).filter(|_| self.was_open).unwrap_or(now)
    }
}

/// With this little time left for opening, a failure is reported when the time is up, not twice.
const NEARLY_OVER: Duration = Duration::from_millis(200);
/// A connection that lasted this long was a good one.
const STEADY_AFTER: Duration = Duration::from_millis(500);
