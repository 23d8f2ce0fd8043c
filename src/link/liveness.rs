//! Signs of life of one open websocket: pings, the wait for their answers, and the machine's sleep.

use std::time::{Duration, Instant, SystemTime};

/// Decides when a websocket is pinged, and when it is taken for dead. A new websocket gets a new one.
#[derive(Debug)]
pub(super) struct Liveness {
    interval: Duration,
    next_ping: Instant,
    is_ping_due: bool,
    /// A ping is out, and something must be heard until then.
    answer_by: Option<Instant>,
    clocks: Clocks,
}

/// Both clocks, when they were last compared. The monotonic one stands still while the machine sleeps.
#[derive(Debug)]
struct Clocks {
    now: Instant,
    wall: SystemTime,
}

impl Liveness {
    /// For a websocket opened at `now`, with its first ping at `first_ping` and the others each `interval`.
    pub(super) fn new(now: Instant, wall: SystemTime, interval: Duration, first_ping: Instant) -> Liveness {
        let clocks = Clocks { now, wall };
        Liveness { interval, next_ping: first_ping, is_ping_due: false, answer_by: None, clocks }
    }

    /// Anything has arrived on the websocket: data, a pong, any frame.
    pub(super) fn handle_received(&mut self) {
        self.answer_by = None;
    }

    /// Compares the clocks; call it at every opportunity. Returns true if the machine was asleep: then a ping
    /// is due at once and waits for its answer for [`AWAKE_TIMEOUT`] only, since most sockets do not survive that.
    pub(super) fn handle_clocks(&mut self, now: Instant, wall: SystemTime) -> bool {
        let was_asleep = self.clocks.have_diverged(now, wall);
        if was_asleep {
            self.is_ping_due = true;
            self.answer_by = Some(now + AWAKE_TIMEOUT.min(self.interval));
        }
        was_asleep
    }

    /// Returns true if a ping is to be sent now.
    #[must_use]
    pub(super) fn poll_ping(&mut self) -> bool {
        std::mem::take(&mut self.is_ping_due)
    }

    /// When [`Liveness::handle_timeout`] is due, and why. Answers are waited for only while somebody `reads`.
    #[must_use]
    pub(super) fn poll_timeout(&self, reads: bool) -> (Instant, &'static str) {
        let ping = (self.next_ping, "ping");
        match self.answer_by.filter(|_| reads) {
            Some(at) if at <= self.next_ping => (at, "answer to a ping"),
            _ => ping,
        }
    }

    /// Does what is due; may be called at any time. Returns true if the websocket is dead.
    #[must_use]
    pub(super) fn handle_timeout(&mut self, now: Instant, reads: bool) -> bool {
        if reads && self.answer_by.is_some_and(|at| at <= now) {
            return true;
        }
        if self.next_ping <= now {
            self.next_ping = now + self.interval;
            self.is_ping_due = true;
            self.answer_by.get_or_insert(self.next_ping);
        }
        false
    }
}

impl Clocks {
    /// Whether the wall clock has left the monotonic one behind since the last comparison.
    fn have_diverged(&mut self, now: Instant, wall: SystemTime) -> bool {
        let passed = now.saturating_duration_since(self.now);
        if passed < COMPARE_AFTER {
            return false;
        }
        let wall_passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Clocks { now, wall };
        wall_passed > passed + SLEEP
    }
}

