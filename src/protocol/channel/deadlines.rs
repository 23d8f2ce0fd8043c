//! Deadlines of a channel: the earliest, and what is done then.

use std::time::{Duration, Instant};

use super::{Channel, State};
use crate::protocol::api::{CloseReason, Event};

impl Channel {
    /// A deadline of [`Channel::poll_timeout`] has come. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.is_connected || self.state == State::Closed {
            return;
        }
        match self.state {
            State::Waiting { until } | State::Handshaking { until } if until <= now => {
                return self.close(CloseReason::HandshakeTimeout(self.config.handshake_timeout));
            }
            State::Refusing { until, .. } if until <= now => return self.refuse(),
            _ => {}
        }
        self.step_with_silent_agent(now);
        let is_over = self.settling.handle_timeout(now);
        self.handle_listening(is_over);
        self.report_pause(now);
        let stalled = self.sender.unacknowledged_for(now);
        if stalled >= self.config.give_up_after {
            return self.close(CloseReason::GaveUp(stalled));
        }
        if stalled >= UNACKNOWLEDGED_NOTICE && !std::mem::replace(&mut self.is_stalled, true) {
            self.events.push_back(Event::Stalled(stalled));
        }
        if let Some(sent_at) = self.sender.handle_timeout(now) {
            self.controller.on_loss(now, sent_at);
        }
        if cfg!(debug_assertions) {
            self.sender.assert_invariants();
        }
    }

    /// The beginning of a pause, or its last probe.
    pub(crate) fn paused_since(&self) -> Option<Instant> {
        self.paused
    }

    /// Since when nothing of what is outstanding has been acknowledged.
    pub(crate) fn unacknowledged_since(&self) -> Option<Instant> {
        self.sender.unacknowledged_since()
    }

    /// When [`Channel::handle_timeout`], or [`Channel::poll_transmit`] again, is due, and why.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        if !self.is_connected || self.state == State::Closed {
            return None;
        }
        let handshake = match self.state {
            State::Waiting { until } => match self.silent_agent.poll_timeout() {
                Some(at) => Some((at.min(until), "silent agent")),
                None => Some((until, "first message")),
            },
            State::Handshaking { until } => Some((until, "handshake")),
            State::Refusing { until, .. } => Some((until, "end without a data key")),
            _ => None,
        };
        let give_up = self.sender.unacknowledged_since().map(|at| {
            let (wait, reason) = if self.is_stalled {
                (self.config.give_up_after, "giving up")
            } else {
                (UNACKNOWLEDGED_NOTICE.min(self.config.give_up_after), "stall notice")
            };
            (at + wait, reason)
        });
        let delivery = self.sender.poll_timeout();
        let pacing =
            self.is_sending().then(|| self.pacer.next_at(self.is_bulk())).flatten().map(|at| (at, "pacing"));
        let probe = match self.paused {
            Some(_) if self.is_sending() => self.probe_at().map(|at| (at, "probe of a paused agent")),
            _ => None,
        };
        let send = if self.paused.is_some() { probe } else { pacing };
        let acks = self.acks.due_at().map(|at| (at, "acknowledgements"));
        let pause = self.pause_notice_at.map(|at| (at, "pause notice"));
        let settling = self.settling.poll_timeout().map(|at| (at, "agent that settles"));
        [handshake, give_up, delivery, send, acks, pause, settling]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

/// When it is worth telling that nothing is acknowledged.
const UNACKNOWLEDGED_NOTICE: Duration = Duration::from_secs(15);
