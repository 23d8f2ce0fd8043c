//! The streams of one multiplexed session, sans-IO: which stream sends next, how each direction ends, what a slow local
//! reader may hold up.
//!
//! ```text
//! handle_input, handle_input_end, handle_closed ─▶ ┌─────────┐ ─▶ poll_transmit   (bytes for the channel)
//! handle_bytes (from the channel)               ─▶ │ Streams │ ─▶ poll_action     (for a local connection)
//! handle_timeout, set_room                      ─▶ └─────────┘ ─▶ next_timeout
//! ```
//!
//! Time is a parameter and never runs backwards. After each `handle_*` the actions are drained.
//!
//! Half-close: the agent closes the whole connection to the destination when it sees our FIN, and an answer that is under
//! way is lost. So the FIN waits until the destination has been quiet (`half_close`); a client that has exchanged no data
//! need not wait. An answer that arrives after the FIN may have been cut off by it, and ends with a reset.
//!
//! In scope: the bookkeeping of streams. Out of scope: which of several sessions takes a connection (`destination`),
//! sockets and queues (`local`).

mod half_close;
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::half_close::{Due, HalfClosed};
use super::api::{Action, CHUNK, ConnectionId, LinkState, Outputs};
use crate::smux::{self, StreamId};

/// The streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    smux: smux::Session,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams whose connection waits for room in the stream's queue.
    starved: BTreeSet<StreamId>,
    half_closed: HalfClosed,
    /// Of [`Action`], those that a stream can have for its connection: read, write, finish, close.
    actions: Outputs,
    /// Since when the session waits for a local reader, and whether that was reported.
    held_up: Option<(Instant, bool)>,
}

#[derive(Debug)]
struct Stream {
    connection: ConnectionId,
    opened: Instant,
    /// The FIN was sent after a wait.
    is_finished: bool,
    /// The answer may lack its end.
    is_cut: bool,
    has_traffic: bool,
    /// The client began with HTTP, or with TLS for HTTP.
    is_http: bool,
    /// A response of HTTP was the last that came: the connection is kept for another request, perhaps.
    kept_alive: Option<Instant>,
    /// The remote has ended.
    is_ended: bool,
}

impl Stream {
    fn new(connection: ConnectionId, opened: Instant) -> Stream {
        Stream {
            connection,
            opened,
            is_finished: false,
            is_cut: false,
            has_traffic: false,
            is_http: false,
            kept_alive: None,
            is_ended: false,
        }
    }
}

impl Streams {
    /// No streams yet. With `keepalive_off` the agent wants no keepalives.
    pub(super) fn new(keepalive_off: bool, now: Instant) -> Streams {
        let mut config = smux::Config::new(smux::Role::Client);
        config.keepalive = (!keepalive_off).then(smux::KeepAlive::default);
        Streams {
            smux: smux::Session::new(config, now),
            streams: BTreeMap::new(),
            starved: BTreeSet::new(),
            half_closed: HalfClosed::new(now),
            actions: Outputs::new(),
            held_up: None,
        }
    }

    /// Returns whether another stream can be opened.
    pub(super) fn may_open(&self) -> bool {
        self.smux.stream_count() < MAX_STREAMS && !self.is_spent()
    }

    /// Returns whether all stream ids are used.
    pub(super) fn is_spent(&self) -> bool {
        !self.smux.has_ids()
    }

    /// Leaves ids for so many streams only.
    #[cfg(test)]
    pub(super) fn leave_ids(&mut self, count: u32) {
        self.smux.leave_ids(count);
    }

    /// Number of connections with a stream.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// The connections with a stream, each with true if the remote has ended it.
    pub(super) fn connections(&self) -> impl Iterator<Item = (ConnectionId, bool)> {
        self.streams.values().map(|stream| (stream.connection, stream.is_ended))
    }

