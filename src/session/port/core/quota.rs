//! The rate of session starts: one token bucket for all of a run.
//!
//! StartSession has a quota per account and region, which the user's other tools share. So one run starts [`BURST`]
//! sessions at once, then [`RATE`] a second, whatever local clients ask for. A throttled start halves what is left and the
//! rate; each start that succeeds restores a part of the rate.

use std::time::{Duration, Instant};

use crate::aws::ErrorKind;
use crate::session::starter::StartError;

/// A token bucket for session starts. Time is a parameter and never runs backwards.
#[derive(Debug)]
pub(super) struct StartQuota {
    /// Tokens left at `updated`. Negative after a repeated call.
    tokens: f64,
    /// Tokens per second.
    rate: f64,
    updated: Instant,
    /// When the tokens and the rate were last halved.
    halved: Option<Instant>,
    /// True if the wait that lasts was reported.
    was_reported: bool,
}

/// The result of a session start, as far as the quota is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartOutcome {
    Succeeded,
    /// The service asks for fewer calls.
    Throttled,
    /// The call was made twice, the second time with fresh credentials.
    Repeated,
}

impl StartOutcome {
    /// Effect of a failed start; `None` for a failure that the quota does not count.
    pub(super) fn of(error: &StartError) -> Option<StartOutcome> {
        let StartError::Aws(error) = error else { return None };
        match error.kind {
            ErrorKind::Throttled => Some(StartOutcome::Throttled),
            ErrorKind::BadCredentials => Some(StartOutcome::Repeated),
            _ => None,
        }
    }
}

impl StartQuota {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> StartQuota {
        StartQuota { tokens: BURST, rate: RATE, updated: now, halved: None, was_reported: false }
    }

    /// Returns when a start is possible: `None` for now.
    pub(super) fn ready_at(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        let missing = 1.0 - self.tokens;
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing / self.rate) + ROUNDING)
    }

    /// Takes the token for one start.
    pub(super) fn take(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    /// Returns true once for each time that starts have to wait.
    pub(super) fn report_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.was_reported, true)
    }

    /// Takes the outcome of a start.
    pub(super) fn handle_outcome(&mut self, now: Instant, outcome: StartOutcome) {
        self.refill(now);
        match outcome {
            StartOutcome::Succeeded => self.rate = (self.rate + RECOVERY).min(RATE),
            StartOutcome::Repeated => self.tokens -= 1.0,
            // Starts that were under way together are throttled together.
            StartOutcome::Throttled if self.halved.is_some_and(|at| now < at + ONE_THROTTLE) => {}
            StartOutcome::Throttled => {
                self.halved = Some(now);
                self.tokens = self.tokens.min(self.tokens / 2.0);
                self.rate = (self.rate / 2.0).max(LEAST_RATE);
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.updated).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.rate).min(BURST);
        self.updated = self.updated.max(now);
        if self.tokens >= BURST {
            self.was_reported = false;
        }
    }
}

/// Starts without delay: enough for a browser that opens a page with 60 hosts.
const BURST: f64 = 64.0;
/// Starts per second after that. The service publishes no number for StartSession; the user's other tools need their
/// share of it.
const RATE: f64 = 2.0;
/// The least rate, so that a service that recovers is noticed: one start in eight seconds.
const LEAST_RATE: f64 = 0.125;
/// Added to a reduced rate by each success.
const RECOVERY: f64 = 0.25;
/// Throttled starts within this time count as one.
const ONE_THROTTLE: Duration = Duration::from_secs(1);
/// Added to a wait, so that its end has a whole token whatever the rounding.
const ROUNDING: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts as many as the quota allows for so long; the numbers per second.
    fn starts(quota: &mut StartQuota, begin: Instant, seconds: u64, outcome: StartOutcome) -> Vec<usize> {
        let (mut now, mut counts) = (begin, vec![0; seconds as usize]);
        while now < begin + Duration::from_secs(seconds) {
            if let Some(at) = quota.ready_at(now) {
                assert!(at > now, "it would spin");
                now = at;
                continue;
            }
            quota.take(now);
            counts[(now - begin).as_secs() as usize] += 1;
            quota.handle_outcome(now, outcome);
        }
        counts
    }

    #[test]
    fn a_burst_then_two_a_second() {
        let now = Instant::now();
        let mut quota = StartQuota::new(now);
        let counts = starts(&mut quota, now, 60, StartOutcome::Succeeded);
        assert!((64..=66).contains(&counts[0]), "{counts:?}");
        assert!(counts[1..].iter().all(|count| (1..=3).contains(count)), "{counts:?}");
        assert!((180..=184).contains(&counts.iter().sum::<usize>()), "{counts:?}");
        // A pause fills it again, and no more than that.
        let counts = starts(&mut quota, now + Duration::from_secs(600), 1, StartOutcome::Succeeded);
        assert!((64..=66).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn throttling_halves_what_is_left_and_the_rate() {
        let now = Instant::now();
        let mut quota = StartQuota::new(now);
        quota.take(now);
        for _ in 0..50 {
            quota.handle_outcome(now, StartOutcome::Throttled);
        }
        assert!(
            (31.0..32.0).contains(&quota.tokens) && quota.rate == 1.0,
            "{quota:?}: those of one moment are one"
        );
        let counts = starts(&mut quota, now + ONE_THROTTLE, 120, StartOutcome::Throttled);
        assert!(
            counts[..4].iter().sum::<usize>() < 64 && counts[10..].iter().sum::<usize>() < 20,
            "{counts:?}"
        );
        // A service that recovers has the whole rate again after some successes.
        let later = now + Duration::from_secs(200);
        starts(&mut quota, later, 60, StartOutcome::Succeeded);
        assert_eq!(quota.rate, RATE);
    }

    #[test]
    fn a_repeated_call_costs_two() {
        let now = Instant::now();
        let mut quota = StartQuota::new(now);
        let counts = starts(&mut quota, now, 2, StartOutcome::Repeated);
        assert!(counts[0] <= 33 && counts[1] <= 2, "{counts:?}");
    }

    #[test]
    fn a_wait_is_reported_once_until_the_bucket_is_full_again() {
        let now = Instant::now();
        let mut quota = StartQuota::new(now);
        starts(&mut quota, now, 1, StartOutcome::Succeeded);
        assert!(quota.report_wait() && !quota.report_wait());
        starts(&mut quota, now + Duration::from_secs(10), 1, StartOutcome::Succeeded);
        assert!(!quota.report_wait());
        assert_eq!(quota.ready_at(now + Duration::from_secs(100)), None);
        assert!(quota.report_wait());
    }
}
