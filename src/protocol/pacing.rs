//! Pacing: a token bucket that keeps the message rate under the service's limit.
//!
//! The service cuts a session that sends more than about 1,000 data messages a second for more than 2 seconds: the
//! agent is paused and the websocket closed. A maintainer says of the pace of agent and official plugin that it
//! follows from "a max message rate of 1/ms" (agent#664), and a client that holds 900 a second in a token bucket
//! is reported to run for a day. Acknowledgements do not count.

use std::time::{Duration, Instant};

/// The default rate, messages a second.
pub(super) const DEFAULT_RATE: u32 = 900;
/// Burst size after an idle period, in messages. With the default rate any two seconds hold at most 128 + 2 ×
/// 900 = 1,928 messages, under the 2,000 that are known to be too many.
pub(super) const BURST: u32 = 128;

/// Number of messages of a bulk transfer that are sent together when the rate is the limit: four each four
/// milliseconds.
const GROUP: u32 = 4;

/// A token bucket; one token is one data message.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// `None`: no limit.
    interval: Option<Duration>,
    /// A bucket that was empty at this time, and has filled since, is as full as this one; it is full when this lies
    /// `BURST` intervals back.
    empty_at: Option<Instant>,
    /// The last message took the last whole token.
    is_dry: bool,
}

impl Pacer {
    /// A full bucket for `rate` messages a second; 0 is no limit.
    pub(super) fn new(rate: u32) -> Pacer {
        let interval = (rate > 0).then(|| Duration::from_secs(1) / rate);
        Pacer { interval, empty_at: None, is_dry: false }
    }

    /// When the next message may go; a time in the past or `None` is now. One of many waits, when the bucket has run
    /// dry, until [`GROUP`] may go together: a wake-up, a write and a TLS record for each is what an upload costs.
    pub(super) fn next_at(&self, is_bulk: bool) -> Option<Instant> {
        let tokens = if is_bulk && self.is_dry { GROUP } else { 1 };
        self.empty_at.zip(self.interval).map(|(empty_at, interval)| empty_at + interval * tokens)
    }

    /// Returns whether a message may go now.
    pub(super) fn is_ready(&self, now: Instant, is_bulk: bool) -> bool {
        self.next_at(is_bulk).is_none_or(|at| at <= now)
    }

    /// Counts a message that goes now.
    pub(super) fn take(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        let full = now.checked_sub(interval * BURST);
        let level = match (self.empty_at, full) {
            (Some(empty_at), Some(full)) => empty_at.max(full),
            (Some(empty_at), None) => empty_at,
            (None, Some(full)) => full,
            (None, None) => now,
        };
        self.empty_at = Some(level + interval);
        self.is_dry = level + interval * 2 > now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the bucket lets, with rests, and returns the sending times.
    fn greedy(rate: u32, rests: &[(Duration, Duration)], is_bulk: bool) -> Vec<Duration> {
        let start = Instant::now() + Duration::from_secs(1000);
        let (mut pacer, mut sent) = (Pacer::new(rate), Vec::new());
        for (from, to) in rests {
            let mut at = *from;
            while at < *to {
                if pacer.is_ready(start + at, is_bulk) {
                    pacer.take(start + at);
                    sent.push(at);
                } else {
                    at += Duration::from_micros(200);
                }
            }
        }
        sent
    }

    #[test]
    fn any_two_seconds_stay_under_two_thousand() {
        let seconds = Duration::from_secs;
        for is_bulk in [false, true] {
            let spans = [(seconds(0), seconds(5)), (seconds(6), seconds(7)), (seconds(9), seconds(12))];
            let sent = greedy(DEFAULT_RATE, &spans, is_bulk);
            for (index, at) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|other| **other - *at < seconds(2)).count();
                assert!(within < 2000, "{within} from {at:?}");
            }
            let sustained = sent.iter().filter(|at| **at >= seconds(1) && **at < seconds(5)).count();
            assert!((3590..=3610).contains(&sustained), "{sustained}");
        }
    }

    #[test]
    fn a_bulk_goes_in_groups_and_what_is_alone_does_not_wait_for_one() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut pacer = Pacer::new(DEFAULT_RATE);
        while pacer.is_ready(start, true) {
            pacer.take(start);
        }
        let alone = pacer.next_at(false).unwrap();
        assert!(alone - start <= Duration::from_secs(1) / DEFAULT_RATE);
        for _ in 0..5 {
            let at = pacer.next_at(true).unwrap();
            let mut group = 0;
            while pacer.is_ready(at, true) {
                pacer.take(at);
                group += 1;
            }
            assert_eq!(group, GROUP);
        }
        let took = pacer.next_at(true).unwrap() - start;
        assert!(took <= Duration::from_secs(1) * GROUP * 6 / DEFAULT_RATE, "{took:?}");
    }

    #[test]
    fn a_burst_goes_at_once_and_no_more() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut pacer = Pacer::new(900);
        let mut burst = 0;
        while pacer.is_ready(now, true) {
            pacer.take(now);
            burst += 1;
        }
        assert_eq!(burst, BURST);
        assert!(pacer.next_at(false).unwrap() - now <= Duration::from_secs(1) / 900);
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let now = Instant::now();
        let mut pacer = Pacer::new(0);
        for _ in 0..100_000 {
            assert!(pacer.is_ready(now, true));
            pacer.take(now);
        }
        assert_eq!(pacer.next_at(true), None);
    }
}
