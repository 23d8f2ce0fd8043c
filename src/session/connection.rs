//! One local connection of a port session: two queues with a socket at their end.
//!
//! A task owns the socket. Upwards it hands over one chunk and waits until [`Connection::grant`] asks for the next, so
//! what it reads ahead is bounded by [`CHUNK`]. Downwards it takes whatever it is given; the session looks at
//! [`Gauge::has_room`] before it reads more from the channel, so that one slow reader neither stops the others nor
//! fills the memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::journal::{Entry, Journal, Moved};

/// What a connection's task reports.
#[derive(Debug)]
pub(super) enum FromConnection {
    /// Bytes for the remote; the next come after a [`Connection::grant`].
    Data(Bytes),
    /// The local side sends no more; it may still be reading.
    InputEnded,
    /// The local side has broken the connection off.
    Reset,
    /// Everything is done, the socket is closed.
    Closed,
}

/// The session's handle on a connection. Dropping it closes the socket at once.
#[derive(Debug)]
pub(super) struct Connection {
    down: mpsc::UnboundedSender<Down>,
    credit: Arc<Notify>,
    queued: Arc<AtomicUsize>,
    gauge: Arc<Gauge>,
    task: tokio::task::AbortHandle,
    /// Says that it is over when it goes with the rest.
    _entry: Entry,
}

#[derive(Debug)]
enum Down {
    Data(Bytes),
    End,
}

impl Connection {
    /// Starts a connection's task; it reports with `tag` on `reports`.
    pub fn start<T: Copy + Send + 'static>(
        stream: LocalStream,
        tag: T,
        reports: mpsc::Sender<(T, FromConnection)>,
        gauge: Arc<Gauge>,
        journal: &Arc<Journal>,
    ) -> Connection {
        let entry = journal.open(&stream);
        let (down, orders) = mpsc::unbounded_channel();
        let credit = Arc::new(Notify::new());
        credit.notify_one();
        let queued = Arc::new(AtomicUsize::new(0));
        let (reader, writer) = tokio::io::split(stream);
        let up = read_all(reader, tag, reports.clone(), credit.clone(), entry.moved());
        let writing = write_all(writer, orders, queued.clone(), gauge.clone(), entry.moved());
        let task = tokio::spawn(async move {
            let mut up = std::pin::pin!(up);
            let mut writing = std::pin::pin!(writing);
            // The end of reading does not end writing; the end of writing leaves a while to read what comes.
            let mut is_reading = true;
            let written = loop {
                tokio::select! {
                    () = &mut up, if is_reading => is_reading = false,
                    written = &mut writing => break written,
                }
            };
            if written.is_err() {
                let _ = reports.send((tag, FromConnection::Reset)).await;
            } else if is_reading {
                // Closing with unread input would reset the connection and destroy what the reader has not seen yet.
                let _ = tokio::time::timeout(LINGER, up).await;
            }
            let _ = reports.send((tag, FromConnection::Closed)).await;
        });
        Connection { down, credit, queued, gauge, task: task.abort_handle(), _entry: entry }
    }

    /// Asks for the next chunk.
    pub fn grant(&self) {
        self.credit.notify_one();
    }

    /// Queues bytes for the local side.
    pub fn write(&self, bytes: Bytes) {
        self.gauge.add(&self.queued, bytes.len());
        let _ = self.down.send(Down::Data(bytes));
    }

    /// The remote side has ended: after what is queued, the local side sees the end too.
    pub fn end(&self) {
        // Whatever the local side still sends is read and dropped from here on.
        self.credit.notify_one();
        let _ = self.down.send(Down::End);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
        self.gauge.remove(&self.queued, self.queued.load(Ordering::Relaxed));
    }
}

async fn read_all<T: Copy>(
    mut reader: tokio::io::ReadHalf<LocalStream>,
    tag: T,
    reports: mpsc::Sender<(T, FromConnection)>,
    credit: Arc<Notify>,
    moved: Arc<Moved>,
) {
    let mut buffer = BytesMut::new();
    loop {
        credit.notified().await;
        if buffer.capacity() < MIN_READ {
            buffer.reserve(CHUNK);
        }
        let report = match reader.read_buf(&mut buffer).await {
            Ok(0) => FromConnection::InputEnded,
            Ok(count) => {
                moved.add_sent(count);
                FromConnection::Data(buffer.split().freeze())
            }
            Err(error) => {
                tracing::debug!(%error, "a local connection was broken off");
                FromConnection::Reset
            }
        };
        let is_last = !matches!(report, FromConnection::Data(_));
        if reports.send((tag, report)).await.is_err() || is_last {
            return;
        }
    }
}

async fn write_all(
    mut writer: tokio::io::WriteHalf<LocalStream>,
    mut orders: mpsc::UnboundedReceiver<Down>,
    queued: Arc<AtomicUsize>,
    gauge: Arc<Gauge>,
    moved: Arc<Moved>,
) -> io::Result<()> {
    let mut gathered = BytesMut::new();
    let mut order = orders.recv().await;
    while let Some(Down::Data(mut bytes)) = order {
        order = orders.try_recv().ok();
        if matches!(order, Some(Down::Data(_))) {
            // The agent's messages are small: what has come meanwhile goes with the same system call.
            gathered.extend_from_slice(&bytes);
            while gathered.len() < WRITE_AT_ONCE
                && let Some(Down::Data(next)) = order
            {
                gathered.extend_from_slice(&next);
                order = orders.try_recv().ok();
            }
            bytes = gathered.split().freeze();
        }
        let written = writer.write_all(&bytes).await;
        gauge.remove(&queued, bytes.len());
        written?;
        moved.add_received(bytes.len());
        if order.is_none() {
            order = orders.recv().await;
        }
    }
    writer.shutdown().await
}

