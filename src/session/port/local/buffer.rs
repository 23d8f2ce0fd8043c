//! Bytes that wait for a local client, and the order in which it gets them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::queue::{Batch, ByteQueue};

/// Bytes that wait for the local side.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    more: Notify,
}

/// Content of a [`Buffer`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Not from the remote, but from us: the few bytes of a proxy's answers, before all else.
    pub replies: Vec<u8>,
    pub data: ByteQueue,
    /// The task writes what it has taken.
    is_writing: bool,
    pub is_ended: bool,
}

/// The next thing to do for the local side.
pub(super) enum Order {
    Reply(Vec<u8>),
    Data(Batch),
    End,
}

impl Buffer {
    /// Changes what waits, and wakes the task.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let changed = change(&mut self.lock());
        self.more.notify_one();
        changed
    }

    /// Returns the next order, as soon as there is one. Cancel-safe.
    pub(super) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.lock().next() {
                return order;
            }
            self.more.notified().await;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The next order; the one before has been carried out.
    fn next(&mut self) -> Option<Order> {
        self.is_writing = true;
        if !self.replies.is_empty() {
            return Some(Order::Reply(std::mem::take(&mut self.replies)));
        }
        if !self.data.is_empty() {
            return Some(Order::Data(self.data.take()));
        }
        self.is_writing = self.is_ended;
        self.is_ended.then_some(Order::End)
    }

    /// Returns whether bytes may be written past the queue.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_writing && !self.is_ended && self.replies.is_empty() && self.data.is_empty()
    }
}
