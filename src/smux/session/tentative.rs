//! Frames for a peer that may not listen yet: they are sent at once, and repeated in such a way that they count once.
//!
//! In the moment after its handshake an agent acknowledges messages and ignores them. A tentative message consists of whole
//! frames and, at its end, the header of a PSH frame of a stream that does not exist. That frame's payload is the
//! repetition of all tentative frames so far, at the beginning of the next message:
//!
//! ```text
//! message 1 | SYN 3 | PSH 3 "GET /" | PSH 1, length n |       n = length of the frames before it
//! message 2 | SYN 3 | PSH 3 "GET /" | …
//! ```
//!
//! A peer that has taken message 1 discards n bytes of message 2, as it does with data for any stream that it does not know
//! (xtaci/smux, `recvLoop`). A peer that has ignored message 1 takes them for frames. Since it ignores nothing after the first
//! message that it takes, each frame counts once in either case.

use bytes::{BufMut as _, Bytes};

use super::Session;
use crate::smux::frame::{HEADER_LEN, Header, OpenFrame, StreamId};

impl Session {
    /// Takes a message of at most `max` bytes that the peer may take or ignore as a whole. It must not be cut or joined with
    /// other bytes. `None` if nothing fits, and once anything was taken with [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn poll_tentative(&mut self, max: usize) -> Option<Bytes> {
        if self.is_settled || self.failure.is_some() {
            return None;
        }
        let max = max.min(usize::from(u16::MAX));
        let mut out = self.tentative.clone();
        // Room for this frame's header and one byte, and for the header at the end.
        while out.len() + 2 * HEADER_LEN < max {
            let room = u16::try_from(max - out.len() - 2 * HEADER_LEN).unwrap_or(u16::MAX);
            let Some(header) = self.next_frame(room.min(self.config.max_frame)) else { break };
            let mut frame = OpenFrame::new(header);
            frame.take_header(HEADER_LEN, &mut out);
            if let Some((id, count)) = frame.take_payload(max)
                && let Some(stream) = self.streams.get_mut(&id)
            {
                stream.pull(count, &mut out);
                self.buffered -= count;
            }
        }
        self.assert_invariants();
        if out.len() == self.tentative.len() {
            return None;
        }
        self.tentative.clone_from(&out);
        let length = u16::try_from(out.len()).unwrap_or(u16::MAX);
        out.put_slice(&Header::Push(NO_STREAM, length).encode());
        Some(out.freeze())
    }

    /// The peer takes everything from now on: [`poll_transmit`](Self::poll_transmit) begins with the repetition of what was
    /// tentative.
    pub fn settle(&mut self) {
        self.is_settled = true;
        if !self.tentative.is_empty() {
            self.repetition = std::mem::take(&mut self.tentative).freeze();
        }
    }
}

/// A client's number that is never used: its streams begin with 3, as those of xtaci/smux.
const NO_STREAM: StreamId = StreamId(1);