/// How much waits for the local readers of one session.
#[derive(Debug)]
pub(super) struct Gauge {
    total: AtomicUsize,
    /// Connections with more than `most_each`.
    full: AtomicUsize,
    most: usize,
    most_each: usize,
    /// Told when there is room again; shared by the sessions of a port.
    progress: Arc<Notify>,
}

impl Gauge {
    /// For one of `sessions` behind a port, which share the memory. `progress` is told when there is room again.
    pub fn new(sessions: usize, progress: Arc<Notify>) -> Gauge {
        let most = MAX_QUEUED_IN_ALL / sessions.max(1);
        let (total, full) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Gauge { total, full, most, most_each: MAX_QUEUED.min(most), progress }
    }

    /// Whether more may be read from the channel.
    pub fn has_room(&self) -> bool {
        self.full.load(Ordering::Relaxed) == 0 && self.total.load(Ordering::Relaxed) < self.most
    }

    /// Resolves when there may be room again. Cancel-safe.
    pub async fn progress(&self) {
        self.progress.notified().await;
    }

    fn add(&self, queued: &AtomicUsize, bytes: usize) {
        let before = queued.fetch_add(bytes, Ordering::Relaxed);
        if before <= self.most_each && before + bytes > self.most_each {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, queued: &AtomicUsize, bytes: usize) {
        let had_room = self.has_room();
        // A task that is being aborted on another thread may count the same bytes once more.
        let take = |queued: usize| Some(queued.saturating_sub(bytes));
        let before = queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        let bytes = bytes.min(before);
        if before > self.most_each && before - bytes <= self.most_each {
            self.full.fetch_sub(1, Ordering::Relaxed);
        }
        self.total.fetch_sub(bytes, Ordering::Relaxed);
        if !had_room && self.has_room() {
            self.progress.notify_one();
        }
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge::new(1, Arc::default())
    }
}

/// A TCP connection or one to a socket file.
#[derive(Debug)]
pub(super) enum LocalStream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl LocalStream {
    /// Who is at the other end, for people.
    pub fn peer(&self) -> String {
        match self {
            LocalStream::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_| "nowhere".to_owned(), |peer| peer.to_string())
            }
            #[cfg(unix)]
            LocalStream::Unix(_) => "the socket file".to_owned(),
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LocalStream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(unix)]
            LocalStream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            LocalStream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(unix)]
            LocalStream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LocalStream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            LocalStream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LocalStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            LocalStream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Read from a local socket at once.
pub(super) const CHUNK: usize = 16 << 10;
/// Gathered for one write to a local socket.
const WRITE_AT_ONCE: usize = 64 << 10;
/// A smaller rest of the read buffer is not worth a system call.
const MIN_READ: usize = 4 << 10;
/// What one slow reader may leave in memory before its whole session waits for it.
const MAX_QUEUED: usize = 8 << 20;
/// What all of them together may; several sessions behind a port have equal shares.
const MAX_QUEUED_IN_ALL: usize = 32 << 20;
/// How long what a local side still sends after the end of the remote's is read and dropped.
const LINGER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (TcpStream, LocalStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, LocalStream::Tcp(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn a_chunk_comes_only_when_asked_for() {
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let connection = Connection::start(stream, 7, reports, Arc::default(), &Journal::new(false));
        client.write_all(&vec![1; 3 * CHUNK]).await.unwrap();
        let mut total = 0;
        while total < 3 * CHUNK {
            let Some((7, FromConnection::Data(bytes))) = received.recv().await else { panic!() };
            assert!(bytes.len() <= CHUNK);
            total += bytes.len();
            tokio::task::yield_now().await;
            assert!(received.is_empty());
            connection.grant();
        }
    }

    #[tokio::test]
    async fn the_remote_end_closes_after_what_was_queued_and_loses_nothing_of_it() {
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let connection = Connection::start(stream, (), reports, Arc::default(), &Journal::new(false));
        connection.write(Bytes::from(vec![2; 1 << 20]));
        connection.end();
        // What the client says to somebody who has hung up must not reset the connection.
        client.write_all(b"too late").await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 1 << 20);
        drop(client);
        while !matches!(received.recv().await, Some(((), FromConnection::Closed))) {
            connection.grant();
        }
    }

    #[tokio::test]
    async fn a_slow_reader_fills_the_gauge_and_leaves_it_empty_when_dropped() {
        let (_client, stream) = pair().await;
        let (_other_client, other) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        let gauge = Arc::new(Gauge::default());
        let slow = Connection::start(stream, 1, reports.clone(), gauge.clone(), &Journal::new(false));
        let _other = Connection::start(other, 2, reports, gauge.clone(), &Journal::new(false));
        slow.write(Bytes::from(vec![0; MAX_QUEUED]));
        assert!(gauge.has_room());
        slow.write(Bytes::from(vec![0; MAX_QUEUED]));
        assert!(!gauge.has_room());
        drop(slow);
        assert!(gauge.has_room());
        gauge.progress().await;
        assert_eq!(gauge.total.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_reset_is_reported_as_one() {
        let (client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let _connection = Connection::start(stream, (), reports, Arc::default(), &Journal::new(false));
        client.set_zero_linger().unwrap();
        drop(client);
        assert!(matches!(received.recv().await, Some(((), FromConnection::Reset))));
    }
}
