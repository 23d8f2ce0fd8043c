//! Signs of life of one open websocket: pings, missing answers, and the machine's sleep.
//!
//! The service answers pings whatever the agent does, so a websocket on which nothing arrives, not even the answer to a
//! ping, is dead, and a slow agent or a blocked destination is not. A ping is sent
//!
//! | when | and must be answered within |
//! |---|---|
//! | something is outstanding and nothing has arrived for a patience | a patience; [`SHORT`] in the place of [`LONG`] after [`LONG_SILENCE`] |
//! | a flow of data has stopped for [`FLOW_QUIET`]: only the remote knows whether it is complete | a patience |
//! | the machine was asleep, or its network has changed | a patience |
//! | the interval has passed | the interval |
//!
//! A patience is [`LONG`] or four round trips, doubled for each websocket that was given up for its silence, until an answer
//! has come within the undoubled time.
//!
//! A silent websocket is replaced but not dropped: it stays until the new one is open ([`Health::Silent`]), so that a path
//! that recovers in the meantime keeps its session. The service drops the old websocket only when it accepts the new one.

use std::time::{Duration, Instant, SystemTime};

use super::clocks::Clocks;

/// Decides when a websocket is pinged, and when it counts as silent. Lasts for all websockets of a link.
#[derive(Debug)]
pub(super) struct Liveness {
    interval: Duration,
    next_ping: Instant,
    is_ping_due: bool,
    /// Arrival of the last message of any kind; at first the opening.
    heard: Instant,
    /// The ping that is out.
    pending: Option<PendingPing>,
    is_silent: bool,
    /// Messages in a row without a gap of [`FLOW_GAP`].
    flow: u32,
    /// Doublings of the patience.
    doublings: u32,
    clocks: Clocks,
}

/// A ping without an answer so far.
#[derive(Clone, Copy, Debug)]
struct PendingPing {
    sent: Instant,
    answer_by: Instant,
    /// Sent for the interval only: an earlier deadline may replace this one.
    is_routine: bool,
}

/// Facts about the channel that decide how soon an answer is missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// The websocket is being read: else a missing answer means nothing.
    pub reads: bool,
    /// An answer is due: to data, to input that waits, or to the opening.
    pub is_outstanding: bool,
    /// Round-trip time; zero if unknown.
    pub rtt: Duration,
}

/// State of a websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Alive,
    /// Nothing has arrived for this time, although an answer was due.
    Silent(Duration),
}

impl Liveness {
    /// For a websocket opened at `now`, with its first ping at `first_ping` and the others each `interval`.
    pub(super) fn new(now: Instant, wall: SystemTime, interval: Duration, first_ping: Instant) -> Liveness {
        Liveness {
            interval,
            next_ping: first_ping,
            is_ping_due: false,
            heard: now,
            pending: None,
            is_silent: false,
            flow: 0,
            doublings: 0,
            clocks: Clocks::new(now, wall),
        }
    }

    /// Starts over for the next websocket of the link; only the patience is kept. The first message on the new websocket
    /// counts as the answer to its opening: a path that dies again before its first ping is noticed as soon as before.
    pub(super) fn handle_reopened(&mut self, now: Instant, wall: SystemTime, first_ping: Instant) {
        let opening = PendingPing { sent: now, answer_by: first_ping + self.interval, is_routine: true };
        *self = Liveness {
            doublings: self.doublings,
            pending: Some(opening),
            ..Liveness::new(now, wall, self.interval, first_ping)
        };
    }

    /// Anything has arrived on the websocket: data, a pong, any frame. Returns true if the websocket was silent.
    pub(super) fn handle_received(&mut self, now: Instant, rtt: Duration) -> bool {
        if let Some(ping) = self.pending.take()
            && now.saturating_duration_since(ping.sent) <= undoubled(LONG, rtt)
        {
            self.doublings = 0;
        }
        let has_gap = now.saturating_duration_since(self.heard) > FLOW_GAP;
        self.flow = if has_gap { 1 } else { self.flow.saturating_add(1) };
        self.heard = now;
        std::mem::take(&mut self.is_silent)
    }

    /// Compares the clocks; call it at every opportunity. Returns true if the machine was asleep: then the websocket is
    /// checked at once, since most do not survive that.
    pub(super) fn handle_clocks(&mut self, now: Instant, wall: SystemTime, rtt: Duration) -> bool {
        let was_asleep = self.clocks.have_diverged(now, wall);
        if was_asleep {
            self.check(now, rtt);
        }
        was_asleep
    }

    /// Pings at once, because the way to the service may have changed.
    pub(super) fn check(&mut self, now: Instant, rtt: Duration) {
        let is_under_way = self.pending.is_some_and(|ping| !ping.is_routine);
        if !self.is_silent && !is_under_way {
            self.ping(now, self.patience(LONG, rtt).min(self.interval));
        }
    }

