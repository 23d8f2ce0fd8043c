//! A lane: one multiplexed session, from StartSession to its end, and the local connections that it carries.
//!
//! ```text
//!            started            handshake over
//! Starting ───────────▶ Opening ───────────────▶ Ready
//!     │ refused             │ ended                │ ended
//!     └─────────────────────┴──────────────────────┴─────▶ Ended
//! ```
//!
//! The session of argv is a lane that begins as ready. A lane is used once: whether another takes its place is the
//! pool's to decide.
//!
//! This is where [`Streams`] meet a link, a clock and local connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::ending::{End, Remains};
use super::super::live::{LiveSession, Opening};
use super::super::starter::{StartError, Starting};
use super::clock::now;
use super::core::streams::{self, Streams};
use super::local::{Budget, Gauge};
use super::local::{Connection, FromConnection};
use super::proxy::Reply;
use crate::link::{GaveUp, Link, LinkEvent};
use crate::output::sentences;
use crate::protocol::{CloseReason, Event, Input, SessionKind};
use crate::smux::{self, StreamId};

/// Tells a connection from the others of the run.
pub(super) type ConnectionNumber = u64;

/// Events of a lane for its pool.
#[derive(Debug)]
pub(super) enum LaneEvent {
    /// Something has changed: the streams may have data to send.
    Progress,
    /// Connections can be taken.
    Ready,
    /// The agent could not reach the destination.
    Refused,
    /// An event to report to the user, while the lane is ready.
    Tell(LinkEvent),
    /// It is over; its connections are closed.
    Ended(LaneEnd),
}

/// End of a lane.
#[derive(Debug)]
pub(super) struct LaneEnd {
    /// The end of the run, if the run depends on this lane.
    pub end: End,
    /// The reason, for a status line.
    pub reason: String,
    /// Set if the session was never started.
    pub start_error: Option<StartError>,
}

/// One session.
pub(super) struct Lane {
    state: State,
    gauge: Arc<Gauge>,
    connections: BTreeMap<StreamId, (ConnectionNumber, Connection)>,
    streams_of: BTreeMap<ConnectionNumber, StreamId>,
    reach: Reach,
    /// Refusals told by the agent whose streams have not ended yet.
    refusals: usize,
    /// SOCKS clients that wait for their reply, and until when.
    unanswered: BTreeMap<StreamId, Instant>,
    ready_since: Option<Instant>,
    /// Since when it has no connection, from the first one's end on.
    empty_since: Option<Instant>,
    /// Names the session in the log, whose lines begin with the first session's id.
    span: tracing::Span,
}

enum State {
    Starting(Starting),
    Opening(Box<LiveSession>),
    Ready(Box<LiveSession>, Box<Streams>),
    Ended,
}

/// State of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Unknown,
    /// The agent could not reach it, and nothing has come from it since.
    Refused,
    /// Something has come from it.
    Reached,
}

impl Lane {
    /// A session that is being started.
    pub(super) fn starting(starting: Starting, budget: &Arc<Budget>) -> Lane {
        Lane::new(State::Starting(starting), budget)
    }

    /// A session whose handshake is over.
    pub(super) fn ready(session: LiveSession, budget: &Arc<Budget>) -> Lane {
        let streams = new_streams(&session.link);
        let lane = Lane::new(State::Ready(Box::new(session), Box::new(streams)), budget);
        Lane { ready_since: Some(now()), ..lane }
    }

    fn new(state: State, budget: &Arc<Budget>) -> Lane {
        Lane {
            state,
            gauge: Gauge::new(Arc::clone(budget)),
            connections: BTreeMap::new(),
            streams_of: BTreeMap::new(),
            reach: Reach::Unknown,
            refusals: 0,
            unanswered: BTreeMap::new(),
            ready_since: None,
            empty_since: None,
            span: tracing::Span::none(),
        }
    }

    /// The session's id and link, once it is ready.
    pub(super) fn session(&mut self) -> Option<(&str, &mut Link)> {
        match &mut self.state {
            State::Ready(session, _) => Some((&session.id, &mut session.link)),
            _ => None,
        }
    }

