//! Outgoing acknowledgements: those still to be sent, and those that a lost socket may have dropped.
//!
//! An agent looks at its oldest unacknowledged message ten times a second and at no other. So a hundred
//! acknowledgements lost with a socket hold it up for ten seconds, and nothing new moves meanwhile. We cannot know
//! which were lost, but saying the latest again costs nothing: agents ignore what they know.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Acknowledgement frames in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: VecDeque<Bytes>,
    recent: VecDeque<(Instant, Bytes)>,
}

impl Acks {
    /// One more to be written.
    pub fn push(&mut self, now: Instant, ack: Bytes) {
        while self.recent.len() >= MAX_RECENT
            || self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT)
        {
            self.recent.pop_front();
        }
        self.recent.push_back((now, ack.clone()));
        self.waiting.push_back(ack);
    }

    /// Whether so many wait to be written that no more may come up: the peer sends and does not read.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// The next one to write.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.waiting.pop_front()
    }

    /// The socket is gone: nothing is written until the next one.
    pub fn handle_lost(&mut self) {
        self.waiting.clear();
    }

    /// There is a new socket: says again what the old one may have lost.
    pub fn handle_reopen(&mut self) {
        self.waiting = self.recent.iter().map(|(_, ack)| ack.clone()).collect();
    }
}

/// How long before the last acknowledgement one may have been sent and be lost: more than a round trip, so that at the
/// rate that agents keep to it is a thousand frames at most.
const RECENT: Duration = Duration::from_secs(1);
const MAX_RECENT: usize = 4_096;
/// About 3 MB of frames.
const MAX_WAITING: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(number: u32) -> Bytes {
        Bytes::from(number.to_be_bytes().to_vec())
    }

    fn drain(acks: &mut Acks) -> Vec<Bytes> {
        std::iter::from_fn(|| acks.pop()).collect()
    }

    #[test]
    fn the_latest_are_said_again_on_a_new_socket() {
        let start = Instant::now();
        let mut acks = Acks::default();
        acks.push(start, ack(0));
        for number in 1..4 {
            acks.push(start + RECENT + Duration::from_millis(number.into()), ack(number));
        }
        assert_eq!(acks.pop(), Some(ack(0)));
        acks.handle_lost();
        assert_eq!(acks.pop(), None);
        acks.handle_reopen();
        assert_eq!(drain(&mut acks), [ack(1), ack(2), ack(3)]);
        // Twice in a row: nothing says that the second socket lived.
        acks.handle_lost();
        acks.handle_reopen();
        assert_eq!(drain(&mut acks).len(), 3);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let now = Instant::now();
        let mut acks = Acks::default();
        for number in 0..2 * MAX_RECENT as u32 {
            acks.push(now, ack(number));
            acks.pop();
        }
        acks.handle_reopen();
        let said = drain(&mut acks);
        assert_eq!(said.len(), MAX_RECENT);
        assert_eq!(said.last(), Some(&ack(2 * MAX_RECENT as u32 - 1)));
    }
}
