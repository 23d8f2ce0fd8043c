//! The change from one connection to the next with an agent that carries one at a time, sans-IO.
//!
//! ```text
//! handle_taken, handle_flag  ─▶ ┌──────────┐ ─▶ is_done       (the next connection's bytes may be sent)
//! handle_drained, if is_due  ─▶ └──────────┘ ─▶ poll_timeout
//! ```
//!
//! Output does not say to which connection it belongs. The agent connects to the destination again with the first bytes of
//! the next connection, so all output before that is the last one's. The bytes wait until the agent has nothing left of it.
//! On websockets that have lasted, the rest comes before the acknowledgement of the flag `DisconnectToPort`, or just after it.
//!
//! If a websocket was replaced, ours or the agent's, the agent sends again what may have been lost, one message at a time, and
//! begins with messages that have arrived (PROTOCOL.md 3). So the flag is sent again after a while, which changes nothing
//! at the agent. If nothing came between the two acknowledgements, not even a repeated message, and no websocket was
//! replaced, the agent had the time to repeat its oldest message, and has none.

use std::time::{Duration, Instant};

/// Counts of a link since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Messages of the agent, repeated ones as well.
    pub received: u64,
    /// Bytes of messages that wait for one before them.
    pub early: usize,
    /// Websockets opened.
    pub websockets: u64,
    /// Pauses of the agent: its websocket was lost.
    pub pauses: u64,
}

/// State of the place that connections take one after the other.
#[derive(Debug)]
pub(crate) struct Handover {
    stage: Stage,
    /// Counts at a time when the agent had nothing left to send.
    empty: Traffic,
}

#[derive(Debug)]
enum Stage {
    Done,
    /// The flag is not acknowledged yet. If it was sent before, with the counts at that acknowledgement.
    Flagged(Option<Traffic>),
    /// The flag is acknowledged, with these counts.
    Quiet {
        since: Traffic,
        until: Instant,
    },
}

impl Handover {
    /// A place for the connection that the agent makes when the session begins.
    pub(crate) fn new(traffic: Traffic) -> Handover {
        Handover { stage: Stage::Done, empty: traffic }
    }

    /// Returns whether the next connection's bytes may be sent.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// A connection takes the place. What happened since the end of the one before does not matter: the agent had no connection.
    pub(crate) fn handle_taken(&mut self, traffic: Traffic) {
        if self.is_done() {
            self.empty = traffic;
        }
    }

    /// A connection has ended: the flag for it is sent.
    pub(crate) fn handle_flag(&mut self) {
        self.stage = Stage::Flagged(None);
    }

    /// When [`Handover::is_due`] changes.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Quiet { until, .. } => Some(until),
            Stage::Done | Stage::Flagged(_) => None,
        }
    }

    /// Returns whether [`Handover::handle_drained`] is due as soon as all that was sent has been acknowledged and all that
    /// has come is read.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Done => false,
            Stage::Flagged(_) => true,
            Stage::Quiet { until, .. } => until <= now,
        }
    }

    /// All that was sent has been acknowledged, the flag as well, and all that has come is read. Returns whether the flag is
    /// to be sent again.
    pub(crate) fn handle_drained(&mut self, now: Instant, traffic: Traffic) -> bool {
        let Traffic { websockets, pauses, .. } = self.empty;
        let is_calm = traffic.early == 0 && (traffic.websockets, traffic.pauses) == (websockets, pauses);
        let quiet = Stage::Quiet { since: traffic, until: now + if is_calm { TRAILING } else { RESENT } };
        self.stage = match self.stage {
            Stage::Done => Stage::Done,
            Stage::Flagged(Some(since)) if since == traffic => Stage::Done,
            Stage::Flagged(_) => quiet,
            Stage::Quiet { since, .. } if !is_calm => Stage::Flagged(Some(since)),
            Stage::Quiet { since, .. } if since == traffic => Stage::Done,
            Stage::Quiet { .. } => quiet,
        };
        if self.is_done() {
            self.empty = traffic;
        }
        matches!(self.stage, Stage::Flagged(_))
    }
}