    /// Since when no stream is in use: the local input of each has ended and the remote has been quiet, or a connection of
    /// HTTP has been waiting for its next request for [`KEPT_ALIVE`], or one that has carried nothing for its first. Browsers
    /// open spare connections.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = |(id, stream): (&StreamId, &Stream)| {
            let spare = (!stream.has_traffic).then_some(stream.opened);
            self.half_closed.since(*id).or_else(|| Some(stream.kept_alive.or(spare)? + KEPT_ALIVE))
        };
        let since: Option<Vec<_>> = self.streams.iter().map(idle).collect();
        since?.into_iter().max()
    }

    /// Opens a stream for a connection.
    ///
    /// # Errors
    /// When the session has failed or has no more stream ids.
    pub(super) fn open(
        &mut self,
        now: Instant,
        connection: ConnectionId,
    ) -> Result<StreamId, smux::OpenError> {
        let id = self.smux.open()?;
        self.streams.insert(id, Stream::new(connection, now));
        Ok(id)
    }

    /// Takes what was read from a connection before it had a stream. Unless the connection `is_reading` already, the next
    /// chunk is requested when there is room.
    pub(super) fn handle_early_input(&mut self, id: StreamId, bytes: &[u8], is_reading: bool) {
        if !bytes.is_empty() {
            self.handle_input(id, bytes);
        }
        if is_reading {
            self.starved.remove(&id);
        } else {
            self.starved.insert(id);
        }
    }

    /// Takes a chunk of a connection's input; the next is requested with [`Action::Read`].
    pub(super) fn handle_input(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.is_ended {
            // Read and dropped: the other side does not listen any more.
            return self.actions.push_back(Action::Read(stream.connection));
        }
        stream.is_http |= !stream.has_traffic && http::is_http(bytes);
        stream.has_traffic = true;
        stream.kept_alive = None;
        match self.smux.send(id, bytes) {
            Ok(()) => _ = self.starved.insert(id),
            Err(error) => {
                tracing::warn!(%id, %error, "cannot send for a stream");
                self.actions.push_back(Action::Close(stream.connection));
                self.remove(id);
            }
        }
    }

    /// A connection sends no more; it may still be reading.
    pub(super) fn handle_input_end(&mut self, now: Instant, id: StreamId) {
        match self.streams.get(&id) {
            Some(stream) if !stream.is_ended && stream.has_traffic => self.half_closed.insert(now, id),
            Some(stream) if !stream.is_ended => self.smux.finish(id),
            _ => {}
        }
    }

    /// A connection is gone.
    pub(super) fn handle_closed(&mut self, id: StreamId) {
        if self.streams.contains_key(&id) {
            self.remove(id);
        }
    }

    /// Takes bytes from the channel.
    ///
    /// # Errors
    /// When the agent does not speak smux (any more). Earlier events remain available.
    pub(super) fn handle_bytes(&mut self, now: Instant, bytes: Bytes) -> Result<(), smux::Error> {
        self.half_closed.handle_arrival(now);
        let handled = self.smux.handle_bytes(now, bytes);
        while let Some(event) = self.smux.poll_event() {
            match event {
                smux::Event::Data(id, bytes) => self.deliver(now, id, bytes),
                smux::Event::Fin(id) => self.end(id),
                smux::Event::Accepted(_) => {}
            }
        }
        handled
    }

    /// Returns the next action for a connection.
    #[must_use]
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// At most `max` bytes for the channel, filled from the streams in turns.
    #[must_use]
    pub(super) fn poll_transmit(&mut self, max: usize) -> Option<Bytes> {
        self.smux.poll_transmit(max).inspect(|_| self.feed())
    }

    /// A message of at most `max` bytes for an agent that may not listen yet ([`smux::Session::poll_tentative`]).
    #[must_use]
    pub(super) fn poll_tentative(&mut self, max: usize) -> Option<Bytes> {
        self.smux.poll_tentative(max).inspect(|_| self.feed())
    }

    /// The agent listens: what was tentative is to be repeated.
    pub(super) fn settle(&mut self) {
        self.smux.settle();
    }

    /// Asks for more where room has come up.
    pub(super) fn feed(&mut self) {
        let (smux, streams, actions) = (&self.smux, &self.streams, &mut self.actions);
        self.starved.retain(|id| {
            let Some(stream) = streams.get(id) else { return false };
            let has_room = smux.send_capacity(*id) >= CHUNK;
            if has_room {
                actions.push_back(Action::Read(stream.connection));
            }
            !has_room
        });
    }

    /// Says whether the local readers take what comes. While they do not, the channel is not read.
    fn set_room(&mut self, now: Instant, has_room: bool) {
        if has_room {
            self.held_up = None;
        } else {
            self.held_up.get_or_insert((now, false));
        }
        self.smux.set_reading(now, has_room);
    }

    /// Takes the state of the link. A channel that is not read says as little about the remote as one that is down.
    pub(super) fn set_link(&mut self, now: Instant, link: LinkState) {
        self.half_closed.set_link(now, link.down_since, !link.has_room, link.heard);
        self.half_closed.set_pause(now, link.paused_since);
        self.half_closed.set_arrivals(now, link.received, link.has_gap);
        self.set_room(now, link.has_room);
    }

    /// Returns whether the link is to show a sign of life, so that a stream may be ended.
    pub(super) fn wants_contact(&self) -> bool {
        self.half_closed.wants_contact()
    }

    /// Returns whether a local reader held up the session at the last report.
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up.is_some()
    }

    /// Returns true, once each time, when a local reader has held up the session for long enough to be reported.
    pub(super) fn take_stall(&mut self, now: Instant) -> bool {
        match &mut self.held_up {
            Some((since, was_reported)) if now >= *since + STALL_NOTICE => {
                !std::mem::replace(was_reported, true)
            }
            _ => false,
        }
    }

    /// When [`Streams::handle_timeout`] and [`Streams::take_stall`] are due.
    #[must_use]
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let keepalive = self.smux.poll_timeout().map(|(at, _)| at);
        let quiet = self.half_closed.next_timeout();
        let stall =
            self.held_up.filter(|(_, was_reported)| !was_reported).map(|(since, _)| since + STALL_NOTICE);
        [keepalive, quiet, stall].into_iter().flatten().min()
    }

    /// Tells the agent of local ends that have waited long enough, and keeps the smux session alive.
    ///
    /// # Errors
    /// When the agent has been silent for too long, where keepalives are on.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), smux::Error> {
        while let Some(due) = self.half_closed.poll_due(now) {
            match due {
                // Its request has not even left.
                Due::Quiet(id) if self.smux.queued(id) > 0 => self.half_closed.insert(now, id),
                Due::Quiet(id) => self.finish_half_closed(id, false),
                Due::Forced(id) => self.finish_half_closed(id, true),
            }
        }
        self.smux.handle_timeout(now)
    }

    /// Closes the half-closed connections whose remote has been quiet for a second: their descriptors are needed. The agent's
    /// answer is not awaited, since nothing of it may be read as long as another client is stuck.
    pub(super) fn hurry(&mut self, now: Instant) {
        while let Some(id) = self.half_closed.poll_hurried(now) {
            if self.smux.queued(id) > 0 {
                // Its request has not left.
                self.half_closed.insert(now, id);
            } else if let Some(stream) = self.streams.get(&id) {
                self.actions.push_back(Action::Close(stream.connection));
                self.remove(id);
            }
        }
    }

    fn deliver(&mut self, now: Instant, id: StreamId, bytes: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.has_traffic = true;
        stream.is_cut |= stream.is_finished;
        stream.kept_alive = stream.is_http.then_some(now);
        self.actions.push_back(Action::Write(stream.connection, bytes));
        self.half_closed.handle_data(now, id);
    }

    /// The agent has closed its side and listens no more: what is still queued for it is of no use.
    fn end(&mut self, id: StreamId) {
        self.smux.reset(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_ended = true;
        self.half_closed.remove(id);
        if stream.is_cut {
            self.actions.push_back(Action::Close(stream.connection));
            return self.remove(id);
        }
        self.actions.push_back(Action::Finish(stream.connection));
    }

    fn remove(&mut self, id: StreamId) {
        self.smux.reset(id);
        self.starved.remove(&id);
        self.streams.remove(&id);
        self.half_closed.remove(id);
    }

    /// Reports the end of the local input. `is_early`: an answer may still come.
    fn finish_half_closed(&mut self, id: StreamId, is_early: bool) {
        self.smux.finish(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            (stream.is_finished, stream.is_cut) = (true, is_early);
        }
    }
}

/// The agent's smux lets this many streams wait for its accept loop; additional connections wait in the listener.
const MAX_STREAMS: usize = 1024;
/// Time that a connection of HTTP must have waited for its next request to count as idle. Servers close such
/// connections after 5 s (Apache) to 75 s (nginx), and clients expect it; browsers keep theirs for minutes.
const KEPT_ALIVE: Duration = Duration::from_secs(5);
/// Time that a session waits for a local reader before that is reported.
const STALL_NOTICE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
