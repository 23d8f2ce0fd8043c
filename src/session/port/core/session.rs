//! One session: the connections that it carries, and what is known of it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{Action, ConnectionId, DestinationId, LinkState, Outputs, Report, SessionEnd, SessionId};
use super::place::Connections;
use super::reply::Replies;
use super::streams::Streams;
use super::waiting::Waiting;
use crate::smux::{self, StreamId};

/// A session, from the request for it to its end.
#[derive(Debug)]
pub(super) struct Session {
    number: SessionId,
    destination: DestinationId,
    /// `None` until the handshake is over.
    ready: Option<Box<Ready>>,
    replies: Replies,
    /// Since when it has no connection, from the first one's end on.
    empty_since: Option<Instant>,
    round_trip: Duration,
}

#[derive(Debug)]
struct Ready {
    /// The service's id.
    id: String,
    since: Instant,
    streams: Streams,
}

impl Session {
    /// A session that is being started.
    pub(super) fn new(number: SessionId, destination: DestinationId) -> Session {
        let (replies, round_trip) = (Replies::default(), Duration::ZERO);
        Session { number, destination, ready: None, replies, empty_since: None, round_trip }
    }

    /// The handshake is over. `keepalive_off`: the agent wants no keepalives in smux.
    pub(super) fn handle_ready(&mut self, now: Instant, id: &str, keepalive_off: bool) {
        let streams = Streams::new(keepalive_off, now);
        self.ready = Some(Box::new(Ready { id: id.to_owned(), since: now, streams }));
    }

    /// Takes the state of the link.
    pub(super) fn set_link(&mut self, now: Instant, link: LinkState) {
        self.round_trip = link.round_trip;
        if let Some(ready) = &mut self.ready {
            ready.streams.set_link(now, link);
        }
    }

    /// Returns whether its link is to show a sign of life ([`Streams::wants_contact`]).
    pub(super) fn wants_contact(&self) -> bool {
        self.streams().is_some_and(Streams::wants_contact)
    }

    pub(super) fn destination(&self) -> DestinationId {
        self.destination
    }

    /// The service's id, once the session is ready.
    pub(super) fn id(&self) -> Option<&str> {
        self.ready.as_ref().map(|ready| ready.id.as_str())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Returns the time since it became ready.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.ready.as_ref().map(|ready| now.saturating_duration_since(ready.since))
    }

    /// Number of connections that it carries.
    pub(super) fn len(&self) -> usize {
        self.streams().map_or(0, Streams::len)
    }

    /// Returns whether another connection can be taken.
    pub(super) fn may_open(&self) -> bool {
        self.streams().is_some_and(Streams::may_open)
    }

    /// Returns whether it has no stream ids left for another connection.
    pub(super) fn is_spent(&self) -> bool {
        self.streams().is_some_and(Streams::is_spent)
    }

    /// Returns whether a local reader holds up the session.
    pub(super) fn is_held_up(&self) -> bool {
        self.streams().is_some_and(Streams::is_held_up)
    }

