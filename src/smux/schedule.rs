//! The order in which streams send.

use std::collections::VecDeque;

use super::frame::StreamId;

/// Two queues, as in fq_codel: streams that just got something to send come before those that keep sending.
///
/// A stream that has had its turn goes to the end of `waiting` even when it has nothing left, and leaves only
/// when its turn comes up empty. Otherwise a stream that always refills just after it ran dry would always
/// come first.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    fresh: VecDeque<StreamId>,
    waiting: VecDeque<StreamId>,
}

impl Schedule {
    /// Lines up a stream that is in neither queue.
    pub(super) fn wake(&mut self, id: StreamId) {
        self.fresh.push_back(id);
    }

    /// Takes the stream whose turn it is.
    pub(super) fn next(&mut self) -> Option<StreamId> {
        self.fresh.pop_front().or_else(|| self.waiting.pop_front())
    }

    /// Lines up a stream again after its turn.
    pub(super) fn requeue(&mut self, id: StreamId) {
        self.waiting.push_back(id);
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, id: StreamId) {
        self.fresh.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
    }

    /// The streams lined up, in the order of their turns.
    pub(super) fn iter(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.fresh.iter().chain(&self.waiting).copied()
    }

    /// Streams lined up.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.waiting.len()
    }
}

/// The stream that is sending.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: StreamId,
    /// Something was sent.
    pub(super) served: bool,
    /// Its PSH frame was sent.
    pub(super) pushed: bool,
}

impl Turn {
    pub(super) fn new(id: StreamId) -> Self {
        Self { id, served: false, pushed: false }
    }
}
