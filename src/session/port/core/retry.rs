//! Delays after a session could not be started.

use std::time::{Duration, Instant};

use crate::link::Backoff;

/// When sessions are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// At once, and again when they end; without the first there is nothing left.
    Fixed,
    /// When connections need them.
    OnDemand,
}

/// When the next session of a destination may be started.
#[derive(Debug)]
pub(super) struct Retry {
    pub backoff: Backoff,
    /// After a failure, until a session is ready.
    pub has_failed: bool,
    /// No session is started before.
    pub pause: Option<Instant>,
    refresh: Backoff,
    /// A session whose destination was refused is replaced from this age on: a younger one has just looked its name up.
    pub refresh_age: Duration,
}

impl Retry {
    /// Nothing has failed yet.
    pub(crate) fn new(plan: Plan, seed: u64) -> Retry {
        let mut seeds = fastrand::Rng::with_seed(seed);
        let backoff = match plan {
            Plan::Fixed => Backoff::with_steps(FIRST_RETRY_FIXED, LAST_RETRY_FIXED, seeds.u64(..)),
            Plan::OnDemand => Backoff::with_steps(FIRST_RETRY, LAST_RETRY, seeds.u64(..)),
        };
        Retry {
            backoff,
            has_failed: false,
            pause: None,
            refresh: Backoff::with_steps(2 * FIRST_REFRESH, LAST_REFRESH, seeds.u64(..)),
            refresh_age: FIRST_REFRESH,
        }
    }

    /// Sessions that end together, such as all four behind a port, are one failure: the pause under way stays.
    pub(crate) fn pause_after_failure(&mut self, now: Instant) {
        self.has_failed = true;
        if self.pause.is_none_or(|until| until <= now) {
            self.pause = Some(now + self.backoff.delay_after_failure());
        }
    }

    /// Forgets a pause that is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.pause = self.pause.filter(|until| *until > now);
    }

    /// A session whose destination was refused is replaced: if that fails as well, the next one is kept longer.
    pub(crate) fn age_more(&mut self) {
        self.refresh_age = self.refresh.delay_after_failure();
    }

    /// The destination is there.
    pub(crate) fn reset_refresh(&mut self) {
        self.refresh.reset();
        self.refresh_age = FIRST_REFRESH;
    }
}

/// Shortest and longest delay before a session of [`Plan::Fixed`] is replaced.
const FIRST_RETRY_FIXED: Duration = Duration::from_secs(2);
const LAST_RETRY_FIXED: Duration = Duration::from_secs(128);
/// The same on demand, while a connection waits.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(8);
/// Age at which a session is replaced because its destination was refused, at first and at last. A database
/// that fails over takes seconds for it.
const FIRST_REFRESH: Duration = Duration::from_secs(3);
const LAST_REFRESH: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    /// Found with the real agent: four sessions that were ended at once kept the next connection waiting for 4 s.
    #[test]
    fn sessions_that_end_together_are_one_failure() {
        let mut retry = Retry::new(Plan::OnDemand, 1);
        let began = Instant::now();
        for _ in 0..4 {
            retry.pause_after_failure(began);
        }
        assert!(retry.pause.unwrap() - began <= FIRST_RETRY);
        retry.pause_after_failure(began + FIRST_RETRY);
        assert!(retry.pause.unwrap() - began > FIRST_RETRY, "the next attempt's failure is another");
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for (plan, first, last) in
            [(Plan::OnDemand, FIRST_RETRY, LAST_RETRY), (Plan::Fixed, FIRST_RETRY_FIXED, LAST_RETRY_FIXED)]
        {
            let mut retry = Retry::new(plan, 1);
            let mut longest = Duration::ZERO;
            for attempt in 0..20 {
                let now = Instant::now();
                retry.pause = None;
                retry.pause_after_failure(now);
                let pause = retry.pause.unwrap() - now;
                let step = last.min(first * 2u32.pow(attempt.min(10)));
                assert!(pause >= step / 2 && pause <= step, "{pause:?} at {attempt}");
                longest = longest.max(pause);
            }
            assert!(longest > last / 2);
        }
    }

    #[test]
    fn sessions_to_a_destination_that_stays_away_live_longer_and_longer() {
        let mut retry = Retry::new(Plan::OnDemand, 1);
        let ages: Vec<_> = (0..12)
            .map(|_| {
                let age = retry.refresh_age;
                retry.age_more();
                age
            })
            .collect();
        assert_eq!(ages[0], FIRST_REFRESH);
        assert!(ages.iter().all(|age| (FIRST_REFRESH..=LAST_REFRESH).contains(age)), "{ages:?}");
        assert!(ages[11] >= LAST_REFRESH / 2);
        retry.reset_refresh();
        assert_eq!(retry.refresh_age, FIRST_REFRESH);
    }
}
