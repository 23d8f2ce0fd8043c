//! One local connection of a port session: two queues with a socket at their end.
//!
//! A task owns the socket. Upwards it hands over one chunk and waits until [`Connection::grant`] asks for the next, so
//! what it reads ahead is bounded by [`CHUNK`]. Downwards it takes whatever it is given; the session looks at its
//! [`Gauge`], which counts the memory that is held, before it reads more from the channel, so that one slow reader neither stops the others nor fills the
//! memory.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, mpsc};

use super::super::core::{CHUNK, Report};
use super::super::proxy::{Preface, Protocol, Reply, encode};
use super::gauge::{Gauge, Load};
use super::journal::{ByteCounts, Entry};
use super::stream::LocalStream;
use crate::queue::{Batch, ByteQueue};

/// The session's handle on a connection. Dropping it breaks the connection off: a reset, unless the end of the remote's
/// output was delivered, so that no client takes a part of a download for the whole.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Arc<LocalStream>,
    down: Arc<Down>,
    credit: Arc<Notify>,
    load: Arc<Load>,
    task: tokio::task::AbortHandle,
    /// Protocol of the proxy client that waits for an answer.
    protocol: Option<Protocol>,
    is_dismissed: bool,
    /// The local side is not waited for after the end.
    is_brief: Arc<AtomicBool>,
    counts: Arc<ByteCounts>,
    /// Notes the connection's end in the journal when this is dropped.
    _entry: Entry,
}

/// Bytes that wait for the local side.
#[derive(Debug, Default)]
struct Down {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Not from the remote, but from us: the few bytes of a proxy's answers, before all else.
    replies: Vec<u8>,
    data: ByteQueue,
    /// The task writes what it has taken.
    is_writing: bool,
    is_ended: bool,
}

/// The next thing to do for the local side.
enum Order {
    Reply(Vec<u8>),
    Data(Batch),
    End,
}

impl Down {
    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let changed = change(&mut self.lock());
        self.more.notify_one();
        changed
    }

    async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.lock().next() {
                return order;
            }
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
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
    fn is_idle(&self) -> bool {
        !self.is_writing && !self.is_ended && self.replies.is_empty() && self.data.is_empty()
    }
}

impl Connection {
    /// Starts a connection's task, which reports with `tag` on `reports`. Its first chunk is asked for already.
    pub(crate) fn start<T: Copy + Send + 'static>(
        stream: LocalStream,
        preface: Preface,
        tag: T,
        reports: mpsc::Sender<(T, Report)>,
        entry: Entry,
    ) -> Connection {
        let Preface { protocol, early } = preface;
        let (stream, down) = (Arc::new(stream), Arc::new(Down::default()));
        let credit = Arc::new(Notify::new());
        credit.notify_one();
        let load = Arc::new(Load::default());
        let (orders, asked, queued, counts) = (down.clone(), credit.clone(), load.clone(), entry.counts());
        let (socket, tally) = (Unfinished { stream: stream.clone(), is_done: false }, counts.clone());
        let is_brief = Arc::new(AtomicBool::new(false));
        let brief = is_brief.clone();
        let task = tokio::spawn(async move {
            // As a whole: captured by its fields, it would be reset too early, or not at all.
            let mut socket = socket;
            let up = read_all(&socket.stream, early, tag, reports.clone(), asked, &tally);
            let writing = write_all(&socket.stream, &orders, &queued, &tally);
            let carried = carry(up, writing, &brief).await;
            socket.is_done = carried.is_ok();
            if carried.is_err() {
                let _ = reports.send((tag, Report::Reset)).await;
            }
            let _ = reports.send((tag, Report::Closed)).await;
        });
        let task = task.abort_handle();
        Connection {
            stream,
            down,
            credit,
            load,
            task,
            protocol,
            is_dismissed: false,
            is_brief,
            counts,
            _entry: entry,
        }
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

    /// Answers a proxy client, before anything of the remote. The clients of other ports wait for no answer.
    pub(crate) fn reply(&self, reply: Reply) {
        let bytes = self.protocol.map(|protocol| encode(protocol, reply)).unwrap_or_default();
        self.down.change(|waiting| waiting.replies.extend_from_slice(&bytes));
    }

    /// Closes the connection as soon as an answer is written.
    pub(crate) fn dismiss(mut self) {
        self.is_brief.store(true, Ordering::Relaxed);
        self.end();
        self.is_dismissed = true;
    }

    /// Leaves the connection, whose end is queued, to deliver what is queued before.
    pub(crate) fn release(mut self) {
        self.is_dismissed = true;
    }

    /// The remote side has ended: after what is queued, the local side sees the end too.
    pub(crate) fn end(&self) {
        // Whatever the local side still sends is read and dropped from here on.
        self.credit.notify_one();
        self.down.change(|waiting| waiting.is_ended = true);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_dismissed {
            self.task.abort();
        }
        self.load.clear();
    }
}

