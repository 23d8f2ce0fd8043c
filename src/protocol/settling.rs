//! The moment after the handshake in which an agent acknowledges input and ignores it.
//!
//! An agent sends `HandshakeComplete` before it sets the flag that lets input through (agent source, `PerformHandshake`).
//! Between the two are microseconds, or the time until its machine comes back to it: with agent 3.3.1142 on two cores at a
//! load of 13 it took more than 1 ms in 11 of 1,500 sessions, and 72 ms at most. With 5 ms of waiting here, 3 of 2,500 such
//! sessions lost their first bytes. Right after that the agent refuses input, without an acknowledgement, until its port
//! handler runs. No acknowledgement proves that it listens, since it acknowledges what it ignores, too; its first output
//! does.

use std::time::{Duration, Instant};

/// Time in which the agent may not listen yet. Over from the start for sessions without a handshake.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Input waits until then.
    held_until: Option<Instant>,
    /// Tentative input is worth its repetition until then.
    until: Option<Instant>,
    has_tentative: bool,
    /// The round trip is still to be subtracted: the acknowledgement of our response comes after the agent's message.
    lacks_round_trip: bool,
}

impl Settling {
    /// The handshake is complete. The agent has had a round trip by the time the first input reaches it.
    pub(super) fn handle_complete(&mut self, now: Instant, round_trip: Option<Duration>) {
        self.held_until = Some(now + HOLD);
        self.until = Some(now + LONGEST);
        self.lacks_round_trip = true;
        round_trip.into_iter().for_each(|round_trip| self.handle_round_trip(now, round_trip));
    }

    /// A round trip was measured. What it ends is done in the next [`Settling::handle_timeout`].
    pub(super) fn handle_round_trip(&mut self, now: Instant, round_trip: Duration) {
        if std::mem::take(&mut self.lacks_round_trip) {
            let earlier = |at: Instant| at.checked_sub(round_trip).unwrap_or(now);
            self.held_until = self.held_until.map(earlier).filter(|at| *at > now);
            self.until = self.until.map(earlier).filter(|at| *at > now || self.has_tentative);
        }
    }

    /// Returns whether input has to wait, except for tentative input.
    pub(super) fn is_held(&self) -> bool {
        self.held_until.is_some()
    }

    /// Returns whether tentative input makes sense.
    pub(super) fn is_under_way(&self) -> bool {
        self.until.is_some()
    }

    /// Tentative input is sent.
    pub(super) fn handle_tentative(&mut self) {
        self.has_tentative = true;
    }

    /// Returns whether tentative input should be resent soon: the agent refuses it for a moment.
    pub(super) fn is_hasty(&self) -> bool {
        self.is_held() && self.has_tentative
    }

    /// When [`Settling::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.held_until.or(self.until)
    }

    /// Ends what is over at `now`. Returns true if tentative input is to be repeated now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.held_until = self.held_until.filter(|at| *at > now);
        self.until.is_some_and(|at| at <= now) && self.release()
    }

    /// The agent listens. Returns true if tentative input is to be repeated now.
    pub(super) fn release(&mut self) -> bool {
        *self = Settling { has_tentative: self.has_tentative, ..Settling::default() };
        std::mem::take(&mut self.has_tentative)
    }
}

/// Time from the agent's `HandshakeComplete` to the arrival of input that it must not ignore.
const HOLD: Duration = Duration::from_millis(20);
/// The same for tentative input, which need not wait and so can be repeated late.
const LONGEST: Duration = Duration::from_millis(200);
