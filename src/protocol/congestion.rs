//! Congestion control: how many bytes may be unacknowledged.
//!
//! The wire below is TCP to the service and TCP from there to the agent, so a missing acknowledgement is hardly ever
//! a full queue, and the window answers a loss as TCP Westwood does: it falls, but not below what the path has just
//! been seen to carry in a round trip. What does show a full queue is that *every* acknowledgement of a round trip
//! takes long (as in HyStart; jitter delays some), since an agent acknowledges only after the destination took the
//! data; and `pause_publication`, with which the service warns. A queue shrinks the window round trip by round trip, a
//! pause shrinks it to its smallest at once.
//!
//! Losses and late acknowledgements say nothing about a window that was not full: it is left as it is.

use std::time::{Duration, Instant};

/// One acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    /// Bytes that it acknowledged.
    pub bytes: usize,
    /// Measurement of the path; `None` for most messages that were sent twice.
    pub sample: Option<Sample>,
    /// The smoothed round-trip time.
    pub smoothed_rtt: Duration,
    /// True if the window, not the sender, was what held data back.
    pub is_limited: bool,
}

/// Measurement of the path from a message that was sent once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// From its sending to its acknowledgement.
    pub rtt: Duration,
    /// Bytes a second that were acknowledged in that time.
    pub delivery_rate: u64,
}

/// The most that a window of at most `max` bytes comes to, for messages of up to `payload` bytes.
pub(super) fn limit(max: usize, payload: usize) -> usize {
    max.max(MIN_MESSAGES * payload.max(1))
}

/// The congestion controller: its window grows by what is acknowledged while round-trip times stay near their floor.
/// Windows and amounts are payload bytes.
#[derive(Debug)]
pub(super) struct Controller {
    window: usize,
    max: usize,
    step: usize,
    /// Doubling per round trip up to here, an eighth per round trip beyond.
    threshold: usize,
    /// Losses of messages sent before this moment have been answered already.
    recovered_at: Option<Instant>,
    rate: MaxRate,
    /// The round-trip time without a queue of ours.
    floor: Option<Duration>,
    smoothed_rtt: Duration,
    round: Round,
    /// The fastest acknowledgement of the round before.
    fastest: Option<Duration>,
    /// True if the round before was limited by the window.
    was_limited: bool,
    queue: Option<Queue>,
}

/// Measurements over about one round trip.
#[derive(Debug, Default)]
struct Round {
    ends: Option<Instant>,
    fastest: Option<Duration>,
    is_limited: bool,
}

/// A suspected queue, since the round in which it was first seen.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// The window then.
    window: usize,
    /// The longest that the fastest acknowledgement of a round has taken.
    peak: Duration,
}

impl Controller {
    /// A window of at most `max` bytes for messages of up to `payload` bytes.
    pub(super) fn new(max: usize, payload: usize) -> Controller {
        let step = payload.max(1);
        let max = limit(max, payload);
        Controller {
            window: max.min(INITIAL.max(MIN_MESSAGES * step)),
            max,
            step,
            threshold: max,
            recovered_at: None,
            rate: MaxRate::default(),
            floor: None,
            smoothed_rtt: Duration::ZERO,
            round: Round::default(),
            fastest: None,
            was_limited: false,
            queue: None,
        }
    }