    /// Returns whether it has become ready and has not ended.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(..))
    }

    /// Returns the time since it became ready.
    pub(super) fn lived(&self) -> Option<Duration> {
        self.ready_since.map(|since| now().saturating_duration_since(since))
    }

    /// Number of connections that it carries.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns whether another connection can be taken.
    pub(super) fn may_open(&self) -> bool {
        self.streams().is_some_and(Streams::may_open)
    }

    /// Returns whether it has no stream ids left for another connection.
    pub(super) fn is_spent(&self) -> bool {
        self.streams().is_some_and(Streams::is_spent)
    }

    /// Leaves ids for so many connections only.
    #[cfg(test)]
    pub(super) fn leave_ids(&mut self, count: u32) {
        if let State::Ready(_, streams) = &mut self.state {
            streams.leave_ids(count);
        }
    }

    /// Since when no connection uses it: there is none, or each is idle ([`Streams::idle_since`]). `None` while it is used or
    /// not ready.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let streams = self.streams()?;
        if self.connections.is_empty() {
            self.empty_since.max(self.ready_since)
        } else {
            streams.idle_since()
        }
    }

    /// Returns whether a local reader holds up the session.
    pub(super) fn is_held_up(&self) -> bool {
        self.streams().is_some_and(Streams::is_held_up)
    }

    /// Returns whether the destination was refused, and nothing has come from it since.
    pub(super) fn is_refused(&self) -> bool {
        self.reach == Reach::Refused
    }

    /// Returns whether something has come from the destination, and it was not refused since.
    pub(super) fn is_reached(&self) -> bool {
        self.reach == Reach::Reached
    }

    /// Takes a connection, with what has been read from it before. `is_reading`: a chunk was asked for and has not come.
    pub(super) fn open(
        &mut self,
        number: ConnectionNumber,
        connection: Connection,
        early: &[u8],
        is_reading: bool,
    ) {
        let State::Ready(_, streams) = &mut self.state else { return };
        match streams.open() {
            Ok(id) => {
                connection.join(&self.gauge);
                self.connections.insert(id, (number, connection));
                self.streams_of.insert(number, id);
                streams.handle_early_input(id, early, is_reading);
            }
            Err(error) => tracing::warn!(%error, "cannot open a stream"),
        }
    }

    /// Answers a SOCKS client that was taken: at once where the destination is known to be there, else when something has
    /// come from it, or when a refusal would have come. The agent tells of refusals only.
    pub(super) fn answer(&mut self, number: ConnectionNumber) {
        let Some(&id) = self.streams_of.get(&number) else { return };
        let State::Ready(session, _) = &self.state else { return };
        let wait = (2 * session.link.stats().rtt + DIAL).min(LONGEST_ANSWER);
        self.unanswered.insert(id, now() + wait);
        if self.is_reached() {
            self.reply(id, Reply::Succeeded);
        }
    }

    /// Takes what a connection's task reports. Whether the connection is this lane's.
    pub(super) fn handle_report(&mut self, number: ConnectionNumber, report: &FromConnection) -> bool {
        let Some(&id) = self.streams_of.get(&number) else { return false };
        let State::Ready(_, streams) = &mut self.state else { return false };
        match report {
            FromConnection::Data(bytes) => streams.handle_input(id, bytes),
            FromConnection::InputEnded => streams.handle_input_end(now(), id),
            // What it has sent is still to be delivered.
            FromConnection::HungUp => {}
            FromConnection::Reset | FromConnection::Closed => {
                streams.handle_closed(id);
                self.close(id);
            }
        }
        true
    }

    /// Moves what the streams have to send into the channel, and tells the connections what to do.
    pub(super) fn transmit(&mut self) {
        let State::Ready(session, streams) = &mut self.state else { return };
        // For the deadline of the notice that a reader stalls.
        streams.set_room(now(), self.gauge.has_room());
        let link = &mut session.link;
        if let Some(bytes) = streams.poll_tentative(link.tentative_room()) {
            link.send(Input::Tentative(bytes));
        }
        while !link.is_held()
            && link.wants_input()
            && let Some(bytes) = streams.poll_transmit(link.input_room())
        {
            link.send(Input::Bytes(bytes));
        }
        streams.feed();
        self.drive_connections();
    }

    /// The next event. Pends while there is nothing to tell.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LaneEvent> {
        loop {
            let _named = self.span.clone().entered();
            match &mut self.state {
                State::Starting(starting) => match ready!(starting.as_mut().poll(cx)) {
                    Ok(session) => {
                        // At the level that no filter leaves out, so that each line of the session has it.
                        self.span = tracing::error_span!("further", id = %session.id);
                        self.state = State::Opening(Box::new(session));
                    }
                    Err(error) => {
                        self.state = State::Ended;
                        let reason = error.to_string();
                        let end = End::NotStarted(reason.clone());
                        return Poll::Ready(LaneEvent::Ended(LaneEnd {
                            end,
                            reason,
                            start_error: Some(error),
                        }));
                    }
                },
                State::Opening(session) => {
                    let step = ready!(session.poll_open(cx));
                    if let Some(event) = self.handle_opening(step) {
                        return Poll::Ready(event);
                    }
                }
                State::Ready(session, _) => {
                    let event = ready!(std::pin::pin!(session.link.next(self.gauge.has_room())).poll(cx));
                    return Poll::Ready(self.handle_ready(event));
                }
                State::Ended => return Poll::Pending,
            }
        }
    }

    /// When [`Lane::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let answer = self.unanswered.values().min().copied();
        answer.into_iter().chain(self.streams().and_then(Streams::next_timeout)).min()
    }

    /// Lets the streams do what is due. Says whether a local reader has held up the session for long, once each time.
    ///
    /// # Errors
    /// The end of the lane.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<bool, LaneEnd> {
        let _named = self.span.clone().entered();
        let due = self.unanswered.iter().filter(|(_, until)| **until <= now);
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reply(id, Reply::Succeeded);
        }
        let State::Ready(_, streams) = &mut self.state else { return Ok(false) };
        streams.set_room(now, self.gauge.has_room());
        streams.handle_timeout(now)?;
        Ok(streams.take_stall(now))
    }

    /// Tells the agent of all half-closed streams now: the descriptors of their connections are needed.
    pub(super) fn hurry(&mut self) {
        if let State::Ready(_, streams) = &mut self.state {
            streams.hurry();
        }
    }

    /// Gives the lane up, its connections with it. What must be ended at the service, if anything.
    pub(super) fn give_up(&mut self, is_over: bool) -> Option<Remains> {
        for id in std::mem::take(&mut self.unanswered).into_keys() {
            if let Some((_, connection)) = self.connections.remove(&id) {
                connection.reply(Reply::HostUnreachable);
                connection.dismiss();
            }
        }
        for (id, (_, connection)) in std::mem::take(&mut self.connections) {
            // What has come whole is delivered whole; the others are reset.
            if self.streams().is_some_and(|streams| streams.is_ended(id)) {
                connection.release();
            }
        }
        self.streams_of.clear();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Starting(starting) => Some(Remains::Starting(starting)),
            State::Opening(session) | State::Ready(session, _) if is_over => Some(Remains::Over(session)),
            State::Opening(session) | State::Ready(session, _) => Some(Remains::Open(session)),
            State::Ended => None,
        }
    }

    fn streams(&self) -> Option<&Streams> {
        match &self.state {
            State::Ready(_, streams) => Some(streams),
            _ => None,
        }
    }

    fn handle_opening(&mut self, step: Opening) -> Option<LaneEvent> {
        let State::Opening(session) = &mut self.state else { return None };
        match step {
            Opening::Ready(SessionKind::Port(port)) if port.is_forwarding() => {
                if !session.link.capabilities().multiplexing {
                    return Some(LaneEvent::Ended(LaneEnd::here(
                        "its agent forwards one connection at a time",
                    )));
                }
                tracing::info!("a further session is ready");
                let streams = Box::new(new_streams(&session.link));
                if let State::Opening(session) = std::mem::replace(&mut self.state, State::Ended) {
                    self.state = State::Ready(session, streams);
                    self.ready_since = Some(now());
                }
                Some(LaneEvent::Ready)
            }
            Opening::Ready(_) => Some(LaneEvent::Ended(LaneEnd::here("it is not a forwarding session"))),
            Opening::KeyFailed(_) => None,
            Opening::Link(event) => LaneEnd::of(&event).map(LaneEvent::Ended),
        }
    }

    fn handle_ready(&mut self, event: LinkEvent) -> LaneEvent {
        if !self.is_ready() {
            return LaneEvent::Progress;
        }
        match event {
            LinkEvent::Channel(Event::Output(bytes)) => match self.handle_bytes(bytes) {
                Ok(()) => LaneEvent::Progress,
                Err(error) => LaneEvent::Ended(error.into()),
            },
            LinkEvent::Channel(Event::Listening) => {
                if let State::Ready(_, streams) = &mut self.state {
                    streams.settle();
                }
                LaneEvent::Progress
            }
            LinkEvent::Channel(Event::PortRefused) => {
                self.reach = Reach::Refused;
                self.refusals += 1;
                LaneEvent::Refused
            }
            other => match LaneEnd::of(&other) {
                Some(end) => LaneEvent::Ended(end),
                None => LaneEvent::Tell(other),
            },
        }
    }

    /// Takes bytes from the channel, in parts: a message of one-byte frames becomes an event for each of them.
    fn handle_bytes(&mut self, mut bytes: Bytes) -> Result<(), smux::Error> {
        while !bytes.is_empty() {
            let State::Ready(_, streams) = &mut self.state else { break };
            let handled = streams.handle_bytes(now(), bytes.split_to(bytes.len().min(PART)));
            self.drive_connections();
            handled?;
        }
        Ok(())
    }

    fn drive_connections(&mut self) {
        loop {
            let State::Ready(_, streams) = &mut self.state else { return };
            let Some(event) = streams.poll_event() else { return };
            match event {
                streams::Event::Read(id) => self.connection(id).into_iter().for_each(Connection::grant),
                streams::Event::Write(id, bytes) => {
                    self.reach = Reach::Reached;
                    self.reply(id, Reply::Succeeded);
                    if let Some(connection) = self.connection(id) {
                        connection.write(&bytes);
                    }
                }
                streams::Event::End(id) => {
                    // The agent tells a refusal right before it ends the stream, in which nothing has come.
                    let is_refused = self.refusals > 0 && self.unanswered.contains_key(&id);
                    self.reply(id, if is_refused { Reply::HostUnreachable } else { Reply::Succeeded });
                    self.refusals -= usize::from(is_refused);
                    if self.unanswered.is_empty() {
                        self.refusals = 0;
                    }
                    self.connection(id).into_iter().for_each(Connection::end);
                }
                streams::Event::Close(id) => self.close(id),
            }
        }
    }

    fn connection(&self, id: StreamId) -> Option<&Connection> {
        self.connections.get(&id).map(|(_, connection)| connection)
    }

    /// Answers a SOCKS client, if that is still to be done.
    fn reply(&mut self, id: StreamId, reply: Reply) {
        if self.unanswered.remove(&id).is_some()
            && let Some(connection) = self.connection(id)
        {
            connection.reply(reply);
        }
    }

    fn close(&mut self, id: StreamId) {
        self.unanswered.remove(&id);
        if let Some((number, _)) = self.connections.remove(&id) {
            self.streams_of.remove(&number);
            self.empty_since = self.connections.is_empty().then(now);
        }
    }
}

