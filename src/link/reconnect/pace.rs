//! Pace of the attempts.
//!
//! An attempt after the first calls ResumeSession, for which the account has a quota. A token bucket for each session
//! holds attempts back when a websocket works for a moment only, again and again: [`RESUME_BURST`] at once, and then one
//! each [`RESUME_INTERVAL`]. The backoff alone stays below that while the network is away.

use std::time::{Duration, Instant};

use crate::link::backoff::{Backoff, TokenBucket};

/// Delays between attempts, a limit on their number, and the age from which one may start over.
#[derive(Debug)]
pub(super) struct Pace {
    backoff: Backoff,
    /// Attempts that call ResumeSession.
    resumes: TokenBucket,
    /// Attempts since the last websocket opened that were started over because the network had changed.
    restarts: u32,
}

impl Pace {
    /// For a new link; `seed` is for the jitter.
    pub(super) fn new(seed: u64) -> Pace {
        Pace {
            backoff: Backoff::new(seed),
            resumes: TokenBucket::new(RESUME_BURST, RESUME_INTERVAL),
            restarts: 0,
        }
    }

    /// Returns the delay before the next attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        self.backoff.next_delay()
    }

    /// The next attempt is made without a delay.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
    }

    /// An attempt has opened a websocket.
    pub(super) fn handle_opened(&mut self) {
        self.restarts = 0;
    }

    /// An attempt that calls ResumeSession begins.
    pub(super) fn handle_resume(&mut self, now: Instant) {
        self.resumes.take(now);
    }

    /// The earliest time for another call of ResumeSession; `None` for now.
    pub(super) fn may_resume_at(&self, now: Instant) -> Option<Instant> {
        self.resumes.next_at().filter(|at| *at > now)
    }

    /// Returns whether an attempt under way since `since` starts over, since the network has changed. It may wait for answers to
    /// an address that is gone. Each time this takes longer, so that an attempt on a slow path ends although the network keeps
    /// changing.
    pub(super) fn starts_over(&mut self, now: Instant, since: Instant) -> bool {
        let is_due = now >= since + RESTART_AFTER * (1 << self.restarts.min(MAX_RESTART_DOUBLINGS));
        self.restarts += u32::from(is_due);
        is_due
    }
}

/// More than an attempt usually takes.
const RESTART_AFTER: Duration = Duration::from_secs(2);
const MAX_RESTART_DOUBLINGS: u32 = 4;
/// Calls of ResumeSession that one session may make at once: a transfer that is cut ten times is not slowed down.
const RESUME_BURST: u32 = 12;
const RESUME_INTERVAL: Duration = Duration::from_secs(5);
