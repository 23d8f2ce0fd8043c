//! Port forwarding with agents after 3.0.196.0: many local connections in one session, each a smux stream.
//!
//! ```text
//! local socket ⇄ connection task ⇄ (this loop) ⇄ smux::Session ⇄ Link
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{CHUNK, Connection, FromConnection, Gauge, LocalStream};
use super::listener::Listener;
use super::{End, Session, ends_session};
use crate::link::{Link, LinkEvent};
use crate::notice;
use crate::protocol::smux::{self, StreamId};
use crate::protocol::{Event, Input, PortProperties};
use crate::term::Signal;

/// Runs until the session ends or a signal comes.
pub(super) async fn run(session: &mut Session, properties: &PortProperties) -> anyhow::Result<End> {
    let listener = match Listener::bind(properties, session.settings.local_host.as_deref()).await {
        Ok(listener) => listener,
        Err(error) => return Ok(End::NotStarted(error.to_string())),
    };
    session.console.say(&listener.notice(&session.id));
    session.console.say(notice::WAITING_FOR_CONNECTIONS);

    let (reports, mut from_connections) = mpsc::channel(REPORTS);
    let mut mux = Mux::new(session.link.capabilities().smux_keepalive_off, reports);
    let mut accepted_any = false;
    loop {
        mux.move_up(&mut session.link);
        session.connections = Some(mux.streams.len());
        let Session { link, watch, console, .. } = session;
        let may_deliver = mux.gauge.has_room();
        let timeout = mux.next_timeout();
        tokio::select! {
            event = link.next(may_deliver) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => mux.move_down(bytes)?,
                LinkEvent::Channel(Event::PortRefused) => console.say(notice::DESTINATION_FAILED),
                other => if let Some(end) = session.handle(other) { return Ok(end) },
            },
            Some((id, report)) = from_connections.recv() => mux.handle_report(id, report),
            accepted = listener.accept(), if mux.may_open() => match accepted {
                Ok(stream) => {
                    if !std::mem::replace(&mut accepted_any, true) {
                        console.say(&notice::connection_accepted_mux(&session.id));
                    }
                    mux.open(stream);
                }
                Err(error) => {
                    console.status(&format!("cannot accept a connection: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = mux.gauge.progress(), if !may_deliver => {}
            () = sleep_until(timeout) => mux.handle_timeout()?,
            signal = watch.recv() => match signal {
                Signal::Usr1 => session.report(),
                signal if ends_session(signal) || signal == Signal::Suspend => {
                    console.say(notice::TERMINATE_SIGNAL);
                    return Ok(End::Interrupted);
                }
                _ => {}
            },
            _ = console.drive() => {}
        }
    }
}

/// The streams of a session and their local connections.
struct Mux {
    smux: smux::Session,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams whose task waits for room in the stream's queue.
    starved: BTreeSet<StreamId>,
    /// Streams whose local input has ended, in the order of that.
    half_closed: BTreeSet<(Instant, StreamId)>,
    reports: mpsc::Sender<(StreamId, FromConnection)>,
    gauge: Arc<Gauge>,
}

struct Stream {
    connection: Connection,
    /// When the local input ended, and since when the remote has been quiet after that.
    half_closed: Option<Instant>,
    has_traffic: bool,
    is_ended: bool,
}

impl Mux {
    fn new(keepalive_off: bool, reports: mpsc::Sender<(StreamId, FromConnection)>) -> Mux {
        let mut config = smux::Config::new(smux::Role::Client);
        config.keepalive = (!keepalive_off).then(smux::KeepAlive::default);
        Mux {
            smux: smux::Session::new(config, Instant::now().into_std()),
            streams: BTreeMap::new(),
            starved: BTreeSet::new(),
            half_closed: BTreeSet::new(),
            reports,
            gauge: Arc::default(),
        }
    }

    fn may_open(&self) -> bool {
        self.smux.stream_count() < MAX_STREAMS
    }

    fn open(&mut self, stream: LocalStream) {
        match self.smux.open() {
            Ok(id) => {
                let connection = Connection::start(stream, id, self.reports.clone(), self.gauge.clone());
                let stream = Stream { connection, half_closed: None, has_traffic: false, is_ended: false };
                self.streams.insert(id, stream);
            }
            Err(error) => tracing::warn!(%error, "cannot open a stream"),
        }
    }

    /// Fills the channel from the streams, in turns, and asks for more where room has come up.
    fn move_up(&mut self, link: &mut Link) {
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

    fn move_down(&mut self, bytes: Bytes) -> Result<(), smux::Error> {
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

    fn handle_report(&mut self, id: StreamId, report: FromConnection) {
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

    fn next_timeout(&self) -> Option<Instant> {
        let keepalive = self.smux.poll_timeout().map(|(at, _)| Instant::from_std(at));
        let quiet = self.half_closed.first().map(|(since, _)| {
            if self.half_closed.len() > MAX_HALF_CLOSED { *since } else { *since + HALF_CLOSE_QUIET }
        });
        [keepalive, quiet].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self) -> Result<(), smux::Error> {
        let now = Instant::now();
        self.smux.set_reading(now.into_std(), self.gauge.has_room());
        while let Some((since, id)) = self.half_closed.first().copied()
            && (since + HALF_CLOSE_QUIET <= now || self.half_closed.len() > MAX_HALF_CLOSED)
        {
            self.half_closed.remove(&(since, id));
            self.smux.finish(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.half_closed = None;
            }
        }
        self.smux.handle_timeout(now.into_std())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reports of connection tasks that wait for the loop.
const REPORTS: usize = 64;
/// The agent's smux lets so many streams wait for its accept loop; further connections wait in the listener.
const MAX_STREAMS: usize = 1024;
/// How long the remote must have been quiet after the end of the local input until it is told.
const HALF_CLOSE_QUIET: Duration = Duration::from_secs(5);
/// More connections than this in that state are not kept waiting.
const MAX_HALF_CLOSED: usize = 256;
/// After a failed accept (out of descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
