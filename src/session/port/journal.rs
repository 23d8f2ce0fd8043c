//! What becomes of each local connection of a port session: a line when it comes, and one with its byte counts when
//! it is over. In the log at `info`; on stderr, too, with `SSM_PLUGIN_LOG_CONNECTIONS=1`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::super::console::Console;
use super::local_stream::LocalStream;
use crate::notice;

/// The connections of one port session, further sessions behind the port included.
#[derive(Debug)]
pub(super) struct Journal {
    /// Lines for stderr that the session's loop has not taken yet; `None` when nobody wants them there.
    lines: Option<Mutex<Vec<String>>>,
    count: AtomicU64,
}

impl Journal {
    /// No connection yet. With `is_shown` the lines are kept for [`Journal::show`].
    pub fn new(is_shown: bool) -> Arc<Journal> {
        Arc::new(Journal { lines: is_shown.then(Mutex::default), count: AtomicU64::new(0) })
    }

    /// Notes a connection that was accepted. Its end is noted when the entry is dropped.
    pub fn open(self: &Arc<Journal>, stream: &LocalStream) -> Entry {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Entry {
            journal: Arc::clone(self),
            name: format!("connection {number} from {}", stream.peer()),
            since: Instant::now(),
            counts: Arc::default(),
        };
        self.note(notice::connection_opened(&entry.name));
        entry
    }

    /// Says on stderr what has become of connections since the last call, where that is asked for.
    pub fn show(&self, console: &mut Console) {
        let Some(lines) = &self.lines else { return };
        for line in std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)) {
            console.note(&line);
        }
    }

    fn note(&self, line: String) {
        tracing::info!("{line}");
        if let Some(lines) = &self.lines {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

/// One connection of a [`Journal`].
#[derive(Debug)]
pub(super) struct Entry {
    journal: Arc<Journal>,
    name: String,
    since: Instant,
    counts: Arc<ByteCounts>,
}

impl Entry {
    /// What counts the connection's bytes.
    pub fn counts(&self) -> Arc<ByteCounts> {
        Arc::clone(&self.counts)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let sent = self.counts.sent.load(Ordering::Relaxed);
        let received = self.counts.received.load(Ordering::Relaxed);
        self.journal.note(notice::connection_closed(&self.name, self.since.elapsed(), sent, received));
    }
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct ByteCounts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounts {
    /// Read from the local side, for the remote.
    pub fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Written to the local side.
    pub fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
