//! Choice of the next bytes to send: the turns of the streams.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Session;
use crate::smux::frame::{HEADER_LEN, Header, OpenFrame, StreamId};
use crate::smux::schedule::Turn;
use crate::smux::stream::{Next, Stream};

impl Session {
    /// Takes at most `max` bytes of the outgoing byte stream, filled as far as there is anything to send.
    /// Frames may be cut between two calls.
    #[must_use]
    pub fn poll_transmit(&mut self, max: usize) -> Option<Bytes> {
        if self.failure.is_some() {
            return None;
        }
        // Anything else would be taken for the repetition.
        if !self.tentative.is_empty() && self.has_frames() {
            self.settle();
        }
        let mut out = BytesMut::new();
        out.put(self.repetition.split_to(max.min(self.repetition.len())));
        while out.len() < max {
            if self.frame.is_done() {
                let Some(header) = self.next_frame(self.config.max_frame) else { break };
                self.frame = OpenFrame::new(header);
            }
            out.reserve((max - out.len()).min(HEADER_LEN + self.buffered));
            self.frame.take_header(max - out.len(), &mut out);
            if let Some((id, count)) = self.frame.take_payload(max - out.len())
                && let Some(stream) = self.streams.get_mut(&id)
            {
                stream.pull(count, &mut out);
                self.buffered -= count;
            }
        }
        self.is_settled |= !out.is_empty();
        self.assert_invariants();
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Returns whether [`poll_transmit`](Self::poll_transmit) has something to give.
    pub fn has_transmit(&self) -> bool {
        self.failure.is_none() && (!self.repetition.is_empty() || self.has_frames())
    }

    fn has_frames(&self) -> bool {
        let mut waiting = self.turn.iter().map(|turn| turn.id).chain(self.schedule.iter());
        self.nop
            || !self.frame.is_done()
            || waiting.any(|id| self.streams.get(&id).is_some_and(Stream::has_transmit))
    }

    /// Begins the next frame: a NOP, or one of the stream whose turn it is, with at most `max_payload` bytes. A turn is SYN,
    /// one PSH and FIN, as far as each is due.
    pub(super) fn next_frame(&mut self, max_payload: u16) -> Option<Header> {
        if std::mem::take(&mut self.nop) {
            return Some(Header::Nop);
        }
        loop {
            let turn = match &mut self.turn {
                Some(turn) => turn,
                none => none.insert(Turn::new(self.schedule.next()?)),
            };
            let id = turn.id;
            let next = self.streams.get_mut(&id).and_then(|stream| stream.next(turn.pushed, max_payload));
            match next {
                Some(Next::Syn) => {
                    turn.served = true;
                    return Some(Header::Syn(id));
                }
                Some(Next::Push(length)) => {
                    turn.served = true;
                    turn.pushed = true;
                    return Some(Header::Push(id, length));
                }
                Some(Next::Fin) => {
                    self.turn = None;
                    self.unschedule(id);
                    self.remove_if_over(id);
                    return Some(Header::Fin(id));
                }
                None => {
                    if turn.served {
                        self.schedule.requeue(id);
                    } else {
                        self.unschedule(id);
                    }
                    self.turn = None;
                }
            }
        }
    }

    pub(super) fn wake(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
        {
            stream.scheduled = true;
            self.schedule.wake(id);
        }
    }

    fn unschedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.scheduled = false;
        }
    }
}
