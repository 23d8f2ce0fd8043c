//! The reliable half of receiving: order, duplicates, early messages.
//!
//! Every message that is taken is acknowledged, duplicates too: an agent resends only its oldest unacknowledged
//! message, so one lost acknowledgement that is never repeated would block it forever (smp#139).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::Message;

/// Decision about a received data message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Acknowledge, then deliver it and whatever [`Receiver::poll_ready`] gives.
    Deliver(Message),
    /// Acknowledge; it is kept until its turn.
    Held,
    /// Acknowledge; it was delivered before.
    Duplicate,
    /// Do not acknowledge: too early for our bounds. The agent sends it again.
    Refused,
}

/// Puts data messages in order.
#[derive(Debug)]
pub(super) struct Receiver {
    expected: i64,
    held: BTreeMap<i64, Message>,
    held_bytes: usize,
    /// Bytes that early messages may hold.
    limit: usize,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver { expected: 0, held: BTreeMap::new(), held_bytes: 0, limit: MAX_HELD_BYTES }
    }
}

impl Receiver {
    /// Sets the limit for early messages, [`MAX_HELD_BYTES`] at most. Those that are held stay.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes.min(MAX_HELD_BYTES);
    }

    /// Drops early messages, and keeps no more that have bytes.
    pub(super) fn discard_early(&mut self) {
        self.held.clear();
        (self.held_bytes, self.limit) = (0, 0);
    }

    /// Bytes of early messages.
    pub(super) fn early_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn handle(&mut self, mut message: Message) -> Verdict {
        let number = message.sequence;
        if number == self.expected {
            self.expected += 1;
            return Verdict::Deliver(message);
        }
        if number < self.expected || self.held.contains_key(&number) {
            return Verdict::Duplicate;
        }
        let size = message.payload.len();
        let is_near = number - self.expected <= MAX_AHEAD;
        if !is_near || self.held.len() >= MAX_HELD || self.held_bytes + size > self.limit {
            return Verdict::Refused;
        }
        self.held_bytes += size;
        // A slice would keep the whole read buffer that it lies in, which may be many times its size.
        message.payload = Bytes::copy_from_slice(&message.payload);
        self.held.insert(number, message);
        debug_assert!(
            self.held.len() <= MAX_HELD && self.held_bytes <= MAX_HELD_BYTES,
            "early messages are bounded"
        );
        Verdict::Held
    }

    /// Bytes of memory that early messages hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes + self.held.len() * size_of::<(i64, Message)>()
    }

    /// The next message whose turn has come.
    pub(super) fn poll_ready(&mut self) -> Option<Message> {
        let message = self.held.remove(&self.expected)?;
        self.held_bytes -= message.payload.len();
        self.expected += 1;
        Some(message)
    }
}

/// Largest number of early messages held (the official plugin's bound).
const MAX_HELD: usize = 10_000;
/// Largest number of bytes that early messages may hold.
const MAX_HELD_BYTES: usize = 16 << 20;
/// Largest distance of an early message (the agent's own buffer is 100,000 messages).
const MAX_AHEAD: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{MessageType, PayloadType};
    use uuid::Uuid;

    fn message(sequence: i64, size: usize) -> Message {
        Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 0,
            sequence,
            flags: 0,
            id: Uuid::nil(),
            payload_type: PayloadType::Output,
            payload: Bytes::from(vec![0; size]),
        }
    }

    #[test]
    fn early_messages_wait_for_their_turn() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.handle(message(2, 1)), Verdict::Held);
        assert_eq!(receiver.handle(message(1, 1)), Verdict::Held);
        assert_eq!(receiver.handle(message(1, 1)), Verdict::Duplicate);
        assert_eq!(receiver.poll_ready(), None);
        assert!(matches!(receiver.handle(message(0, 1)), Verdict::Deliver(_)));
        assert_eq!(receiver.poll_ready().unwrap().sequence, 1);
        assert_eq!(receiver.poll_ready().unwrap().sequence, 2);
        assert_eq!(receiver.poll_ready(), None);
        assert_eq!(receiver.handle(message(0, 1)), Verdict::Duplicate);
        assert_eq!(receiver.held_bytes, 0);
    }

    #[test]
    fn early_messages_that_are_not_wanted_are_dropped() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.handle(message(1, 1)), Verdict::Held);
        receiver.discard_early();
        assert_eq!(receiver.handle(message(2, 1)), Verdict::Refused);
        assert!(matches!(receiver.handle(message(0, 1)), Verdict::Deliver(_)));
        assert_eq!((receiver.poll_ready(), receiver.early_bytes()), (None, 0));
    }

    #[test]
    fn what_is_held_does_not_hold_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![0; 1 << 16]);
        let mut early = message(1, 0);
        early.payload = buffer.slice(100..110);
        let mut receiver = Receiver::default();
        assert_eq!(receiver.handle(early), Verdict::Held);
        assert!(buffer.is_unique());
    }

    #[test]
    fn bounds_refuse_without_acknowledging() {
        let mut receiver = Receiver::default();
        for sequence in [MAX_AHEAD + 1, i64::MAX] {
            assert_eq!(receiver.handle(message(sequence, 1)), Verdict::Refused);
        }
        assert_eq!(receiver.handle(message(-1, 1)), Verdict::Duplicate);
        assert_eq!(receiver.handle(message(i64::MIN, 1)), Verdict::Duplicate);
        for sequence in 1..=MAX_HELD as i64 {
            assert_eq!(receiver.handle(message(sequence, 0)), Verdict::Held);
        }
        assert_eq!(receiver.handle(message(MAX_HELD as i64 + 1, 0)), Verdict::Refused);

        let mut receiver = Receiver::default();
        for sequence in 1..=16 {
            assert_eq!(receiver.handle(message(sequence, 1 << 20)), Verdict::Held);
        }
        assert_eq!(receiver.handle(message(17, 1)), Verdict::Refused);
        receiver.set_limit(usize::MAX);
        assert_eq!(receiver.handle(message(17, 1)), Verdict::Refused);
        receiver.set_limit(1 << 20);
        assert_eq!((receiver.handle(message(17, 1)), receiver.early_bytes()), (Verdict::Refused, 16 << 20));
        assert!(matches!(receiver.handle(message(0, 1)), Verdict::Deliver(_)));
    }
}