    /// Returns true if a ping is to be sent now.
    #[must_use]
    pub(super) fn poll_ping(&mut self) -> bool {
        std::mem::take(&mut self.is_ping_due)
    }

    /// When [`Liveness::handle_timeout`] is due, and why; never while the websocket is silent.
    #[must_use]
    pub(super) fn poll_timeout(&self, demand: Demand) -> Option<(Instant, &'static str)> {
        if self.is_silent {
            return None;
        }
        let answer = self.pending.filter(|_| demand.reads).map(|ping| (ping.answer_by, "answer to a ping"));
        let check = self.check_at(demand).map(|at| (at, "check of a quiet websocket"));
        let ping = Some((self.next_ping, "ping"));
        [answer, check, ping].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Does what is due; may be called at any time.
    #[must_use]
    pub(super) fn handle_timeout(&mut self, now: Instant, demand: Demand) -> Health {
        if self.is_silent {
            return Health::Alive;
        }
        if demand.reads && self.pending.is_some_and(|ping| ping.answer_by <= now) {
            self.is_silent = true;
            self.doublings += 1;
            return Health::Silent(now.saturating_duration_since(self.heard));
        }
        if self.check_at(demand).is_some_and(|at| at <= now) {
            // Longer than the patience: it ended with new input.
            let long_silence = LONG_SILENCE.max(self.patience(LONG, demand.rtt));
            let is_long = now.saturating_duration_since(self.heard) > long_silence;
            self.flow = 0;
            self.ping(now, self.patience(if is_long { SHORT } else { LONG }, demand.rtt));
        }
        if self.next_ping <= now {
            self.next_ping = now + self.interval;
            self.is_ping_due = true;
            self.pending.get_or_insert(PendingPing {
                sent: now,
                answer_by: self.next_ping,
                is_routine: true,
            });
        }
        Health::Alive
    }

    /// When a websocket is pinged because nothing arrives; `None` if nothing is missed, or if such a ping is out.
    fn check_at(&self, demand: Demand) -> Option<Instant> {
        if !demand.reads || self.pending.is_some_and(|ping| !ping.is_routine) {
            return None;
        }
        if demand.is_outstanding {
            return Some(self.heard + self.patience(LONG, demand.rtt));
        }
        (self.flow >= FLOW).then(|| self.heard + FLOW_QUIET.max(self.patience(LONG, demand.rtt)))
    }

    fn ping(&mut self, now: Instant, patience: Duration) {
        self.is_ping_due = true;
        self.pending = Some(PendingPing { sent: now, answer_by: now + patience, is_routine: false });
    }

    fn patience(&self, least: Duration, rtt: Duration) -> Duration {
        let doubled = undoubled(least, rtt).saturating_mul(1 << self.doublings.min(MAX_DOUBLINGS));
        // Four round trips count even where they take longer than that.
        doubled.min(MAX_PATIENCE.max(ROUND_TRIPS * rtt))
    }
}

fn undoubled(least: Duration, rtt: Duration) -> Duration {
    least.max(ROUND_TRIPS * rtt)
}

/// Time without an arrival after which an answer is missed, and time for the answer to the ping that follows.
const LONG: Duration = Duration::from_secs(2);
/// The same after [`LONG_SILENCE`]: the user has just typed and wants to know.
const SHORT: Duration = Duration::from_secs(1);
const LONG_SILENCE: Duration = Duration::from_secs(10);
/// Round trips that are always waited for, whatever they take.
const ROUND_TRIPS: u32 = 4;
/// Bound of the doubled patience.
const MAX_PATIENCE: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 5;
/// Messages that make a flow, and the gap that ends it.
const FLOW: u32 = 16;
const FLOW_GAP: Duration = Duration::from_secs(1);
/// Time after the end of a flow at which the websocket is checked.
const FLOW_QUIET: Duration = Duration::from_secs(3);
#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(30);
    const IDLE: Demand = Demand { reads: true, is_outstanding: false, rtt: Duration::from_millis(20) };
    const WAITING: Demand = Demand { is_outstanding: true, ..IDLE };
    const UNREAD: Demand = Demand { reads: false, ..WAITING };

    fn liveness() -> (Liveness, Instant) {
        let start = Instant::now();
        (Liveness::new(start, SystemTime::UNIX_EPOCH, INTERVAL, start + INTERVAL), start)
    }

    /// The wall clock when it runs like the monotonic one, after `asleep`.
    fn wall(start: Instant, now: Instant, asleep: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + (now - start) + asleep
    }

