//! Connection log of a port session: one line for each open, and one with the byte counts for each close. It is
//! over. In the log at `info`; on stderr, too, with `SSM_PLUGIN_LOG_CONNECTIONS=1` or `SSM_PLUGIN_STATUS=json`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::stream::LocalStream;
use crate::destination::Destination;
#[cfg(feature = "cli")]
use crate::output::Console;
use crate::output::{Status, sentences};

/// The connections of a run.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Lines that the loop has not shown yet, with the text for people; `None` if they are not wanted.
    lines: Option<Mutex<Vec<(Status, String)>>>,
    count: AtomicU64,
}

impl Journal {
    /// No connection yet. `is_shown`: the lines are not for the log alone.
    pub(crate) fn new(is_shown: bool) -> Arc<Journal> {
        Arc::new(Journal { lines: is_shown.then(Mutex::default), count: AtomicU64::new(0) })
    }

    /// Notes a connection that was accepted. Its end is noted when the entry is dropped.
    pub(crate) fn open(
        self: &Arc<Journal>,
        stream: &LocalStream,
        destination: Option<&Destination>,
    ) -> Entry {
        let connection = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let (from, destination) = (stream.peer(), destination.map(Destination::to_string));
        let name = match &destination {
            Some(destination) => format!("connection {connection} from {from} to {destination}"),
            None => format!("connection {connection} from {from}"),
        };
        self.note(
            Status::ConnectionOpened { connection, from, destination },
            sentences::connection_opened(&name),
        );
        Entry { journal: Arc::clone(self), connection, name, since: Instant::now(), counts: Arc::default() }
    }

    /// Prints on stderr which connections have begun and ended since the last call, where that is requested.
    #[cfg(feature = "cli")]
    pub(crate) fn show(&self, console: &mut Console) {
        self.take().iter().for_each(|(status, text)| console.note(status, text));
    }

    /// Takes what has happened since the last call, where that is wanted, with the text for people.
    pub(crate) fn take(&self) -> Vec<(Status, String)> {
        let Some(lines) = &self.lines else { return Vec::new() };
        std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, status: Status, text: String) {
        tracing::info!("{text}");
        if let Some(lines) = &self.lines {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((status, text));
        }
    }
}

/// One connection of a [`Journal`].
#[derive(Debug)]
pub(crate) struct Entry {
    journal: Arc<Journal>,
    connection: u64,
    name: String,
    since: Instant,
    counts: Arc<ByteCounts>,
}

impl Entry {
    /// Tells the connection from the others of the run.
    pub(crate) fn number(&self) -> u64 {
        self.connection
    }

    /// Returns the connection's byte counters.
    pub(crate) fn counts(&self) -> Arc<ByteCounts> {
        Arc::clone(&self.counts)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let sent = self.counts.sent.load(Ordering::Relaxed);
        let received = self.counts.received.load(Ordering::Relaxed);
        let lived = self.since.elapsed();
        let text = sentences::connection_closed(&self.name, lived, sent, received);
        let (connection, seconds) = (self.connection, lived.as_secs_f64());
        self.journal.note(Status::ConnectionClosed { connection, seconds, sent, received }, text);
    }
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct ByteCounts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounts {
    /// Read from the local side, for the remote.
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes read from the local side so far.
    #[cfg(test)]
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes written to the local side so far.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Written to the local side.
    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
