//! Faults of a link: frames lost, repeated, delayed, reordered and throttled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::Faults;

/// One direction of one link: frames go in, and come out when they are due.
#[derive(Debug)]
pub(crate) struct Shaper {
    faults: watch::Receiver<Faults>,
    rng: fastrand::Rng,
    up: bool,
    /// Due time, then order of arrival.
    held: BinaryHeap<Reverse<(Instant, u64, Bytes)>>,
    held_bytes: usize,
    arrivals: u64,
    /// No frame that is not reordered is due before this.
    last_due: Option<Instant>,
    /// When the line has sent what it was given, under a bandwidth limit.
    line_free: Option<Instant>,
}

impl Shaper {
    /// `salt` makes the chances of different links differ under one seed.
    pub fn new(faults: watch::Receiver<Faults>, up: bool, salt: u64) -> Shaper {
        let seed = faults.borrow().seed;
        let rng =
            fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (salt << 1) ^ u64::from(up));
        let held = BinaryHeap::new();
        Shaper { faults, rng, up, held, held_bytes: 0, arrivals: 0, last_due: None, line_free: None }
    }

    /// Returns whether another frame may be pushed. Time makes room.
    pub fn has_room(&self, now: Instant) -> bool {
        self.held_bytes < MOST_HELD && self.line_free.is_none_or(|free| free < now + LINE_BUFFER)
    }

    /// Takes a frame; false when the link has lost it.
    pub fn push(&mut self, frame: Bytes, now: Instant) -> bool {
        let faults = self.faults.borrow().clone();
        let loss = if self.up { faults.loss_up } else { faults.loss_down };
        if self.chance(loss) {
            return false;
        }
        let mut due = now;
        if let Some(rate) = faults.bandwidth {
            let time = Duration::from_secs_f64(frame.len() as f64 / rate.max(1) as f64);
            due = self.line_free.map_or(now, |free| free.max(now)) + time;
            self.line_free = Some(due);
        } else {
            self.line_free = None;
        }
        due += faults.delay;
        if !faults.jitter.is_zero() {
            due += faults.jitter.mul_f64(self.rng.f64());
        }
        if self.chance(faults.reorder) {
            due += faults.reorder_by;
        } else {
            due = self.last_due.map_or(due, |last| last.max(due));
            self.last_due = Some(due);
        }
        if self.chance(faults.duplicate) {
            self.hold(frame.clone(), due);
        }
        self.hold(frame, due);
        true
    }

    /// The next frame that is due.
    pub fn pop(&mut self, now: Instant) -> Option<Bytes> {
        if self.held.peek()?.0.0 > now {
            return None;
        }
        let Reverse((_, _, frame)) = self.held.pop()?;
        self.held_bytes -= frame.len();
        Some(frame)
    }

    /// When to look again: a frame is due, or there is room again. `None` when nothing is held.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((due, ..))| *due)
    }

    fn hold(&mut self, frame: Bytes, due: Instant) {
        self.held_bytes += frame.len();
        self.held.push(Reverse((due, self.arrivals, frame)));
        self.arrivals += 1;
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }
}

/// Bound of the bytes under way in one direction: 80 ms at 100 MB/s.
const MOST_HELD: usize = 8 << 20;

/// Longest queue in front of a slow line, in line time.
const LINE_BUFFER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn shaper(faults: Faults) -> Shaper {
        Shaper::new(watch::channel(faults).1, true, 0)
    }

    fn drain(shaper: &mut Shaper, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| shaper.pop(now)).map(|f| f[0]).collect()
    }

    fn push_all(shaper: &mut Shaper, now: Instant) -> usize {
        (0..200u8).filter(|i| shaper.push(Bytes::copy_from_slice(&[*i]), now)).count()
    }

    #[test]
    fn a_good_link_changes_nothing() {
        let now = Instant::now();
        let mut link = shaper(Faults::default());
        assert_eq!(push_all(&mut link, now), 200);
        assert_eq!(drain(&mut link, now), (0..200).collect::<Vec<u8>>());
        assert_eq!(link.next_due(), None);
    }

    #[test]
    fn loss_is_a_share_and_repeats_with_its_seed() {
        let now = Instant::now();
        let faults = Faults { loss_up: 0.25, seed: 7, ..Faults::default() };
        let (mut one, mut two) = (shaper(faults.clone()), shaper(faults.clone()));
        let kept = push_all(&mut one, now);
        assert!((120..180).contains(&kept), "{kept}");
        push_all(&mut two, now);
        assert_eq!(drain(&mut one, now), drain(&mut two, now));
        let mut down = Shaper::new(watch::channel(faults).1, false, 0);
        assert_eq!(push_all(&mut down, now), 200, "loss_up is for the way up");
    }

    #[test]
    fn delay_and_jitter_keep_order_and_reordering_does_not() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let faults = Faults { delay: ms(50), jitter: ms(20), ..Faults::default() };
        let mut link = shaper(faults.clone());
        push_all(&mut link, now);
        assert_eq!(drain(&mut link, now + ms(49)), Vec::<u8>::new());
        assert_eq!(drain(&mut link, now + ms(70)), (0..200).collect::<Vec<u8>>());
        let mut link = shaper(Faults { reorder: 0.1, ..faults });
        push_all(&mut link, now);
        let mut got = drain(&mut link, now + ms(80));
        assert!(!got.is_sorted());
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<u8>>());
    }

    #[test]
    fn a_slow_line_takes_its_time_and_pushes_back() {
        let now = Instant::now();
        let mut link = shaper(Faults { bandwidth: Some(1000), ..Faults::default() });
        assert!(link.push(Bytes::from(vec![0; 100]), now));
        assert_eq!(link.next_due(), Some(now + Duration::from_millis(100)));
        assert!(!link.has_room(now));
        assert!(link.has_room(now + Duration::from_millis(1)));
    }
}