/// After a sleep most sockets are dead: an answer is waited for only this long.
const AWAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The clocks are not compared more often.
const COMPARE_AFTER: Duration = Duration::from_secs(1);
/// A wall clock that is this much ahead was not merely corrected.
const SLEEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(30);

    fn liveness() -> (Liveness, Instant) {
        let start = Instant::now();
        (Liveness::new(start, SystemTime::UNIX_EPOCH, INTERVAL, start + INTERVAL), start)
    }

    /// The wall clock when it runs like the monotonic one, after `asleep`.
    fn wall(start: Instant, now: Instant, asleep: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + (now - start) + asleep
    }

    #[test]
    fn it_wakes_for_its_pings_and_for_nothing_else() {
        let (mut liveness, start) = liveness();
        for n in 1..=120 {
            assert_eq!(liveness.poll_timeout(true), (start + INTERVAL * n, "ping"));
            let now = start + INTERVAL * n;
            assert!(!liveness.handle_clocks(now, wall(start, now, Duration::ZERO)));
            assert!(!liveness.handle_timeout(now, true));
            assert!(liveness.poll_ping() && !liveness.poll_ping());
            liveness.handle_received();
        }
    }

    #[test]
    fn a_ping_without_an_answer_until_the_next_is_death() {
        let (mut liveness, start) = liveness();
        assert!(!liveness.handle_timeout(start + INTERVAL, true));
        assert_eq!(liveness.poll_timeout(true), (start + INTERVAL * 2, "answer to a ping"));
        assert!(!liveness.handle_timeout(start + INTERVAL * 2 - SECOND, true));
        assert!(liveness.handle_timeout(start + INTERVAL * 2, true));
    }

    #[test]
    fn anything_that_comes_is_an_answer() {
        let (mut liveness, start) = liveness();
        assert!(!liveness.handle_timeout(start + INTERVAL, true));
        liveness.handle_received();
        assert!(!liveness.handle_timeout(start + INTERVAL * 2, true));
        assert!(liveness.poll_ping());
    }

    #[test]
    fn while_nobody_reads_no_answer_is_missed() {
        let (mut liveness, start) = liveness();
        for n in 1..20 {
            assert_eq!(liveness.poll_timeout(false), (start + INTERVAL * n, "ping"));
            assert!(!liveness.handle_timeout(start + INTERVAL * n, false));
        }
        assert!(liveness.handle_timeout(start + INTERVAL * 20, true));
    }

    #[test]
    fn after_hours_of_sleep_the_answer_must_come_within_seconds() {
        let (mut liveness, start) = liveness();
        let asleep = SECOND * 3 * 3600;
        let now = start + SECOND * 7;
        assert!(liveness.handle_clocks(now, wall(start, now, asleep)));
        assert!(liveness.poll_ping());
        assert_eq!(liveness.poll_timeout(true), (now + AWAKE_TIMEOUT, "answer to a ping"));
        assert!(!liveness.handle_timeout(now + SECOND * 4, true));
        assert!(liveness.handle_timeout(now + AWAKE_TIMEOUT, true));
    }

    #[test]
    fn a_socket_that_survives_a_sleep_is_kept() {
        let (mut liveness, start) = liveness();
        let (asleep, now) = (SECOND * 3600, start + SECOND * 7);
        assert!(liveness.handle_clocks(now, wall(start, now, asleep)));
        liveness.handle_received();
        let later = now + SECOND * 20;
        assert!(!liveness.handle_clocks(later, wall(start, later, asleep)), "that sleep is over");
        assert!(!liveness.handle_timeout(later, true));
    }

    #[test]
    fn a_clock_that_is_set_is_no_sleep() {
        let (mut liveness, start) = liveness();
        let now = start + SECOND * 2;
        assert!(!liveness.handle_clocks(now, wall(start, now, SECOND * 9)));
        // Back before the beginning.
        let now = start + SECOND * 4;
        assert!(!liveness.handle_clocks(now, SystemTime::UNIX_EPOCH - SECOND * 3600));
    }

    #[test]
    fn a_ping_interval_shorter_than_the_patience_after_a_sleep_counts() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, SystemTime::UNIX_EPOCH, SECOND, start + SECOND);
        let now = start + SECOND;
        assert!(liveness.handle_clocks(now, wall(start, now, SECOND * 60)));
        assert!(!liveness.handle_timeout(now, true));
        assert!(liveness.handle_timeout(now + SECOND, true));
    }
}