/// Time in which an agent sends its oldest message again: its longest timeout is a second, its timer ticks each 100 ms
/// (PROTOCOL.md 3).
const RESENT: Duration = Duration::from_millis(1500);
/// Time in which an agent sends what it had read when the flag came (its `writePump` reads and sends beside the
/// acknowledgement), and notices that its connection is closed: bytes that come earlier are lost.
const TRAILING: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A link to an agent, `round_trip` away, which has messages left to send again, one each `pace`.
    struct World {
        handover: Handover,
        now: Instant,
        traffic: Traffic,
        round_trip: Duration,
        flagged: Option<Instant>,
        flags: u32,
    }

    impl World {
        /// A connection has ended, with this on the link since it began.
        fn ended(traffic: Traffic) -> World {
            let mut handover = Handover::new(Traffic::default());
            handover.handle_flag();
            let now = Instant::now();
            World { handover, now, traffic, round_trip: 200 * MS, flagged: Some(now), flags: 1 }
        }

        /// Lets a millisecond pass.
        fn pass(&mut self) {
            self.now += MS;
            let is_acknowledged = self.flagged.is_none_or(|at| at + self.round_trip <= self.now);
            if is_acknowledged && self.handover.is_due(self.now) {
                let is_again = self.handover.handle_drained(self.now, self.traffic);
                self.flagged = is_again.then_some(self.now);
                self.flags += u32::from(is_again);
            }
        }

        /// Time until the next connection's bytes may be sent, while `happen` changes the counts each millisecond.
        fn wait(&mut self, mut happen: impl FnMut(Duration, &mut Traffic)) -> Duration {
            let start = self.now;
            while !self.handover.is_done() {
                happen(self.now - start, &mut self.traffic);
                self.pass();
                assert!(self.now - start < Duration::from_secs(600), "it never ends");
            }
            self.now - start
        }
    }

    #[test]
    fn on_a_link_that_has_lasted_one_flag_is_enough() {
        let mut world = World::ended(Traffic { received: 77, ..Traffic::default() });
        assert_eq!((world.wait(|_, _| {}), world.flags), (200 * MS + TRAILING, 1));
    }

    #[test]
    fn output_just_after_the_acknowledgement_belongs_to_the_last_connection() {
        let mut world = World::ended(Traffic::default());
        let waited = world.wait(|at, traffic| traffic.received += u64::from(at == 210 * MS));
        assert_eq!((waited, world.flags), (200 * MS + 2 * TRAILING, 1));
    }

    /// World 674507: after the flag's acknowledgement came messages that had arrived before, for six seconds, and then the
    /// ones that had been lost.
    #[test]
    fn repeated_messages_announce_others() {
        for (first, pace, count) in [(400, 400, 185), (1400, 100, 2), (1, 1499, 40)] {
            let mut world = World::ended(Traffic { websockets: 1, ..Traffic::default() });
            let waited = world.wait(|at, traffic| {
                let since_first = at.as_millis().checked_sub(first);
                traffic.received += u64::from(
                    since_first.is_some_and(|since| since.is_multiple_of(pace) && since / pace < count),
                );
            });
            let last = Duration::from_millis((first + (count - 1) * pace) as u64);
            assert_eq!(u128::from(world.traffic.received), count, "each {pace} ms from {first} on");
            let most = last + 2 * (RESENT + world.round_trip);
            assert!(last + RESENT <= waited && waited <= most, "{waited:?} after the last at {last:?}");
        }
    }

    #[test]
    fn a_loss_between_two_flags_makes_what_was_seen_void() {
        let lose: [fn(&mut Traffic); 2] = [|traffic| traffic.websockets += 1, |traffic| traffic.pauses += 1];
        for lose in lose {
            for lost_at in [1, 199, 200, 201, 1699, 1700, 1899] {
                let mut world = World::ended(Traffic { pauses: 1, ..Traffic::default() });
                let lost_at = Duration::from_millis(lost_at);
                let waited = world.wait(|at, traffic| {
                    if at == lost_at {
                        lose(traffic)
                    }
                });
                assert!(waited >= lost_at + RESENT, "{waited:?} with a loss at {lost_at:?}");
            }
        }
    }

    #[test]
    fn losses_before_a_connection_do_not_count_unless_the_last_one_was_not_done() {
        let lost = Traffic { websockets: 1, ..Traffic::default() };
        let mut world = World::ended(Traffic::default());
        world.wait(|_, _| {});
        world.handover.handle_taken(lost);
        world.handover.handle_flag();
        (world.traffic, world.flagged) = (lost, Some(world.now));
        assert_eq!(world.wait(|_, _| {}), 200 * MS + TRAILING);

        let mut world = World::ended(lost);
        world.handover.handle_taken(lost);
        world.handover.handle_flag();
        assert_eq!((world.wait(|_, _| {}), world.flags), (2 * 200 * MS + RESENT, 2));
    }

    #[test]
    fn a_message_that_is_missing_is_waited_for() {
        let mut world = World::ended(Traffic { early: 10, ..Traffic::default() });
        let waited = world.wait(|at, traffic| {
            if at == 1100 * MS {
                *traffic = Traffic { received: 1, ..Traffic::default() };
            }
        });
        assert!(waited > 1100 * MS + TRAILING, "{waited:?}");
    }
}