    /// Returns the number of bytes that may be unacknowledged.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// A message was acknowledged.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Ack) {
        self.round.is_limited |= ack.is_limited;
        self.smoothed_rtt = ack.smoothed_rtt;
        if let Some(Sample { rtt, delivery_rate }) = ack.sample {
            self.floor = Some(self.floor.map_or(rtt, |floor| floor.min(rtt)));
            self.round.fastest = Some(self.round.fastest.map_or(rtt, |fastest| fastest.min(rtt)));
            self.rate.sample(now, delivery_rate, ack.smoothed_rtt * RATE_ROUNDS, ack.is_limited);
        }
        if *self.round.ends.get_or_insert(now + ack.smoothed_rtt) <= now {
            self.end_round(now, ack.smoothed_rtt);
        }
        if self.is_limited() && self.queue.is_none() {
            let growth = if self.window < self.threshold { ack.bytes } else { ack.bytes.div_ceil(8) };
            self.window = (self.window + growth).min(self.max);
            self.threshold = self.threshold.max(self.window);
        }
    }

    /// A message first sent at `sent_at` is taken for lost.
    pub(super) fn on_loss(&mut self, now: Instant, sent_at: Instant) {
        let is_answered = self.recovered_at.is_some_and(|at| sent_at <= at);
        if !is_answered && self.is_limited() {
            let target = if self.is_backlogged() {
                self.carried().max(self.window / 2)
            } else {
                (2 * self.carried()).max(self.window / 8 * 7)
            };
            self.shrink(now, target);
        }
    }

    /// The service or the agent asked us to stop.
    pub(super) fn on_pause(&mut self) {
        self.window = self.smallest();
        self.threshold = self.max / 2;
    }

    /// A new connection, perhaps over another path.
    pub(super) fn on_reopen(&mut self) {
        self.floor = None;
        self.fastest = None;
        self.round = Round::default();
        self.queue = None;
    }

    fn smallest(&self) -> usize {
        (MIN_MESSAGES * self.step).max(MIN_WINDOW).min(self.max)
    }

    /// Returns whether the window held data back lately. In a burst of acknowledgements only the first finds it
    /// full.
    fn is_limited(&self) -> bool {
        self.was_limited || self.round.is_limited
    }

    /// To `target`.
    fn shrink(&mut self, now: Instant, target: usize) {
        if target >= self.window {
            return;
        }
        self.window = target.max(self.smallest());
        self.threshold = self.window;
        self.recovered_at = Some(now);
    }

    /// Returns the number of bytes that the path carries in a round trip.
    fn carried(&self) -> usize {
        let product = u128::from(self.rate.get()) * self.smoothed_rtt.as_micros() / 1_000_000;
        usize::try_from(product).unwrap_or(usize::MAX)
    }

    /// Returns whether the acknowledgements of the last round trip were all somewhat late: a full queue loses
    /// messages.
    fn is_backlogged(&self) -> bool {
        self.floor
            .zip(self.fastest)
            .is_some_and(|(floor, fastest)| fastest > floor * 9 / 8 + BACKLOG_ALLOWANCE)
    }

    fn end_round(&mut self, now: Instant, smoothed_rtt: Duration) {
        let round = std::mem::take(&mut self.round);
        self.round.ends = Some(now + smoothed_rtt);
        self.was_limited = round.is_limited;
        self.fastest = round.fastest.or(self.fastest);
        let (Some(fastest), Some(floor)) = (round.fastest, self.floor) else { return };
        // A queue makes all of them late; jitter spreads them.
        let is_late = fastest > floor * 2 + QUEUE_ALLOWANCE && fastest > smoothed_rtt * 3 / 4;
        if !is_late || !self.was_limited {
            self.queue = None;
            return;
        }
        let seen = self.queue.unwrap_or(Queue { window: self.window, peak: fastest });
        let queue = Queue { peak: seen.peak.max(fastest), ..seen };
        self.queue = Some(queue);
        let is_path = self.window <= queue.window / 2 && fastest > queue.peak * 3 / 4;
        if is_path || self.window == self.smallest() {
            // A queue of ours would have shrunk with the window: the path, or the destination, has become slower.
            self.floor = Some(fastest);
            if is_path {
                self.threshold = queue.window;
            }
            self.queue = None;
            return;
        }
        self.shrink(now, self.window / 8 * 7);
    }
}

/// The highest of recent delivery rates.
#[derive(Debug, Default)]
struct MaxRate {
    /// The highest of this span and of the span before.
    current: u64,
    previous: u64,
    since: Option<Instant>,
}

impl MaxRate {
    /// Takes a rate. Older ones count for one to two times `span`, and for as long as the sender has little to send.
    fn sample(&mut self, now: Instant, rate: u64, span: Duration, is_limited: bool) {
        let since = *self.since.get_or_insert(now);
        if is_limited && now.saturating_duration_since(since) >= span {
            (self.current, self.previous, self.since) = (0, self.current, Some(now));
        }
        self.current = self.current.max(rate);
    }

    fn get(&self) -> u64 {
        self.current.max(self.previous)
    }
}

