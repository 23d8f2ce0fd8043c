//! The streams of one multiplexed session and their local connections.
//!
//! In scope: bytes from connections to the channel and back, half-close, what a slow reader may hold up. Out of scope:
//! where connections come from, and which of several sessions takes one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{CHUNK, Connection, FromConnection, Gauge, LocalStream};
use super::journal::Journal;
use crate::link::Link;
use crate::notice;
use crate::protocol::Input;
use crate::smux::{self, StreamId};

/// Which session a stream belongs to; never used twice, so that reports of a session that is gone reach nobody.
pub(super) type LaneId = u64;
/// Where connection tasks report to.
pub(super) type Reports = mpsc::Sender<((LaneId, StreamId), FromConnection)>;

/// The streams of a session and their local connections.
#[derive(Debug)]
pub(super) struct Streams {
    smux: smux::Session,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams whose task waits for room in the stream's queue.
    starved: BTreeSet<StreamId>,
    /// Streams whose local input has ended, in the order of that.
    half_closed: BTreeSet<(Instant, StreamId)>,
    lane: LaneId,
    reports: Reports,
    gauge: Arc<Gauge>,
    journal: Arc<Journal>,
    /// Since when the session waits for a local reader, and whether that was told.
    waiting: Option<(Instant, bool)>,
}

#[derive(Debug)]
struct Stream {
    connection: Connection,
    /// When the local input ended, and since when the remote has been quiet after that.
    half_closed: Option<Instant>,
    has_traffic: bool,
    is_ended: bool,
}

impl Streams {
    /// No streams yet. Their tasks report with `lane` on `reports`.
    pub fn new(
        keepalive_off: bool,
        lane: LaneId,
        reports: Reports,
        gauge: Arc<Gauge>,
        journal: Arc<Journal>,
    ) -> Streams {
        let mut config = smux::Config::new(smux::Role::Client);
        config.keepalive = (!keepalive_off).then(smux::KeepAlive::default);
        Streams {
            smux: smux::Session::new(config, Instant::now().into_std()),
            streams: BTreeMap::new(),
            starved: BTreeSet::new(),
            half_closed: BTreeSet::new(),
            lane,
            reports,
            gauge,
            journal,
            waiting: None,
        }
    }

    /// Which session this is.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether another connection can be taken.
    pub fn may_open(&self) -> bool {
        self.smux.stream_count() < MAX_STREAMS
    }

    /// Whether more may be read from the channel: not while a local reader holds up too much.
    pub fn has_room(&mut self) -> bool {
        let has_room = self.gauge.has_room();
        match has_room {
            true => self.waiting = None,
            false => _ = self.waiting.get_or_insert((Instant::now(), false)),
        }
        has_room
    }

    /// Whether a local reader held up too much when this was looked at last.
    pub fn is_held_up(&self) -> bool {
        self.waiting.is_some()
    }

    /// What to say of a local reader that holds up the session, once for each time.
    pub fn notice(&mut self) -> Option<String> {
        let (since, was_told) = self.waiting.as_mut()?;
        let is_due = *since + STALL_NOTICE <= Instant::now();
        (is_due && !std::mem::replace(was_told, is_due)).then(|| notice::READER_STALLS.to_owned())
    }

    /// Takes a local connection.
    pub fn open(&mut self, stream: LocalStream) {
        match self.smux.open() {
            Ok(id) => {
                let (tag, reports) = ((self.lane, id), self.reports.clone());
                let connection = Connection::start(stream, tag, reports, self.gauge.clone(), &self.journal);
                let stream = Stream { connection, half_closed: None, has_traffic: false, is_ended: false };
                self.streams.insert(id, stream);
            }
            Err(error) => tracing::warn!(%error, "cannot open a stream"),
        }
    }

    /// Fills the channel from the streams, in turns, and asks for more where room has come up.
    pub fn move_up(&mut self, link: &mut Link) {
        // For the notice's deadline.
        self.has_room();
        while link.wants_input()
            && let Some(bytes) = self.smux.poll_transmit(link.input_room())
        {
            link.send(Input::Bytes(bytes));
        }
        let (smux, streams) = (&self.smux, &self.streams);
        self.starved.retain(|id| {
            let has_room = smux.send_capacity(*id) >= CHUNK;
            if has_room && let Some(stream) = streams.get(id) {
                stream.connection.grant();
            }
            !has_room && streams.contains_key(id)
        });
    }

