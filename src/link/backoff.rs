//! Delays between attempts.

use std::time::Duration;

/// Exponential waiting times with jitter: between half of each step and the whole of it, so that many clients cut at
/// once do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    first: Duration,
    longest: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// For connections, with the jitter drawn from `seed`.
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff::with_steps(FIRST_STEP, MAX_STEP, seed)
    }

    /// After one attempt at once, steps that begin with `first` and double up to `longest`.
    pub(crate) fn with_steps(first: Duration, longest: Duration, seed: u64) -> Backoff {
        Backoff { attempts: 0, first, longest, random: fastrand::Rng::with_seed(seed) }
    }

    /// How long to wait before the next attempt. The first comes at once: after an ordinary cut it succeeds.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
        let step = self.longest.min(self.first.saturating_mul(2u32.saturating_pow(doublings)));
        step.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// The same where the first attempt at once was the one that has failed.
    pub(crate) fn delay_after_failure(&mut self) -> Duration {
        self.attempts = self.attempts.max(1);
        self.next_delay()
    }

    /// An attempt has succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

const FIRST_STEP: Duration = Duration::from_millis(200);
/// Often enough that a network which comes back is noticed soon.
pub(super) const MAX_STEP: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new(1);
        assert_eq!(backoff.next_delay(), Duration::ZERO);
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] >= FIRST_STEP / 2 && delays[0] <= FIRST_STEP);
        assert!(delays.iter().all(|delay| *delay <= MAX_STEP));
        assert!(delays[39] >= MAX_STEP / 2);
        backoff.reset();
        assert_eq!(backoff.next_delay(), Duration::ZERO);
        backoff.reset();
        assert!(backoff.delay_after_failure() >= FIRST_STEP / 2);
    }
}
