//! The change from one connection to the next with an agent that carries one at a time, sans-IO.
//!
//! ```text
//! handle_flag, handle_waiting,  ─▶ ┌──────────┐ ─▶ is_done, poll_timeout  (the next connection's bytes may be sent)
//! handle_contact                   │          │ ─▶ is_certain             (output is the next connection's)
//! handle_drained, if is_due     ─▶ └──────────┘
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
//!
//! A websocket that was lost with the rest on it may look alive for a while. So after one flag nothing is certain until the
//! agent has acknowledged bytes of the next connection, or the path has worked for a while without the rest. If a loss is
//! noticed before, a connection that has sent nothing yet waits once more, and output for one that has sent something may be
//! the last one's.

use std::time::{Duration, Instant};

/// Counts of a link since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Messages of the agent, repeated ones as well.
    pub received: u64,
    /// Bytes of messages that wait for one before them.
    pub early: usize,
    /// Websockets opened, and the one to be opened next in the place of a lost one.
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
    doubt: Doubt,
}

/// The losses after which output may still be the last connection's, although the agent seemed to have nothing left of it.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    None,
    /// Those of the agent's websocket.
    Pauses,
    /// Those of our websocket, too, unless it works at this time.
    Losses {
        until: Instant,
        is_checked: bool,
    },
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
        Handover { stage: Stage::Done, empty: traffic, doubt: Doubt::None }
    }

    /// Returns whether the next connection's bytes may be sent.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Returns whether output after the next connection's first bytes is its own.
    pub(crate) fn is_certain(&self, traffic: Traffic) -> bool {
        let is_ours_calm = traffic.websockets == self.empty.websockets;
        let is_agents_calm = traffic.pauses == self.empty.pauses;
        match self.doubt {
            Doubt::None => true,
            Doubt::Pauses => is_agents_calm,
            Doubt::Losses { .. } => is_agents_calm && is_ours_calm,
        }
    }

    /// The path of the last of so many websockets has worked at `at`: what had been on its way for a while has come.
    pub(crate) fn handle_contact(&mut self, at: Instant, websockets: u64) {
        if let Doubt::Losses { until, .. } = self.doubt
            && self.is_done()
            && until <= at
            && websockets == self.empty.websockets
        {
            self.doubt = Doubt::Pauses;
        }
    }

    /// The agent has acknowledged the next connection's first bytes, without a loss before.
    pub(crate) fn handle_acknowledged(&mut self) {
        self.doubt = Doubt::None;
    }

    /// Returns whether the path is to be checked now, which leads to [`Handover::handle_contact`].
    pub(crate) fn poll_check(&mut self, now: Instant) -> bool {
        match &mut self.doubt {
            Doubt::Losses { until, is_checked } if *until <= now => !std::mem::replace(is_checked, true),
            _ => false,
        }
    }

    /// A connection has the place and has sent nothing yet. Returns whether the flag is to be sent again.
    pub(crate) fn handle_waiting(&mut self, traffic: Traffic) -> bool {
        if !self.is_done() {
            return false;
        }
        if self.is_certain(traffic) {
            self.empty = traffic;
        } else {
            self.stage = Stage::Flagged(None);
        }
        !self.is_done()
    }

    /// A connection has ended: the flag for it is sent.
    pub(crate) fn handle_flag(&mut self) {
        self.stage = Stage::Flagged(None);
    }

    /// When [`Handover::is_due`] changes, or [`Handover::poll_check`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match (&self.stage, self.doubt) {
            (Stage::Quiet { until, .. }, _) => Some(*until),
            (Stage::Done, Doubt::Losses { until, is_checked: false }) => Some(until),
            (Stage::Done | Stage::Flagged(_), _) => None,
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
            Stage::Done => return false,
            Stage::Flagged(Some(since)) if since == traffic => Stage::Done,
            Stage::Flagged(_) => quiet,
            Stage::Quiet { since, .. } if !is_calm => Stage::Flagged(Some(since)),
            Stage::Quiet { since, .. } if since == traffic => Stage::Done,
            Stage::Quiet { .. } => quiet,
        };
        if self.is_done() {
            self.empty = traffic;
            // Between two flags the agent had the time to send all again.
            let losses = Doubt::Losses { until: now + RESENT, is_checked: false };
            self.doubt = if is_calm { losses } else { Doubt::None };
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

    /// The place is free, and its last connection ended without a loss.
    fn free() -> World {
        let mut world = World::ended(Traffic::default());
        world.wait(|_, _| {});
        world
    }

    #[test]
    fn a_loss_noticed_later_may_have_been_one_of_the_rest() {
        let lose: [fn(&mut Traffic); 2] = [|traffic| traffic.websockets += 1, |traffic| traffic.pauses += 1];
        for lose in lose {
            let mut world = free();
            assert!(
                world.handover.is_certain(world.traffic) && !world.handover.handle_waiting(world.traffic)
            );
            lose(&mut world.traffic);
            assert!(!world.handover.is_certain(world.traffic), "bytes that were sent before");
            assert!(world.handover.handle_waiting(world.traffic) && !world.handover.is_done());
            (world.flagged, world.flags) = (Some(world.now), 1);
            assert_eq!((world.wait(|_, _| {}), world.flags), (2 * world.round_trip + RESENT, 2));
            world.traffic.websockets += 1;
            world.traffic.pauses += 1;
            assert!(world.handover.is_certain(world.traffic), "two flags prove that nothing is left");
        }
    }

    #[test]
    fn losses_after_the_acknowledgement_of_the_next_bytes_do_not_count() {
        let mut world = free();
        world.handover.handle_acknowledged();
        world.traffic = Traffic { websockets: 1, pauses: 1, ..world.traffic };
        assert!(world.handover.is_certain(world.traffic));
    }

    /// The machine sleeps, or the service replaces the websocket each hour: the next client does not wait for that.
    #[test]
    fn losses_do_not_count_after_a_sign_of_life_without_the_rest() {
        let mut world = free();
        assert_eq!(world.handover.poll_timeout(), Some(world.now + RESENT));
        assert!(!world.handover.poll_check(world.now + RESENT - MS));
        assert!(world.handover.poll_check(world.now + RESENT), "asks for the sign of life");
        assert!(!world.handover.poll_check(world.now + RESENT) && world.handover.poll_timeout().is_none());
        world.handover.handle_contact(world.now + RESENT, world.traffic.websockets);
        world.traffic.websockets += 1;
        assert!(world.handover.is_certain(world.traffic) && !world.handover.handle_waiting(world.traffic));
        world.traffic.websockets += 1;
        assert!(world.handover.is_certain(world.traffic), "bytes were sent");
        world.traffic.pauses += 1;
        assert!(!world.handover.is_certain(world.traffic), "the agent's websocket is another");
    }

    #[test]
    fn a_sign_of_life_that_comes_too_soon_or_after_a_loss_proves_nothing() {
        for (after, lost) in [(RESENT - MS, 0), (RESENT, 1)] {
            let mut world = free();
            world.traffic.websockets += lost;
            world.handover.handle_contact(world.now + after, world.traffic.websockets);
            world.traffic.websockets += 1;
            assert!(!world.handover.is_certain(world.traffic), "{after:?} after, {lost} lost before");
        }
    }

    #[test]
    fn losses_count_until_the_last_connection_is_done() {
        let lost = Traffic { websockets: 1, ..Traffic::default() };
        let mut world = World::ended(lost);
        assert!(!world.handover.handle_waiting(lost));
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