    /// Hands the channel's bytes to the connections.
    ///
    /// # Errors
    /// When the agent does not speak smux (any more).
    pub fn move_down(&mut self, bytes: Bytes) -> Result<(), smux::Error> {
        let handled = self.smux.handle_bytes(Instant::now().into_std(), bytes);
        while let Some(event) = self.smux.poll_event() {
            match event {
                smux::Event::Data(id, bytes) => self.deliver(id, bytes),
                smux::Event::Fin(id) => self.end(id),
                smux::Event::Accepted(_) => {}
            }
        }
        handled
    }

    fn deliver(&mut self, id: StreamId, bytes: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.has_traffic = true;
        stream.connection.write(bytes);
        if let Some(since) = stream.half_closed {
            let now = Instant::now();
            stream.half_closed = Some(now);
            self.half_closed.remove(&(since, id));
            self.half_closed.insert((now, id));
        }
    }

    /// The agent has closed its side and listens no more: what is still queued for it is of no use.
    fn end(&mut self, id: StreamId) {
        self.smux.reset(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_ended = true;
            stream.connection.end();
            if let Some(since) = stream.half_closed.take() {
                self.half_closed.remove(&(since, id));
            }
        }
    }

    /// Takes what a connection's task reports.
    pub fn handle_report(&mut self, id: StreamId, report: FromConnection) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match report {
            FromConnection::Data(_) if stream.is_ended => stream.connection.grant(),
            FromConnection::Data(bytes) => {
                stream.has_traffic = true;
                if let Err(error) = self.smux.send(id, &bytes) {
                    tracing::warn!(%id, %error, "cannot send for a stream");
                    return self.remove(id);
                }
                self.starved.insert(id);
            }
            FromConnection::InputEnded if stream.is_ended => {}
            // The agent closes the whole connection to the destination when it sees our FIN, and the answer is lost.
            // So the FIN waits until the destination has been quiet; a probe that never said anything need not wait.
            FromConnection::InputEnded if stream.has_traffic => {
                let now = Instant::now();
                stream.half_closed = Some(now);
                self.half_closed.insert((now, id));
            }
            FromConnection::InputEnded => self.smux.finish(id),
            FromConnection::Reset | FromConnection::Closed => self.remove(id),
        }
    }

    fn remove(&mut self, id: StreamId) {
        self.smux.reset(id);
        self.starved.remove(&id);
        if let Some(since) = self.streams.remove(&id).and_then(|stream| stream.half_closed) {
            self.half_closed.remove(&(since, id));
        }
    }

    /// When [`Streams::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let keepalive = self.smux.poll_timeout().map(|(at, _)| Instant::from_std(at));
        let quiet = self.half_closed.first().map(|(since, _)| {
            if self.half_closed.len() > MAX_HALF_CLOSED { *since } else { *since + HALF_CLOSE_QUIET }
        });
        let stall = self.waiting.filter(|(_, was_told)| !was_told).map(|(since, _)| since + STALL_NOTICE);
        [keepalive, quiet, stall].into_iter().flatten().min()
    }

    /// Tells the agent of local ends that have waited long enough, and keeps the smux session alive.
    ///
    /// # Errors
    /// When the agent has been silent for too long, where keepalives are on.
    pub fn handle_timeout(&mut self) -> Result<(), smux::Error> {
        let now = Instant::now();
        self.smux.set_reading(now.into_std(), self.gauge.has_room());
        while let Some((since, id)) = self.half_closed.first().copied()
            && (since + HALF_CLOSE_QUIET <= now || self.half_closed.len() > MAX_HALF_CLOSED)
        {
            self.finish_half_closed(since, id);
        }
        self.smux.handle_timeout(now.into_std())
    }

    /// Keeps no connection waiting any more whose local input has ended: its descriptor is needed.
    pub fn hurry(&mut self) {
        while let Some((since, id)) = self.half_closed.first().copied() {
            self.finish_half_closed(since, id);
        }
    }

    fn finish_half_closed(&mut self, since: Instant, id: StreamId) {
        self.half_closed.remove(&(since, id));
        self.smux.finish(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.half_closed = None;
        }
    }
}

/// The agent's smux lets so many streams wait for its accept loop; further connections wait in the listener.
const MAX_STREAMS: usize = 1024;
/// How long the remote must have been quiet after the end of the local input until it is told.
const HALF_CLOSE_QUIET: Duration = Duration::from_secs(10);
/// How long a session waits for a local reader before that is worth telling.
const STALL_NOTICE: Duration = Duration::from_secs(5);
/// More connections than this in that state are not kept waiting.
const MAX_HALF_CLOSED: usize = 256;
