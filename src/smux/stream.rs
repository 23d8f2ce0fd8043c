//! The state of one stream.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

/// One stream: its sending queue and how far each direction has come.
#[derive(Debug)]
pub(super) struct Stream {
    /// Bytes to send, those of a frame that is half on its way included. Copied in and out, so that what it
    /// occupies follows from what it holds, however small the pieces were.
    queue: VecDeque<u8>,
    /// SYN is still to be sent.
    opening: bool,
    pub(super) send: SendState,
    pub(super) receive: ReceiveState,
    /// In the schedule, or having its turn.
    pub(super) scheduled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// FIN follows the queue.
    Finishing,
    /// FIN has been handed out; the stream never has anything to send again.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveState {
    Open,
    /// The caller wants no more; FIN has not come yet.
    GivenUp,
    Finished,
}

/// The next frame of a stream.
pub(super) enum Next {
    Syn,
    Push(u16),
    Fin,
}

impl Stream {
    pub(super) fn opened() -> Self {
        Self { opening: true, ..Self::accepted() }
    }

    pub(super) fn accepted() -> Self {
        Self {
            queue: VecDeque::new(),
            opening: false,
            send: SendState::Open,
            receive: ReceiveState::Open,
            scheduled: false,
        }
    }

    /// Bytes queued.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The SYN has not been handed out: the peer knows nothing of this stream.
    pub(super) fn is_unsent(&self) -> bool {
        self.opening
    }

    pub(super) fn has_transmit(&self) -> bool {
        self.opening || !self.queue.is_empty() || self.send == SendState::Finishing
    }

    /// Nothing will be sent any more and nothing more is wanted.
    pub(super) fn is_over(&self) -> bool {
        self.send == SendState::Finished && self.receive != ReceiveState::Open
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.queue.extend(data);
    }

    /// Moves `count` bytes of the queue to `out`.
    pub(super) fn pull(&mut self, count: usize, out: &mut BytesMut) {
        let count = count.min(self.queue.len());
        let (front, back) = self.queue.as_slices();
        let split = count.min(front.len());
        out.put_slice(&front[..split]);
        out.put_slice(&back[..count - split]);
        self.queue.drain(..count);
        if self.queue.is_empty() && self.queue.capacity() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
    }

    /// Drops the queue but for its first `kept` bytes; returns how many were dropped.
    pub(super) fn discard(&mut self, kept: usize) -> usize {
        let dropped = self.queue.len().saturating_sub(kept);
        self.queue.truncate(kept);
        dropped
    }

    /// The next frame of this turn; `pushed` says that the turn's payload has been sent.
    pub(super) fn next(&mut self, pushed: bool, max_frame: u16) -> Option<Next> {
        if self.opening {
            self.opening = false;
            return Some(Next::Syn);
        }
        if !self.queue.is_empty() {
            let length = u16::try_from(self.queue.len()).unwrap_or(u16::MAX).min(max_frame);
            return (!pushed).then_some(Next::Push(length));
        }
        if self.send == SendState::Finishing {
            self.send = SendState::Finished;
            return Some(Next::Fin);
        }
        None
    }
}

/// Capacity that an empty queue keeps, in bytes. Idle connections are the common ones.
const KEPT_CAPACITY: usize = 4 * 1024;