    /// Runs from deadline to deadline while nothing arrives. Returns the times of the pings and of the silence.
    fn run(
        liveness: &mut Liveness,
        start: Instant,
        from: Instant,
        demand: Demand,
    ) -> (Vec<Duration>, Duration) {
        let (mut now, mut pings) = (from, Vec::new());
        loop {
            let health = liveness.handle_timeout(now, demand);
            if liveness.poll_ping() {
                pings.push(now - start);
            }
            if let Health::Silent(_) = health {
                return (pings, now - start);
            }
            now = now.max(liveness.poll_timeout(demand).expect("a deadline").0);
        }
    }

    #[test]
    fn an_idle_websocket_wakes_for_its_pings_only() {
        let (mut liveness, start) = liveness();
        for n in 1..=120 {
            assert_eq!(liveness.poll_timeout(IDLE), Some((start + INTERVAL * n, "ping")));
            let now = start + INTERVAL * n;
            assert!(!liveness.handle_clocks(now, wall(start, now, Duration::ZERO), IDLE.rtt));
            assert_eq!(liveness.handle_timeout(now, IDLE), Health::Alive);
            assert!(liveness.poll_ping() && !liveness.poll_ping());
            liveness.handle_received(now + SECOND / 50, IDLE.rtt);
        }
    }

    #[test]
    fn a_routine_ping_has_until_the_next() {
        let (mut liveness, start) = liveness();
        assert_eq!(run(&mut liveness, start, start, IDLE), (vec![INTERVAL], INTERVAL * 2));
        assert_eq!(liveness.poll_timeout(IDLE), None, "the link acts now");
    }

    #[test]
    fn outstanding_data_is_missed_after_two_seconds_and_two_more() {
        let (mut liveness, start) = liveness();
        assert_eq!(run(&mut liveness, start, start, WAITING), (vec![2 * SECOND], 4 * SECOND));
    }

    #[test]
    fn input_after_a_silence_is_checked_at_once() {
        for (silence, answer) in [(5, 2 * SECOND), (11, SECOND)] {
            let (mut liveness, start) = liveness();
            let now = start + SECOND * silence;
            let expected = (vec![SECOND * silence], SECOND * silence + answer);
            assert_eq!(run(&mut liveness, start, now, WAITING), expected);
        }
    }

    #[test]
    fn a_routine_ping_under_way_does_not_delay_the_check() {
        let (mut liveness, start) = liveness();
        assert_eq!(liveness.handle_timeout(start + INTERVAL, IDLE), Health::Alive);
        assert!(liveness.poll_ping());
        let now = start + INTERVAL + SECOND;
        assert_eq!(run(&mut liveness, start, now, WAITING), (vec![now - start], now - start + SECOND));
    }

    #[test]
    fn a_flow_that_stops_is_checked_once() {
        let (mut liveness, start) = liveness();
        let mut now = start;
        for _ in 0..FLOW {
            now += SECOND / 100;
            liveness.handle_received(now, IDLE.rtt);
        }
        let mut dead = Liveness { clocks: Clocks::new(now, SystemTime::UNIX_EPOCH), ..liveness };
        let stop = now - start;
        assert_eq!(dead.handle_timeout(now + FLOW_QUIET, IDLE), Health::Alive);
        assert!(dead.poll_ping());
        // It was complete: the answer comes, and no other ping before the routine one.
        dead.handle_received(now + FLOW_QUIET + SECOND / 50, IDLE.rtt);
        assert_eq!(dead.poll_timeout(IDLE), Some((start + INTERVAL, "ping")));
        for n in 0..FLOW {
            dead.handle_received(now + 4 * SECOND + SECOND / 100 * n, IDLE.rtt);
        }
        let stop = stop + 4 * SECOND + SECOND / 100 * (FLOW - 1);
        let (pings, silent) = run(&mut dead, start, start + stop, IDLE);
        assert_eq!((pings, silent), (vec![stop + FLOW_QUIET], stop + FLOW_QUIET + LONG));
    }

    #[test]
    fn anything_that_arrives_is_an_answer() {
        let (mut liveness, start) = liveness();
        for n in 1..100 {
            let now = start + 3 * SECOND * n;
            assert_eq!(liveness.handle_timeout(now, WAITING), Health::Alive);
            assert!(
                liveness.poll_ping(),
                "a destination that blocks is checked, and answered for by the service"
            );
            assert!(!liveness.handle_received(now + SECOND / 50, WAITING.rtt));
            assert_eq!(liveness.handle_timeout(now + SECOND, WAITING), Health::Alive);
        }
    }

    #[test]
    fn a_long_round_trip_is_waited_for_four_times() {
        let (mut liveness, start) = liveness();
        let demand = Demand { rtt: 3 * SECOND, ..WAITING };
        assert_eq!(run(&mut liveness, start, start, demand), (vec![12 * SECOND], 24 * SECOND));
    }

