//! Frames: an incremental parser and the header's encoding.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 8;

/// Names one stream of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    /// The number on the wire.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Result of [`Decoder::next`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The peer opens a stream.
    Syn(StreamId),
    /// The peer will send no more on a stream.
    Fin(StreamId),
    /// Payload of a stream, never empty: a whole frame's, or the part of it that has arrived.
    Push(StreamId, Bytes),
    /// A sign of life.
    Nop,
}

/// The byte stream is not smux version 1. There is no way to find the next frame after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The version field is not 1.
    #[error("smux frame of version {0}, expected 1")]
    Version(u8),
    /// A command that version 1 does not have.
    #[error("smux frame with unknown command {0}")]
    Command(u8),
    /// A payload after a command that has none. Go's smux would take it for the next header.
    #[error("smux frame with command {command} has a payload of {length} bytes, expected none")]
    ControlPayload {
        /// The command field.
        command: u8,
        /// The length field, in bytes.
        length: u16,
    },
}

/// Parses a byte stream that arrives in pieces of any size. Keeps at most one partial header; payload is
/// handed out as it arrives, sliced from the input without a copy.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_LEN],
    /// Valid bytes of `header`; reset once the header has been read.
    filled: usize,
    /// The PSH frame whose payload is arriving, and the bytes of it still to come, never 0.
    payload: Option<(StreamId, usize)>,
}

impl Decoder {
    /// Takes the next frame (or part of a payload) off the front of `input`; `None` once `input` is empty.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. The same error is then returned by every later call.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some((id, left)) = self.payload {
                if input.is_empty() {
                    return Ok(None);
                }
                let part = input.split_to(left.min(input.len()));
                self.payload = Some((id, left - part.len())).filter(|&(_, left)| left > 0);
                return Ok(Some(Frame::Push(id, part)));
            }

            let take = (HEADER_LEN - self.filled).min(input.len());
            input.copy_to_slice(&mut self.header[self.filled..self.filled + take]);
            self.filled += take;
            // Judged before the header is complete: what is no smux at all may be shorter than that.
            if self.filled > 0 && self.header[0] != VERSION {
                return Err(FrameError::Version(self.header[0]));
            }
            if self.filled > 1 && self.header[1] > NOP {
                return Err(FrameError::Command(self.header[1]));
            }
            if self.filled < HEADER_LEN {
                return Ok(None);
            }

            let [_, command, l0, l1, s0, s1, s2, s3] = self.header;
            let length = u16::from_le_bytes([l0, l1]);
            let id = StreamId(u32::from_le_bytes([s0, s1, s2, s3]));
            if command != PSH && length > 0 {
                return Err(FrameError::ControlPayload { command, length });
            }
            self.filled = 0;
            match command {
                SYN => return Ok(Some(Frame::Syn(id))),
                FIN => return Ok(Some(Frame::Fin(id))),
                NOP => return Ok(Some(Frame::Nop)),
                _ => self.payload = Some((id, usize::from(length))).filter(|&(_, left)| left > 0),
            }
        }
    }
}

/// The header of a frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Syn(StreamId),
    Fin(StreamId),
    Push(StreamId, u16),
    Nop,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let (command, length, id) = match self {
            Header::Syn(id) => (SYN, 0, id),
            Header::Fin(id) => (FIN, 0, id),
            Header::Push(id, length) => (PSH, length, id),
            Header::Nop => (NOP, 0, StreamId(0)),
        };
        let [l0, l1] = length.to_le_bytes();
        let [s0, s1, s2, s3] = id.0.to_le_bytes();
        [VERSION, command, l0, l1, s0, s1, s2, s3]
    }
}

/// The frame that is being sent: what of it has not been handed out.
#[derive(Debug, Default)]
pub(super) struct OpenFrame {
    header: [u8; HEADER_LEN],
    header_left: usize,
    payload: Option<(StreamId, usize)>,
}

impl OpenFrame {
    pub(super) fn new(header: Header) -> Self {
        let payload = match header {
            Header::Push(id, length) => Some((id, usize::from(length))),
            _ => None,
        };
        Self { header: header.encode(), header_left: HEADER_LEN, payload }
    }

    pub(super) fn is_done(&self) -> bool {
        self.header_left == 0 && self.payload.is_none()
    }

    /// Bytes of the header still to be sent.
    #[cfg(test)]
    pub(super) fn header_left(&self) -> usize {
        self.header_left
    }

    /// Payload still to be sent.
    pub(super) fn payload(&self) -> Option<(StreamId, usize)> {
        self.payload
    }

    /// Moves what fits into `room` bytes of the header to `out`.
    pub(super) fn take_header(&mut self, room: usize, out: &mut BytesMut) {
        let rest = &self.header[HEADER_LEN - self.header_left..];
        let count = rest.len().min(room);
        out.put_slice(&rest[..count]);
        self.header_left -= count;
    }

    /// Claims what fits into `room` bytes of the payload, once the header is out.
    pub(super) fn take_payload(&mut self, room: usize) -> Option<(StreamId, usize)> {
        let (id, left) = self.payload.filter(|_| self.header_left == 0)?;
        let count = left.min(room);
        self.payload = Some((id, left - count)).filter(|&(_, left)| left > 0);
        Some((id, count))
    }
}

const VERSION: u8 = 1;
const SYN: u8 = 0;
const FIN: u8 = 1;
const PSH: u8 = 2;
const NOP: u8 = 3;