    /// Since when no connection uses it: there is none, or each is idle ([`Streams::idle_since`]). `None` while it is used or
    /// not ready.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let ready = self.ready.as_ref()?;
        if ready.streams.len() == 0 {
            self.empty_since.max(Some(ready.since))
        } else {
            ready.streams.idle_since()
        }
    }

    /// State of its destination.
    pub(super) fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Takes a refusal that the agent reports.
    pub(super) fn handle_refused(&mut self) {
        self.replies.handle_refused();
    }

    /// Takes a connection that has waited, for a client that awaits a reply if it `is_proxied`.
    pub(super) fn open(
        &mut self,
        now: Instant,
        number: ConnectionId,
        waiting: Waiting,
        is_proxied: bool,
        connections: &mut Connections,
        out: &mut Outputs,
    ) {
        let Some(ready) = &mut self.ready else { return };
        let id = match ready.streams.open(now, number) {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(%error, "cannot open a stream");
                connections.remove(&number);
                return out.push_back(Action::Close(number));
            }
        };
        connections.entry(number).and_modify(|place| place.stream = Some((self.number, id)));
        out.push_back(Action::Join(number, self.number));
        let (early, is_reading, has_ended) = waiting.into_parts();
        ready.streams.handle_early_input(id, &early, is_reading);
        if has_ended {
            ready.streams.handle_input_end(now, id);
        }
        if is_proxied {
            let reply = self.replies.open(now, number, self.round_trip);
            out.extend(reply.map(|reply| Action::Reply(number, reply)));
        }
        self.feed();
        self.drain(now, connections, out);
    }

    /// Takes a report about the connection of a stream.
    pub(super) fn handle_report(
        &mut self,
        now: Instant,
        (number, id): (ConnectionId, StreamId),
        report: Report,
        connections: &mut Connections,
        out: &mut Outputs,
    ) {
        let Some(ready) = &mut self.ready else { return };
        match report {
            Report::Data(bytes) => ready.streams.handle_input(id, &bytes),
            Report::InputEnded => ready.streams.handle_input_end(now, id),
            // What it has sent is still to be delivered.
            Report::HungUp => {}
            Report::Reset | Report::Closed => {
                ready.streams.handle_closed(id);
                self.forget(now, number, connections);
                out.push_back(Action::Close(number));
            }
        }
        self.feed();
        self.drain(now, connections, out);
    }

    /// Takes bytes from the channel.
    ///
    /// # Errors
    /// The end of the session. What came before that is delivered.
    pub(super) fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: Bytes,
        connections: &mut Connections,
        out: &mut Outputs,
    ) -> Result<(), SessionEnd> {
        let Some(ready) = &mut self.ready else { return Ok(()) };
        let handled = ready.streams.handle_bytes(now, bytes);
        self.feed();
        self.drain(now, connections, out);
        handled.map_err(SessionEnd::from)
    }

    /// At most `max` bytes for the channel, filled from the streams in turns.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        max: usize,
        connections: &mut Connections,
        out: &mut Outputs,
    ) -> Option<Bytes> {
        let bytes = self.ready.as_mut()?.streams.poll_transmit(max);
        bytes.inspect(|_| self.drain(now, connections, out))
    }

    /// At most `max` bytes for an agent that may not listen yet ([`Streams::poll_tentative`]).
    pub(super) fn poll_tentative(
        &mut self,
        now: Instant,
        max: usize,
        connections: &mut Connections,
        out: &mut Outputs,
    ) -> Option<Bytes> {
        let bytes = self.ready.as_mut()?.streams.poll_tentative(max);
        bytes.inspect(|_| self.drain(now, connections, out))
    }

    /// The agent listens from now on.
    pub(super) fn handle_listening(&mut self) {
        if let Some(ready) = &mut self.ready {
            ready.streams.settle();
        }
    }

    /// When [`Session::handle_timeout`] is due, and why.
    pub(super) fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        let streams = self.streams().and_then(Streams::next_timeout).map(|at| (at, "streams"));
        let reply = self.replies.next_timeout().map(|at| (at, "a proxy's reply"));
        streams.into_iter().chain(reply).min()
    }

    /// Does what is due. Returns true if a local reader has held up the session for long, once each time.
    ///
    /// # Errors
    /// The end of the session.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outputs) -> Result<bool, SessionEnd> {
        let replies = self.replies.handle_timeout(now);
        out.extend(replies.map(|(number, reply)| Action::Reply(number, reply)));
        let Some(ready) = &mut self.ready else { return Ok(false) };
        ready.streams.handle_timeout(now)?;
        Ok(ready.streams.take_stall(now))
    }

    /// Ends half-closed streams early: the descriptors of their connections are needed.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(ready) = &mut self.ready {
            ready.streams.hurry(now);
        }
    }

    /// Closes all connections. What has come whole is delivered whole; the others are reset.
    pub(super) fn close_all(&mut self, connections: &mut Connections, out: &mut Outputs) {
        let Some(ready) = &self.ready else { return };
        for (number, is_ended) in ready.streams.connections() {
            connections.remove(&number);
            match (self.replies.close(number), is_ended) {
                (Some(reply), _) => out.extend([Action::Reply(number, reply), Action::Dismiss(number)]),
                (None, true) => out.push_back(Action::Release(number)),
                (None, false) => out.push_back(Action::Close(number)),
            }
        }
    }

    /// Leaves ids for so many connections only.
    #[cfg(test)]
    pub(super) fn leave_ids(&mut self, count: u32) {
        if let Some(ready) = &mut self.ready {
            ready.streams.leave_ids(count);
        }
    }

    fn streams(&self) -> Option<&Streams> {
        self.ready.as_ref().map(|ready| &ready.streams)
    }

    /// Requests more input where room has come up.
    fn feed(&mut self) {
        if let Some(ready) = &mut self.ready {
            ready.streams.feed();
        }
    }

    /// Takes the actions of the streams, each after the reply that it means.
    fn drain(&mut self, now: Instant, connections: &mut Connections, out: &mut Outputs) {
        while let Some(action) = self.ready.as_mut().and_then(|ready| ready.streams.poll_action()) {
            let reply = match action {
                Action::Write(number, _) => self.replies.handle_data(number).map(|reply| (number, reply)),
                Action::Finish(number) => self.replies.handle_end(number).map(|reply| (number, reply)),
                Action::Close(number) => {
                    self.forget(now, number, connections);
                    None
                }
                _ => None,
            };
            out.extend(reply.map(|(number, reply)| Action::Reply(number, reply)));
            out.push_back(action);
        }
    }

    fn forget(&mut self, now: Instant, number: ConnectionId, connections: &mut Connections) {
        self.replies.close(number);
        connections.remove(&number);
        self.empty_since = (self.len() == 0).then_some(now);
    }
}

impl From<smux::Error> for SessionEnd {
    fn from(error: smux::Error) -> SessionEnd {
        SessionEnd::given_up(error.to_string())
    }
}
