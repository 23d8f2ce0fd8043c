//! How much may be sent and not yet acknowledged.
//!
//! The wire below is TCP to the service and TCP from there to the agent, so a missing acknowledgement is hardly ever
//! a full queue: a lost one shrinks the window a little, never far. What does show a full queue is an acknowledgement
//! that takes long, since an agent acknowledges only after the destination took the data; and `pause_publication`,
//! with which the service warns. Those two shrink it to the floor.

use std::time::{Duration, Instant};

use super::rtt::Rtt;

/// A congestion controller. Windows and amounts are payload bytes.
pub trait Controller: std::fmt::Debug + Send {
    /// How much may be unacknowledged.
    fn window(&self) -> usize;
    /// `bytes` were acknowledged; `limited` when the window, not the sender, was what held data back.
    fn on_ack(&mut self, now: Instant, bytes: usize, rtt: &Rtt, limited: bool);
    /// A message first sent at `sent_at` is taken for lost.
    fn on_loss(&mut self, now: Instant, sent_at: Instant);
    /// The service or the agent asked us to stop.
    fn on_pause(&mut self);
}

/// The default controller: grows by what is acknowledged while round-trip times stay near their floor.
#[derive(Debug)]
pub struct AckClocked {
    window: usize,
    max: usize,
    step: usize,
    /// Doubling per round trip up to here, one step per round trip beyond.
    threshold: usize,
    /// Losses of messages sent before this moment have been answered already.
    recovered_at: Option<Instant>,
}

impl AckClocked {
    /// A window of at most `max` bytes for messages of up to `payload` bytes.
    pub fn new(max: usize, payload: usize) -> AckClocked {
        let step = payload.max(1);
        let max = max.max(MIN_MESSAGES * step);
        AckClocked {
            window: max.min(INITIAL.max(MIN_MESSAGES * step)),
            max,
            step,
            threshold: max,
            recovered_at: None,
        }
    }

    fn floor(&self) -> usize {
        (MIN_MESSAGES * self.step).max(MIN_WINDOW).min(self.max)
    }

    fn shrink(&mut self, now: Instant, floor: usize) {
        self.window = (self.window / 8 * 7).max(floor.min(self.window)).max(self.floor());
        self.threshold = self.window;
        self.recovered_at = Some(now);
    }

    fn has_recovered(&self, since: Instant) -> bool {
        self.recovered_at.is_none_or(|at| since > at)
    }
}

impl Controller for AckClocked {
    fn window(&self) -> usize {
        self.window
    }

    fn on_ack(&mut self, now: Instant, bytes: usize, rtt: &Rtt, limited: bool) {
        let inflated = rtt.latest() > rtt.floor() * 4 + QUEUE_ALLOWANCE;
        if inflated {
            if now.checked_sub(rtt.smoothed()).is_some_and(|then| self.has_recovered(then)) {
                self.shrink(now, 0);
            }
        } else if limited && self.window < self.threshold {
            self.window = (self.window + bytes).min(self.max);
        } else if limited {
            let growth = (self.step * bytes).div_ceil(self.window.max(1));
            self.window = (self.window + growth).min(self.max);
            self.threshold = self.window;
        }
    }

    fn on_loss(&mut self, now: Instant, sent_at: Instant) {
        if self.has_recovered(sent_at) {
            self.shrink(now, LOSS_FLOOR);
        }
    }

    fn on_pause(&mut self) {
        self.window = self.floor();
        self.threshold = self.max / 2;
    }
}

/// The default limit: 256 KiB unacknowledged with 1,024-byte payloads is reported stable at the service.
pub const DEFAULT_MAX_WINDOW: usize = 256 << 10;
/// The first window, as much as one burst of the pacer in full default messages.
const INITIAL: usize = 128 << 10;
/// The smallest window, in full messages, and in bytes where those are small.
const MIN_MESSAGES: usize = 8;
const MIN_WINDOW: usize = 8 << 10;
/// Losses alone do not shrink the window further, in bytes; at 20 % loss this still fills the service's rate.
const LOSS_FLOOR: usize = 96 << 10;
/// How much longer than four times the floor a round trip may take before that counts as a queue.
const QUEUE_ALLOWANCE: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt(samples: &[u64]) -> Rtt {
        let mut rtt = Rtt::default();
        samples.iter().for_each(|ms| rtt.sample(Duration::from_millis(*ms)));
        rtt
    }

    #[test]
    fn a_hundred_kilobytes_go_at_once() {
        assert!(AckClocked::new(DEFAULT_MAX_WINDOW, 1024).window() >= 100 * 1024);
    }

    #[test]
    fn it_grows_to_its_limit_only_when_it_is_what_limits() {
        let now = Instant::now();
        let mut control = AckClocked::new(DEFAULT_MAX_WINDOW, 1024);
        let start = control.window();
        control.on_ack(now, 1 << 20, &rtt(&[20]), false);
        assert_eq!(control.window(), start);
        for _ in 0..1000 {
            control.on_ack(now, 1024, &rtt(&[20]), true);
        }
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn losses_shrink_it_once_a_round_trip_and_not_below_their_floor() {
        let start = Instant::now();
        let mut control = AckClocked::new(DEFAULT_MAX_WINDOW, 1024);
        let before = control.window();
        for _ in 0..10 {
            control.on_loss(start + Duration::from_millis(1), start);
        }
        assert_eq!(control.window(), before / 8 * 7);
        for round in 1..100 {
            let now = start + Duration::from_millis(round * 50);
            control.on_loss(now, now - Duration::from_millis(1));
        }
        assert_eq!(control.window(), LOSS_FLOOR);
    }

    #[test]
    fn a_queue_shrinks_it_to_the_floor_and_it_comes_back() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut control = AckClocked::new(DEFAULT_MAX_WINDOW, 1024);
        for round in 0..200 {
            control.on_ack(start + Duration::from_secs(round), 1024, &rtt(&[20, 900]), true);
        }
        assert_eq!(control.window(), 8 * 1024);
        for round in 200..9000 {
            control.on_ack(start + Duration::from_secs(round), 8 * 1024, &rtt(&[20, 21]), true);
        }
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn a_pause_takes_it_to_the_floor() {
        let mut control = AckClocked::new(DEFAULT_MAX_WINDOW, 1024);
        control.on_pause();
        assert_eq!(control.window(), 8 * 1024);
    }

    #[test]
    fn a_tiny_limit_still_lets_a_message_through() {
        let control = AckClocked::new(1, 32 << 10);
        assert!(control.window() >= 32 << 10);
    }
}