/// Runs both directions to the end of writing. The end of reading does not end writing; the end of writing leaves a while
/// to read what comes, unless it `is_brief`.
async fn carry(
    up: impl Future<Output = ()>,
    writing: impl Future<Output = io::Result<()>>,
    is_brief: &AtomicBool,
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
        let linger = if is_brief.load(Ordering::Relaxed) { Duration::ZERO } else { LINGER };
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

async fn write_all(writer: &LocalStream, orders: &Down, load: &Load, counts: &ByteCounts) -> io::Result<()> {
    loop {
        match orders.next().await {
            Order::Reply(bytes) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let count = writer.write_some(&[IoSlice::new(rest)]).await?;
                    rest = rest.get(count.max(1)..).unwrap_or_default();
                }
            }
            Order::Data(mut batch) => {
                while !batch.is_empty() {
                    let count = match writer.write_some(&batch.slices()).await? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        count => count,
                    };
                    load.remove(batch.advance(count));
                    counts.add_received(count);
                }
            }
            Order::End => return writer.shutdown(),
        }
    }
}

/// So many bytes are worth a system call of their own, rather than a copy.
const DIRECT: usize = 8 << 10;
/// A smaller rest of the read buffer is not worth a system call.
const MIN_READ: usize = 4 << 10;
/// Time that input from the local side is read and dropped after the remote's end.
const LINGER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::super::gauge::{Budget, Limits};
    use super::super::journal::Journal;
    use super::*;
    use crate::settings::Settings;

    async fn pair() -> (TcpStream, LocalStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, LocalStream::Tcp(listener.accept().await.unwrap().0))
    }

    fn start<T: Copy + Send + 'static>(
        stream: LocalStream,
        tag: T,
        reports: mpsc::Sender<(T, Report)>,
    ) -> Connection {
        start_with(Preface::default(), stream, tag, reports)
    }

    fn start_with<T: Copy + Send + 'static>(
        preface: Preface,
        stream: LocalStream,
        tag: T,
        reports: mpsc::Sender<(T, Report)>,
    ) -> Connection {
        let entry = Journal::new(&Settings::default()).open(&stream, None);
        Connection::start(stream, preface, tag, reports, entry)
    }

    fn socks5() -> Preface {
        Preface { protocol: Some(Protocol::Socks5), ..Preface::default() }
    }

    #[tokio::test]
    async fn an_answer_of_ours_is_not_lost_when_the_connection_is_dismissed() {
        let (mut client, stream) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        client.write_all(b"unread").await.unwrap();
        let connection = start_with(socks5(), stream, (), reports);
        connection.reply(Reply::NotAllowed);
        connection.dismiss();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, encode(Protocol::Socks5, Reply::NotAllowed));
    }

    /// A client may send its data together with an HTTP request, without waiting for the answer.
    #[tokio::test]
    async fn early_data_comes_first_and_counts() {
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        client.write_all(b"later").await.unwrap();
        let preface = Preface { protocol: Some(Protocol::Http), early: b"early ".as_slice().into() };
        let connection = start_with(preface, stream, (), reports);
        let mut all = Vec::new();
        while all.len() < 11 {
            let Some(((), Report::Data(bytes))) = received.recv().await else { panic!() };
            all.extend_from_slice(&bytes);
            connection.grant();
        }
        assert_eq!(all, b"early later");
        assert_eq!(connection.counts.sent(), 11);
    }

    /// A cut download must not look complete.
    #[tokio::test]
    async fn a_connection_that_is_dropped_before_its_end_is_reset() {
        let (mut client, stream) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        let connection = start(stream, (), reports);
        connection.write(b"a part");
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 6);
        drop(connection);
        let error = client.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// The session is over, but the remote had ended the connection before.
    #[tokio::test]
    async fn a_connection_that_is_released_delivers_what_is_queued_and_its_end() {
        let (mut client, stream) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        let connection = start(stream, (), reports);
        connection.write(&vec![2; 8 << 20]);
        connection.end();
        tokio::task::yield_now().await;
        connection.release();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 8 << 20);
    }

    #[tokio::test]
    async fn a_chunk_comes_only_when_asked_for() {
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let connection = start(stream, 7, reports);
        client.write_all(&vec![1; 3 * CHUNK]).await.unwrap();
        let mut total = 0;
        while total < 3 * CHUNK {
            let Some((7, Report::Data(bytes))) = received.recv().await else { panic!() };
            assert!(bytes.len() <= CHUNK);
            total += bytes.len();
            tokio::task::yield_now().await;
            assert!(received.is_empty());
            connection.grant();
        }
    }

    /// Its end stands behind what is not read, where the system reports it all the same: see [`ReadHalf::hung_up`].
    #[tokio::test]
    async fn a_client_that_goes_away_is_noticed_while_it_is_not_read() {
        let sent = if cfg!(windows) { CHUNK / 2 } else { 3 * CHUNK };
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let connection = start(stream, (), reports);
        client.write_all(&vec![1; sent]).await.unwrap();
        let mut first = 0;
        while first < sent.min(CHUNK) {
            let Some(((), Report::Data(bytes))) = received.recv().await else { panic!() };
            first += bytes.len();
            if first < sent.min(CHUNK) {
                connection.grant();
            }
        }
        drop(client);
        assert!(matches!(received.recv().await, Some(((), Report::HungUp))));
        // Nothing of it is lost.
        let mut total = 0;
        loop {
            connection.grant();
            match received.recv().await {
                Some(((), Report::Data(bytes))) => total += bytes.len(),
                Some(((), Report::InputEnded)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(total, sent - first);
    }

    #[tokio::test]
    async fn the_remote_end_closes_after_what_was_queued_and_loses_nothing_of_it() {
        let (mut client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let connection = start(stream, (), reports);
        connection.write(&vec![2; 1 << 20]);
        connection.end();
        // What the client says to somebody who has hung up must not reset the connection.
        client.write_all(b"too late").await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 1 << 20);
        drop(client);
        while !matches!(received.recv().await, Some(((), Report::Closed))) {
            connection.grant();
        }
    }

    /// Pieces that are written at once, pieces that wait, and what we say ourselves.
    #[tokio::test]
    async fn pieces_of_all_sizes_arrive_in_order() {
        let (mut client, stream) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        let connection = start_with(socks5(), stream, (), reports);
        connection.reply(Reply::Succeeded);
        let mut expected = encode(Protocol::Socks5, Reply::Succeeded);
        let length = expected.len() as u64;
        for number in 0..600_usize {
            let length = if number % 3 == 0 { DIRECT + number * 7 } else { number % 50 };
            let piece: Vec<u8> = (0..length).map(|at| ((number + at) % 251) as u8).collect();
            connection.write(&piece);
            expected.extend(piece);
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        connection.end();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
        assert_eq!(connection.counts.received(), expected.len() as u64 - length);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_its_session_until_it_is_gone() {
        let (_client, stream) = pair().await;
        let (reports, _received) = mpsc::channel(8);
        let limits = Limits { each: 1 << 20, all: 4 << 20, session: 1 << 20 };
        let budget = Budget::new(limits);
        let gauge = Gauge::new(budget.clone());
        let slow = start(stream, 1, reports);
        slow.join(&gauge);
        assert!(gauge.has_room());
        // More than the system takes.
        slow.write(&vec![0; 16 << 20]);
        assert!(!gauge.has_room());
        drop(slow);
        assert!(gauge.has_room());
        budget.progress().await;
    }

    #[tokio::test]
    async fn a_reset_is_reported_as_one() {
        let (client, stream) = pair().await;
        let (reports, mut received) = mpsc::channel(8);
        let _connection = start(stream, (), reports);
        client.set_zero_linger().unwrap();
        drop(client);
        assert!(matches!(received.recv().await, Some(((), Report::Reset))));
    }
}
