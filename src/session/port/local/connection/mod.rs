//! One local connection of a port session: two queues with a socket at their end.
//!
//! A task owns the socket. Upwards it hands over one chunk and waits until [`Connection::grant`] asks for the next, so
//! what it reads ahead is bounded by [`CHUNK`]. Downwards it takes whatever it is given; the session looks at its
//! [`Gauge`], which counts the memory that is held, before it reads more from the channel, so that one slow reader neither
//! stops the others nor fills the memory.
//!
//! A session that has nothing more for a connection releases it. Its task then delivers what is queued, for as long as the
//! reader takes something within [`PATIENCE`], and the memory counts until the task has ended.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, mpsc, watch};

use crate::queue::ByteQueue;
use crate::session::port::core::{CHUNK, Report};
use crate::session::port::local::buffer::{Buffer, Order};
use crate::session::port::local::gauge::{Gauge, Load};
use crate::session::port::local::journal::{ByteCounts, Entry};
use crate::session::port::local::stream::LocalStream;
use crate::session::port::proxy::{Preface, Protocol, Reply, encode};

/// The session's handle on a connection. Dropping it breaks the connection off: a reset, unless the end of the remote's
/// output was delivered, so that no client takes a part of a download for the whole.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Arc<LocalStream>,
    down: Arc<Buffer>,
    credit: Arc<Notify>,
    load: Arc<Load>,
    task: tokio::task::AbortHandle,
    /// Protocol of the proxy client that waits for an answer.
    protocol: Option<Protocol>,
    stage: watch::Sender<Stage>,
    counts: Arc<ByteCounts>,
    /// Notes the connection's end in the journal when this is dropped.
    _entry: Entry,
}

/// Relation of a connection to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Carried,
    /// The session has nothing more for it.
    Released,
    /// The same, and the local side is not waited for after the end.
    Dismissed,
}

impl Connection {
    /// Starts a connection's task, which reports with `tag` on `reports`. Its first chunk is requested already.
    pub(crate) fn start<T: Copy + Send + 'static>(
        stream: LocalStream,
        preface: Preface,
        tag: T,
        reports: mpsc::Sender<(T, Report)>,
        entry: Entry,
    ) -> Connection {
        let Preface { protocol, early } = preface;
        let (stream, down) = (Arc::new(stream), Arc::new(Buffer::default()));
        let credit = Arc::new(Notify::new());
        credit.notify_one();
        let load = Arc::new(Load::default());
        let (asked, counts) = (credit.clone(), entry.counts());
        let (socket, tally) = (Unfinished { stream: stream.clone(), is_done: false }, counts.clone());
        let (stage, seen) = watch::channel(Stage::Carried);
        let held = Held { down: down.clone(), load: load.clone() };
        let task = tokio::spawn(async move {
            // As a whole: captured by its fields, it would be reset too early, or not at all.
            let mut socket = socket;
            let up = read_all(&socket.stream, early, tag, reports.clone(), asked, &tally);
            let writing = write_all(&socket.stream, &held, &tally, seen.clone());
            let carried = carry(up, writing, &seen).await;
            socket.is_done = carried.is_ok();
            drop(held);
            if carried.is_err() {
                let _ = reports.send((tag, Report::Reset)).await;
            }
            let _ = reports.send((tag, Report::Closed)).await;
        });
        let task = task.abort_handle();
        Connection { stream, down, credit, load, task, protocol, stage, counts, _entry: entry }
    }

    /// Counts the bytes that wait for its reader to this session from here on. To be called before
    /// [`Connection::write`].
    pub(crate) fn join(&self, gauge: &Arc<Gauge>) {
        self.load.join(gauge);
    }

    /// Asks for the next chunk.
    pub(crate) fn grant(&self) {
        self.credit.notify_one();
    }

    /// Writes bytes to the local side: many at once if nothing waits, so that they are not copied; else through the queue.
    pub(crate) fn write(&self, mut bytes: &[u8]) {
        if bytes.len() >= DIRECT && self.down.lock().is_idle() {
            // The task meets the error, if there is one.
            let count = self.stream.try_write(bytes).unwrap_or_default();
            self.counts.add_received(count);
            bytes = bytes.get(count..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
        }
        self.load.add(self.down.change(|waiting| waiting.data.push(bytes)));
    }

    /// Returns whether nothing waits for the reader here. The system may still hold some.
    pub(crate) fn is_drained(&self) -> bool {
        self.down.lock().is_idle()
    }

    /// Answers a proxy client, before anything of the remote. The clients of other ports wait for no answer.
    pub(crate) fn reply(&self, reply: Reply) {
        let bytes = self.protocol.map(|protocol| encode(protocol, reply)).unwrap_or_default();
        self.down.change(|waiting| waiting.replies.extend_from_slice(&bytes));
    }

    /// Closes the connection as soon as an answer is written.
    pub(crate) fn dismiss(self) {
        self.end();
        self.leave(Stage::Dismissed);
    }

    /// Leaves the connection, whose end is queued, to deliver what is queued before.
    pub(crate) fn release(self) {
        self.leave(Stage::Released);
    }

    /// The remote side has ended: after what is queued, the local side sees the end too.
    pub(crate) fn end(&self) {
        // Whatever the local side still sends is read and dropped from here on.
        self.credit.notify_one();
        self.down.change(|waiting| waiting.is_ended = true);
    }

    fn leave(&self, stage: Stage) {
        self.stage.send_replace(stage);
        self.load.release(self.task.clone());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if *self.stage.borrow() == Stage::Carried {
            self.task.abort();
            self.load.clear();
        }
    }
}