    #[test]
    fn each_silence_doubles_the_patience_until_an_answer_comes_in_time() {
        let (mut liveness, start) = liveness();
        let mut patiences = Vec::new();
        for _ in 0..7 {
            let (pings, silent) = run(&mut liveness, start, start, WAITING);
            patiences.push(silent - pings[0]);
            liveness.handle_reopened(start, SystemTime::UNIX_EPOCH, start + 100 * INTERVAL);
        }
        assert_eq!(patiences, [2, 4, 8, 16, 30, 30, 30].map(|seconds| SECOND * seconds));
        liveness.check(start, WAITING.rtt);
        liveness.handle_received(start + 3 * SECOND, WAITING.rtt);
        assert_eq!(liveness.patience(LONG, WAITING.rtt), MAX_PATIENCE, "too late for the usual time");
        liveness.check(start + 4 * SECOND, WAITING.rtt);
        liveness.handle_received(start + 5 * SECOND, WAITING.rtt);
        assert_eq!(liveness.patience(LONG, WAITING.rtt), LONG);
    }

    #[test]
    fn a_websocket_that_delivers_soon_ends_the_doubling() {
        let (mut liveness, start) = liveness();
        for (delivers_after, patience) in [(1, LONG), (3, 2 * LONG)] {
            liveness.doublings = 0;
            run(&mut liveness, start, start, WAITING);
            liveness.handle_reopened(start, SystemTime::UNIX_EPOCH, start + SECOND / 2);
            liveness.handle_received(start + SECOND * delivers_after, WAITING.rtt);
            assert_eq!(liveness.patience(LONG, WAITING.rtt), patience, "{delivers_after}");
        }
    }

    #[test]
    fn a_silent_websocket_may_recover() {
        let (mut liveness, start) = liveness();
        let (_, silent) = run(&mut liveness, start, start, WAITING);
        assert!(liveness.handle_received(start + silent + SECOND, WAITING.rtt), "it was silent");
        assert!(!liveness.handle_received(start + silent + SECOND, WAITING.rtt));
        assert!(liveness.poll_timeout(WAITING).is_some());
    }

    #[test]
    fn no_answer_is_missed_while_nothing_is_read() {
        let (mut liveness, start) = liveness();
        for n in 1..20 {
            assert_eq!(liveness.poll_timeout(UNREAD), Some((start + INTERVAL * n, "ping")));
            assert_eq!(liveness.handle_timeout(start + INTERVAL * n, UNREAD), Health::Alive);
        }
        assert_ne!(liveness.handle_timeout(start + INTERVAL * 20, WAITING), Health::Alive);
    }

    #[test]
    fn after_hours_of_sleep_the_answer_must_come_within_seconds() {
        let (mut liveness, start) = liveness();
        let asleep = SECOND * 3 * 3600;
        let now = start + SECOND * 7;
        assert!(liveness.handle_clocks(now, wall(start, now, asleep), IDLE.rtt));
        assert!(liveness.poll_ping());
        assert_eq!(liveness.poll_timeout(IDLE), Some((now + LONG, "answer to a ping")));
        assert_eq!(liveness.handle_timeout(now + SECOND, IDLE), Health::Alive);
        assert_ne!(liveness.handle_timeout(now + LONG, IDLE), Health::Alive);
    }

    #[test]
    fn a_socket_that_survives_a_sleep_is_kept() {
        let (mut liveness, start) = liveness();
        let (asleep, now) = (SECOND * 3600, start + SECOND * 7);
        assert!(liveness.handle_clocks(now, wall(start, now, asleep), IDLE.rtt));
        liveness.handle_received(now, IDLE.rtt);
        let later = now + SECOND * 20;
        assert!(!liveness.handle_clocks(later, wall(start, later, asleep), IDLE.rtt), "that sleep is over");
        assert_eq!(liveness.handle_timeout(later, IDLE), Health::Alive);
    }

    #[test]
    fn a_corrected_clock_does_not_count_as_a_sleep() {
        let (mut liveness, start) = liveness();
        let now = start + SECOND * 2;
        assert!(!liveness.handle_clocks(now, wall(start, now, SECOND * 9), IDLE.rtt));
        // Back before the beginning.
        let now = start + SECOND * 4;
        assert!(!liveness.handle_clocks(now, SystemTime::UNIX_EPOCH - SECOND * 3600, IDLE.rtt));
    }

    #[test]
    fn a_ping_interval_shorter_than_the_patience_after_a_sleep_counts() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, SystemTime::UNIX_EPOCH, SECOND, start + SECOND);
        let now = start + SECOND;
        assert!(liveness.handle_clocks(now, wall(start, now, SECOND * 60), IDLE.rtt));
        assert_eq!(liveness.handle_timeout(now, IDLE), Health::Alive);
        assert_ne!(liveness.handle_timeout(now + SECOND, IDLE), Health::Alive);
    }
}
