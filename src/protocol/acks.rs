//! Outgoing acknowledgements: those still to be sent, and those that a lost socket may have dropped.
//!
//! An agent looks at its oldest unacknowledged message ten times a second and at no other. So a hundred
//! acknowledgements lost with a socket hold it up for ten seconds, and nothing new moves until then. We cannot know
//! which were lost, but resending the latest costs nothing: agents ignore duplicates.
//!
//! A lone acknowledgement goes at once. Those that follow it within [`SHARED_FOR`] wait for each other, or for data that
//! goes anyway: an agent sends a message each millisecond, and a write with its TLS record for each acknowledgement was
//! half of what a download costs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Acknowledgement frames in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: VecDeque<Bytes>,
    recent: VecDeque<(Instant, Bytes)>,
    /// Until when those that wait may share a write with others.
    due_at: Option<Instant>,
    last_written: Option<Instant>,
}

impl Acks {
    /// One more to be written.
    pub(super) fn push(&mut self, now: Instant, ack: Bytes) {
        while self.recent.len() >= MAX_RECENT
            || self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT)
        {
            self.recent.pop_front();
        }
        self.recent.push_back((now, ack.clone()));
        if self.waiting.is_empty() {
            self.due_at = self.last_written.map(|at| at + SHARED_FOR);
        }
        self.waiting.push_back(ack);
        if self.waiting.len() >= MAX_SHARED {
            self.due_at = None;
        }
    }

    /// Returns true while too many wait to be written: no more frames should be read, since the peer sends and does not read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Bytes of memory that frames hold; those that wait are among the recent ones, or were.
    pub(super) fn held_bytes(&self) -> usize {
        let recent = self.recent.iter().map(|(_, ack)| ack);
        self.waiting.iter().chain(recent).map(|ack| ack.len() + size_of::<(Instant, Bytes)>()).sum()
    }

    /// The next one to write now. `with_data`: data is written at the same time, so that it need not wait for others.
    pub(super) fn pop(&mut self, now: Instant, with_data: bool) -> Option<Bytes> {
        if !with_data && self.due_at.is_some_and(|at| at > now) {
            return None;
        }
        let ack = self.waiting.pop_front()?;
        self.last_written = Some(now);
        Some(ack)
    }

    /// When the waiting acknowledgements are written in any case; `None` if none waits, or if they may be written now.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at.filter(|_| !self.waiting.is_empty())
    }

    /// All that wait, at once.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Bytes> {
        self.waiting.drain(..)
    }

    /// Releases the waiting acknowledgements for the next write.
    pub(super) fn release(&mut self) {
        self.due_at = None;
    }

    /// The socket is gone: nothing is written until the next one.
    pub(super) fn handle_lost(&mut self) {
        self.waiting.clear();
    }

    /// There is a new socket: says again what the old one may have lost.
    pub(super) fn handle_reopen(&mut self) {
        self.waiting = self.recent.iter().map(|(_, ack)| ack.clone()).collect();
        self.due_at = None;
    }
}

/// Time that an acknowledgement may wait for others: a fiftieth of the agent's shortest retransmission timeout
/// (200 ms).
const SHARED_FOR: Duration = Duration::from_millis(4);
/// This many do not wait for more.
const MAX_SHARED: usize = 16;
/// After a lost socket, acknowledgements up to this old are sent again. Longer than a round trip; at the rate that agents
/// keep to, it is a thousand frames at most.
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
        std::iter::from_fn(|| acks.pop(Instant::now(), true)).collect()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_one_goes_at_once_and_those_behind_it_together() {
        let start = Instant::now();
        let mut acks = Acks::default();
        acks.push(start, ack(0));
        assert_eq!((acks.due_at(), acks.pop(start, false)), (None, Some(ack(0))));
        for number in 1..4 {
            let now = start + MS * number;
            acks.push(now, ack(number));
            assert_eq!((acks.due_at(), acks.pop(now, false)), (Some(start + SHARED_FOR), None));
        }
        let due = start + SHARED_FOR;
        for number in 1..4 {
            assert_eq!(acks.pop(due, false), Some(ack(number)));
        }
        assert_eq!((acks.due_at(), acks.pop(due, false)), (None, None));
        // The next has company no more.
        let later = due + SHARED_FOR;
        acks.push(later, ack(4));
        assert_eq!(acks.pop(later, false), Some(ack(4)));
    }

    #[test]
    fn what_goes_anyway_takes_them_along_and_many_do_not_wait() {
        let start = Instant::now();
        let mut acks = Acks::default();
        acks.push(start, ack(0));
        acks.pop(start, false);
        acks.push(start, ack(1));
        assert_eq!(acks.pop(start, false), None);
        assert_eq!(acks.pop(start, true), Some(ack(1)));
        for number in 0..MAX_SHARED as u32 {
            assert_eq!(acks.pop(start, false), None);
            acks.push(start, ack(number));
        }
        assert_eq!(std::iter::from_fn(|| acks.pop(start, false)).count(), MAX_SHARED);
    }

    #[test]
    fn the_latest_are_repeated_on_a_new_socket() {
        let start = Instant::now();
        let mut acks = Acks::default();
        acks.push(start, ack(0));
        for number in 1..4 {
            acks.push(start + RECENT + Duration::from_millis(number.into()), ack(number));
        }
        assert_eq!(acks.pop(start, true), Some(ack(0)));
        acks.handle_lost();
        assert_eq!(acks.pop(start, true), None);
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
            acks.pop(now, true);
        }
        acks.handle_reopen();
        let said = drain(&mut acks);
        assert_eq!(said.len(), MAX_RECENT);
        assert_eq!(said.last(), Some(&ack(2 * MAX_RECENT as u32 - 1)));
    }
}