/// Runs both directions to the end of writing. The end of reading does not end writing; the end of writing leaves a while
/// to read what comes, unless the connection is dismissed.
async fn carry(
    up: impl Future<Output = ()>,
    writing: impl Future<Output = io::Result<()>>,
    stage: &watch::Receiver<Stage>,
) -> io::Result<()> {
    let (mut up, mut writing) = (std::pin::pin!(up), std::pin::pin!(writing));
    let mut is_reading = true;
    loop {
        tokio::select! {
            () = &mut up, if is_reading => is_reading = false,
            written = &mut writing => {
                written?;
                break;
            }
        }
    }
    if is_reading {
        // Closing with unread input would reset the connection and destroy what the reader has not seen yet.
        let linger = if *stage.borrow() == Stage::Dismissed { Duration::ZERO } else { LINGER };
        let _ = tokio::time::timeout(linger, up).await;
    }
    Ok(())
}

/// A socket that is reset when this is dropped before the end.
struct Unfinished {
    stream: Arc<LocalStream>,
    is_done: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done {
            self.stream.reset();
        }
    }
}

/// Bytes that wait for a connection's reader, given up when this is dropped: when the task ends in any way.
struct Held {
    down: Arc<Buffer>,
    load: Arc<Load>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.down.lock().data = ByteQueue::default();
        self.load.clear();
    }
}

/// Reports what the local side sends, `early` data first.
async fn read_all<T: Copy>(
    reader: &LocalStream,
    mut early: BytesMut,
    tag: T,
    reports: mpsc::Sender<(T, Report)>,
    credit: Arc<Notify>,
    counts: &ByteCounts,
) {
    let mut buffer = BytesMut::new();
    let mut has_hung_up = false;
    loop {
        tokio::select! {
            biased;
            () = credit.notified() => {}
            () = reader.hung_up(), if !has_hung_up => {
                has_hung_up = true;
                if reports.send((tag, Report::HungUp)).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if buffer.capacity() < MIN_READ {
            buffer.reserve(CHUNK);
        }
        let read = match early.len() {
            0 => reader.read_buf(&mut buffer).await,
            count => {
                buffer.unsplit(std::mem::take(&mut early));
                Ok(count)
            }
        };
        let report = match read {
            Ok(0) => Report::InputEnded,
            Ok(count) => {
                counts.add_sent(count);
                Report::Data(buffer.split().freeze())
            }
            Err(error) => {
                tracing::debug!(%error, "a local connection was broken off");
                Report::Reset
            }
        };
        let is_last = !matches!(report, Report::Data(_));
        if reports.send((tag, report)).await.is_err() || is_last {
            return;
        }
    }
}

async fn write_all(
    writer: &LocalStream,
    held: &Held,
    counts: &ByteCounts,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    loop {
        match held.down.next().await {
            Order::Reply(bytes) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let count = write_some(writer, &[IoSlice::new(rest)], &mut stage).await?;
                    rest = rest.get(count..).unwrap_or_default();
                }
            }
            Order::Data(mut batch) => {
                while !batch.is_empty() {
                    let count = write_some(writer, &batch.slices(), &mut stage).await?;
                    held.load.remove(batch.advance(count));
                    counts.add_received(count);
                }
            }
            Order::End => return writer.shutdown(),
        }
    }
}

/// Writes one byte or more.
///
/// # Errors
/// `TimedOut` when the reader has taken nothing for [`PATIENCE`] since the session released the connection.
async fn write_some(
    writer: &LocalStream,
    slices: &[IoSlice<'_>],
    stage: &mut watch::Receiver<Stage>,
) -> io::Result<usize> {
    let abandoned = async {
        let released = stage.wait_for(|stage| *stage != Stage::Carried).await.is_ok();
        if released {
            tokio::time::sleep(PATIENCE).await;
        } else {
            // It was dropped, and this task is being aborted.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        written = writer.write_some(slices) => match written? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        },
        () = abandoned => {
            tracing::warn!("a client that did not read was broken off: its connection had ended");
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// So many bytes are worth a system call of their own, rather than a copy.
const DIRECT: usize = 8 << 10;
/// A smaller rest of the read buffer is not worth a system call.
const MIN_READ: usize = 4 << 10;
/// Time that input from the local side is read and dropped after the remote's end.
const LINGER: Duration = Duration::from_secs(5);
/// Time that a released connection's reader may take nothing. Long enough for one that is stopped for a moment (a full
/// disk's retry, a paused download) and for TCP's retries to one on another machine; nothing else would ever end the wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
