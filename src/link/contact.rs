//! The last time at which a websocket's path is known to have worked.
//!
//! A message that is read proves that only for the time of its arrival. While the websocket is not read, because a consumer
//! of the output is slow, messages wait in the machine's buffers, perhaps for longer than their path lives. So what
//! is read then proves nothing, until the websocket was found empty. A pong always proves that its ping has got through.

use std::collections::VecDeque;
use std::time::Instant;

/// Knowledge about the path of the present websocket.
#[derive(Debug)]
pub(super) struct Contact {
    last: Instant,
    /// Messages have been waiting.
    is_behind: bool,
    /// Times of pings without a pong, oldest first.
    pings: VecDeque<Instant>,
}

impl Contact {
    /// For a websocket opened at `now`.
    pub(super) fn new(now: Instant) -> Contact {
        Contact { last: now, is_behind: false, pings: VecDeque::new() }
    }

    /// The last time at which the path worked.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// A message was read.
    pub(super) fn handle_message(&mut self, now: Instant) {
        if !self.is_behind {
            self.last = now;
        }
    }

    /// The message is a pong. The peer may answer several pings with one; then this one counts for an older ping.
    pub(super) fn handle_pong(&mut self) {
        if let Some(sent) = self.pings.pop_front() {
            self.last = self.last.max(sent);
        }
    }

    /// A ping was sent.
    pub(super) fn handle_ping(&mut self, now: Instant) {
        if self.pings.len() < MAX_PINGS {
            self.pings.push_back(now);
        }
    }

    /// The websocket is not being read.
    pub(super) fn handle_unread(&mut self) {
        self.is_behind = true;
    }

    /// Everything that had arrived has been read.
    pub(super) fn handle_empty(&mut self) {
        self.is_behind = false;
    }
}

/// Pings that are remembered. While the websocket is not read, one is sent each interval.
const MAX_PINGS: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_message_that_waited_says_nothing_about_the_present() {
        let start = Instant::now();
        let mut contact = Contact::new(start);
        contact.handle_message(start + SECOND);
        assert_eq!(contact.last(), start + SECOND);
        contact.handle_unread();
        contact.handle_message(start + 60 * SECOND);
        contact.handle_message(start + 61 * SECOND);
        assert_eq!(contact.last(), start + SECOND);
        contact.handle_empty();
        contact.handle_message(start + 62 * SECOND);
        assert_eq!(contact.last(), start + 62 * SECOND);
    }

    #[test]
    fn a_pong_that_waited_says_that_its_ping_got_through() {
        let start = Instant::now();
        let mut contact = Contact::new(start);
        contact.handle_ping(start + SECOND);
        contact.handle_unread();
        for number in 0..100 {
            contact.handle_ping(start + (30 + number) * SECOND);
        }
        contact.handle_message(start + 200 * SECOND);
        contact.handle_pong();
        assert_eq!(contact.last(), start + SECOND);
        contact.handle_pong();
        assert_eq!(contact.last(), start + 30 * SECOND);
    }
}
