//! Round-trip times and the retransmission timeout they give.

use std::time::Duration;

/// A smoothed round-trip time with its variation, as in RFC 6298, and the gains both ends of this protocol use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    floor: Duration,
    latest: Duration,
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt { smoothed: None, variation: Duration::ZERO, floor: Duration::MAX, latest: Duration::ZERO }
    }
}

impl Rtt {
    /// Takes the time from sending a message to its acknowledgement. Messages that were sent twice give no sample, since
    /// it is not known which sending was acknowledged (Karn's rule); `send` knows the two exceptions.
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.latest = rtt;
        self.floor = self.floor.min(rtt);
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                let deviation = smoothed.abs_diff(rtt);
                self.variation = (self.variation * 3 + deviation) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The smoothed time; 100 ms (the official plugin's) before the first sample.
    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    /// The smoothed time, once there was a sample.
    pub(super) fn sampled(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The smallest time seen; the smoothed one before the first sample.
    pub(super) fn floor(&self) -> Duration {
        self.floor.min(self.smoothed())
    }

    /// The last sample.
    pub(super) fn latest(&self) -> Duration {
        self.latest
    }

    /// Returns the variation of the samples.
    pub(super) fn variation(&self) -> Duration {
        self.variation
    }

    /// Returns the retransmission timeout.
    pub(super) fn timeout(&self) -> Duration {
        let spread = GRANULARITY.max(self.variation * 4);
        (self.smoothed() + spread).clamp(MIN_TIMEOUT, MAX_TIMEOUT)
    }
}

/// The official plugin's and the agent's first guess.
const INITIAL: Duration = Duration::from_millis(100);
/// The clock granularity both use.
const GRANULARITY: Duration = Duration::from_millis(10);
/// The agent's lower bound. An acknowledgement waits for the destination to take the data, so less would resend
/// into every hiccup of a server.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Theirs is 1 s, which on a path slower than that resends everything forever.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_samples_within_its_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), MIN_TIMEOUT);
        for _ in 0..50 {
            rtt.sample(Duration::from_millis(1));
        }
        assert_eq!(rtt.timeout(), MIN_TIMEOUT);
        for _ in 0..50 {
            rtt.sample(Duration::from_millis(1500));
        }
        assert!(rtt.timeout() > Duration::from_millis(1500));
        rtt.sample(Duration::from_secs(1000));
        assert_eq!(rtt.timeout(), MAX_TIMEOUT);
        assert_eq!(rtt.floor(), Duration::from_millis(1));
    }
}