/// The default limit: 256 KiB unacknowledged with 1,024-byte payloads is reported stable at the service.
pub(super) const DEFAULT_MAX_WINDOW: usize = 256 << 10;
/// The first window, as much as one burst of the pacer in full default messages.
const INITIAL: usize = 128 << 10;
/// The smallest window, in full messages, and in bytes where those are small.
const MIN_MESSAGES: usize = 8;
const MIN_WINDOW: usize = 8 << 10;
/// For how many round trips a delivery rate counts.
const RATE_ROUNDS: u32 = 5;
/// Allowance on top of an eighth above the floor; a loss in a longer round trip counts as a full queue's.
const BACKLOG_ALLOWANCE: Duration = Duration::from_millis(2);
/// Allowance on top of twice the floor; a longer round trip counts as a queue.
const QUEUE_ALLOWANCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ack(bytes: usize, rtt: Duration, is_limited: bool) -> Ack {
        let delivery_rate = (bytes as f64 / rtt.as_secs_f64()) as u64;
        Ack { bytes, sample: Some(Sample { rtt, delivery_rate }), smoothed_rtt: rtt, is_limited }
    }

    /// Round trips in which a full window is acknowledged.
    fn full_rounds(control: &mut Controller, start: Instant, rtt: Duration, rounds: u32) -> Instant {
        for round in 0..rounds {
            control.on_ack(start + rtt * round, ack(control.window(), rtt, true));
        }
        start + rtt * rounds
    }

    #[test]
    fn a_hundred_kilobytes_go_at_once() {
        assert!(Controller::new(DEFAULT_MAX_WINDOW, 1024).window() >= 100 * 1024);
    }

    #[test]
    fn it_grows_to_its_limit_only_when_it_is_what_limits() {
        let now = Instant::now();
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let start = control.window();
        control.on_ack(now, ack(1 << 20, 20 * MS, false));
        assert_eq!(control.window(), start);
        full_rounds(&mut control, now, 20 * MS, 2);
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn losses_shrink_it_once_a_round_trip_and_not_below_what_the_path_carries() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let mut now = full_rounds(&mut control, Instant::now(), 20 * MS, 20);
        // The path turns out to carry a sixteenth of that.
        let carried = ack(DEFAULT_MAX_WINDOW / 16, 20 * MS, true);
        for _ in 0..10 {
            control.on_loss(now + MS, now);
        }
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW, "{control:?}");
        for _ in 0..100 {
            now += 20 * MS;
            control.on_ack(now, carried);
            for _ in 0..10 {
                control.on_loss(now + MS, now);
            }
        }
        let wanted = DEFAULT_MAX_WINDOW / 8;
        assert!((wanted..wanted * 5 / 4).contains(&control.window()), "{control:?}");
    }

    #[test]
    fn a_loss_says_nothing_about_a_window_that_is_not_full() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += 100 * MS;
            control.on_ack(now, ack(10, 20 * MS, false));
        }
        let before = control.window();
        control.on_loss(now + MS, now);
        assert_eq!(control.window(), before);
    }

    #[test]
    fn a_queue_shrinks_it_and_it_comes_back() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let mut now = full_rounds(&mut control, Instant::now(), 20 * MS, 1);
        let mut rounds = 0;
        // The destination takes 10,000 bytes a second: what is more, waits.
        while control.window() > 8 * 1024 {
            let rtt = MS * (control.window() / 10) as u32;
            now = full_rounds(&mut control, now, rtt, 1);
            rounds += 1;
            assert!(rounds < 40, "{control:?}");
        }
        for _ in 0..100 {
            let rtt = MS * (control.window() / 10) as u32;
            now = full_rounds(&mut control, now, rtt, 1);
            assert!(control.window() < 24 * 1024, "{control:?}");
        }
        full_rounds(&mut control, now, 21 * MS, 50);
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn jitter_is_not_a_queue() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let mut now = Instant::now();
        for message in 0..10_000 {
            now += MS;
            control.on_ack(now, ack(1024, (20 + message * 37 % 400) * MS, true));
        }
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn a_path_that_has_become_slower_is_used_again() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        let now = full_rounds(&mut control, Instant::now(), 20 * MS, 10);
        full_rounds(&mut control, now, 400 * MS, 100);
        assert_eq!(control.window(), DEFAULT_MAX_WINDOW);
    }

    #[test]
    fn a_pause_takes_it_to_its_smallest() {
        let mut control = Controller::new(DEFAULT_MAX_WINDOW, 1024);
        control.on_pause();
        assert_eq!(control.window(), 8 * 1024);
    }

    #[test]
    fn a_tiny_limit_still_lets_a_message_through() {
        let control = Controller::new(1, 32 << 10);
        assert!(control.window() >= 32 << 10);
    }
}
