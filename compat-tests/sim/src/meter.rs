//! Counts frames of one direction, and the message rate.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::frame::{Kind, Peek};
use crate::report::Traffic;

/// One direction of one session.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub traffic: Traffic,
    one: Window,
    two: Window,
    seen: Seen,
}

impl Meter {
    /// Counts a frame.
    pub fn record(&mut self, peek: Peek, now: Instant) {
        match peek.kind {
            Kind::Acknowledge => self.traffic.acks += 1,
            Kind::Data => {
                self.traffic.messages += 1;
                self.traffic.bytes += peek.payload as u64;
                self.traffic.largest = self.traffic.largest.max(peek.payload as u64);
                if !self.seen.insert(peek.sequence) {
                    self.traffic.resends += 1;
                }
                let one = self.one.push(now, Duration::from_secs(1));
                let two = self.two.push(now, Duration::from_secs(2));
                self.traffic.peak_1s = self.traffic.peak_1s.max(one);
                self.traffic.peak_2s = self.traffic.peak_2s.max(two);
            }
            Kind::AgentSessionState | Kind::Other => {}
        }
    }

    /// Returns whether the last two seconds saw more than `limit` data messages a second.
    pub fn exceeds(&self, limit: u32) -> bool {
        self.two.times.len() as u64 > 2 * u64::from(limit)
    }
}

/// The times of the messages within a sliding window.
#[derive(Debug, Default)]
struct Window {
    times: VecDeque<Instant>,
}

impl Window {
    fn push(&mut self, now: Instant, length: Duration) -> u64 {
        while self.times.front().is_some_and(|first| now.duration_since(*first) >= length) {
            self.times.pop_front();
        }
        if self.times.len() == MOST_TIMES {
            self.times.pop_front();
        }
        self.times.push_back(now);
        self.times.len() as u64
    }
}

/// Set of the sequence numbers seen.
#[derive(Debug, Default)]
struct Seen {
    /// Every number below has been seen.
    next: i64,
    later: BTreeSet<i64>,
}

impl Seen {
    /// False when the number has been seen before.
    fn insert(&mut self, sequence: i64) -> bool {
        if sequence < self.next || !self.later.insert(sequence) {
            return false;
        }
        while self.later.remove(&self.next) {
            self.next += 1;
        }
        if self.later.len() > MOST_LATER
            && let Some(first) = self.later.pop_first()
        {
            self.next = first + 1;
        }
        true
    }
}

/// Bound of a rate window: half a million messages a second over two seconds.
const MOST_TIMES: usize = 1_000_000;

/// Bound of the numbers remembered beyond a gap, as the agent's own buffer.
const MOST_LATER: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn data(sequence: i64) -> Peek {
        Peek { kind: Kind::Data, sequence, payload: 10 }
    }

    #[test]
    fn windows_slide() {
        let start = Instant::now();
        let mut meter = Meter::default();
        for i in 0..3000u32 {
            meter.record(data(i64::from(i)), start + Duration::from_millis(2) * i);
        }
        assert_eq!(meter.traffic.peak_1s, 500);
        assert_eq!(meter.traffic.peak_2s, 1000);
        assert!(!meter.exceeds(500));
        assert!(meter.exceeds(499));
        assert_eq!((meter.traffic.messages, meter.traffic.bytes), (3000, 30_000));
    }

    #[test]
    fn repeated_numbers_are_resends() {
        let now = Instant::now();
        let mut meter = Meter::default();
        for sequence in [0, 2, 2, 1, 0, 3, 4] {
            meter.record(data(sequence), now);
        }
        assert_eq!(meter.traffic.resends, 2);
        assert_eq!(meter.seen.next, 5);
        assert!(meter.seen.later.is_empty());
    }
}