impl LaneEnd {
    pub(super) fn here(reason: impl Into<String>) -> LaneEnd {
        let reason = reason.into();
        LaneEnd { end: End::Failed(reason.clone()), reason, start_error: None }
    }

    /// `None` for an event that ends nothing.
    fn of(event: &LinkEvent) -> Option<LaneEnd> {
        let (end, reason) = match event {
            LinkEvent::GaveUp(reason @ GaveUp::SessionGone) => (End::TimedOut, reason.to_string()),
            LinkEvent::GaveUp(reason) => (End::Failed(sentences::gave_up(reason)), reason.to_string()),
            LinkEvent::Channel(Event::Closed(CloseReason::ByService(output))) => {
                (End::Closed(output.clone()), in_one_line(output))
            }
            LinkEvent::Channel(Event::Closed(reason)) => {
                (End::Failed(reason.to_string()), reason.to_string())
            }
            _ => return None,
        };
        Some(LaneEnd { end, reason, start_error: None })
    }

    /// Returns whether the service knows: it has ended the session itself.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, End::Closed(_) | End::TimedOut)
    }
}

impl From<smux::Error> for LaneEnd {
    fn from(error: smux::Error) -> LaneEnd {
        LaneEnd::here(error.to_string())
    }
}

/// The service's reason for a status line.
fn in_one_line(output: &str) -> String {
    let text = output.replace(char::is_control, " ");
    match text.trim() {
        "" => "closed by the service".to_owned(),
        text => text.to_owned(),
    }
}

fn new_streams(link: &Link) -> Streams {
    Streams::new(link.capabilities().smux_keepalive_off, now())
}

/// Bytes from the channel whose events are handled together.
const PART: usize = 64 << 10;
/// Time that an agent needs to find that a destination in its network refuses, in addition to the round trip.
const DIAL: Duration = Duration::from_millis(100);
/// No SOCKS client waits longer for its reply than this, with a session.
const LONGEST_ANSWER: Duration = Duration::from_secs(1);

// It sees private fields.
#[cfg(test)]
#[path = "tests/lane.rs"]
mod tests;
