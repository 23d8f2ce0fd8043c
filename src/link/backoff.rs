//! Delays between attempts, and a limit on their number.

use std::time::{Duration, Instant};

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

    /// Returns the delay before the next attempt. The first comes at once: after an ordinary cut it succeeds.
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

/// Token bucket: `burst` attempts at once, and then one each `interval`.
#[derive(Debug)]
pub(super) struct TokenBucket {
    burst: u32,
    interval: Duration,
    /// When the bucket is full again; `None` if it has always been.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(burst: u32, interval: Duration) -> TokenBucket {
        TokenBucket { burst, interval, full_at: None }
    }

    /// Time from which there is a token; `None` or a time in the past if there is one now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.full_at?.checked_sub(self.interval * self.burst.saturating_sub(1))
    }

    /// Takes a token, even where there is none.
    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + self.interval);
    }
}

const FIRST_STEP: Duration = Duration::from_millis(200);
/// Often enough that a network which comes back is noticed soon.
pub(super) const MAX_STEP: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_burst_and_fills_at_its_pace() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut bucket = TokenBucket::new(3, second * 5);
        let has_token = |bucket: &TokenBucket, now: Instant| bucket.next_at().is_none_or(|at| at <= now);
        for _ in 0..3 {
            assert!(has_token(&bucket, start));
            bucket.take(start);
        }
        assert_eq!(bucket.next_at(), Some(start + second * 5));
        assert!(!has_token(&bucket, start + second * 4));
        bucket.take(start + second * 5);
        assert_eq!(bucket.next_at(), Some(start + second * 10));
        // A rest fills it, and not more than that.
        let later = start + second * 3600;
        for _ in 0..3 {
            assert!(has_token(&bucket, later));
            bucket.take(later);
        }
        assert!(!has_token(&bucket, later));
    }

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
