//! Carries out the decisions of the [`Forwarder`]: owns links, session starts, listeners and local connections.
//!
//! Each call of [`Pump::next`] waits for one of them, hands what has happened to the forwarder with the time, and carries
//! out the actions that follow. Nothing is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::core::{
    Action, ConnectionId, DestinationId, Forwarder, LinkState, Policy, Report, SessionEnd, SessionId,
};
use super::early::early_limits;
use super::listen::{Accepted, Listeners};
use super::local::{Budget, Connection, Gauge, Journal, Limits, LocalStream};
use super::proxy::{Preface, Refusal, Request};
use crate::destination::Destination;
use crate::link::{Link, LinkEvent};
use crate::output::{Status, Subject};
use crate::process::{Stranger, descriptor_limit};
use crate::protocol::{Event, Input, SessionKind};
use crate::session::ending::{End, LeftoverSession, Reaper};
use crate::session::live::{LiveSession, Opening};
use crate::session::starter::{Starter, Starting};
use crate::session::timer::sleep_until;

/// The moving parts of a run.
pub(super) struct Pump {
    pub listeners: Listeners,
    pub journal: Arc<Journal>,
    core: Forwarder,
    sessions: BTreeMap<SessionId, Carrier>,
    /// Session that produced the last event.
    cursor: SessionId,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Starts sessions, where that is possible.
    starter: Option<Starter>,
    /// Policy for the destinations of proxies' clients.
    proxied: Policy,
    budget: Arc<Budget>,
    reaper: Reaper,
    reports: mpsc::Sender<(ConnectionId, Report)>,
    received: mpsc::Receiver<(ConnectionId, Report)>,
    /// Events that the caller has not had yet.
    events: VecDeque<PumpEvent>,
}

/// Event for the user's side.
#[derive(Debug)]
pub(super) enum PumpEvent {
    /// Nothing to be printed.
    Progress,
    /// A client has connected to a port.
    Accepted(DestinationId),
    /// A client of a proxy was refused.
    Refused(Refusal),
    /// A client of another user, by number, was refused.
    Stranger(Stranger),
    /// No connection could be accepted: a line about it, once.
    AcceptFailed(Option<String>),
    /// Report of the forwarder.
    Report(Status),
    /// Event of the session that speaks for a destination.
    Link(Subject, LinkEvent),
    /// Nothing is left to be run.
    Over(End),
}

/// Carrier of a session: its start, then its link.
struct Carrier {
    stage: Stage,
    gauge: Arc<Gauge>,
    /// Names the session in the log, whose lines begin with the first session's id.
    span: tracing::Span,
}

enum Stage {
    Starting(Starting),
    Live { session: Box<LiveSession>, is_ready: bool },
}

/// Step of a session.
enum Step {
    Ready,
    Link(LinkEvent),
    Ended(SessionEnd),
}

impl Pump {
    /// A pump without listeners and destinations. `buffer`: bytes of memory that may wait for one slow reader; `starter`:
    /// for additional sessions; `proxied`: the policy for the destinations of proxies' clients.
    pub(super) fn new(
        buffer: usize,
        journal: Arc<Journal>,
        starter: Option<Starter>,
        proxied: Policy,
    ) -> Pump {
        let (reports, received) = mpsc::channel(REPORTS);
        Pump {
            listeners: Listeners::default(),
            journal,
            core: Forwarder::new(now(), descriptor_limit(), fastrand::u64(..)),
            sessions: BTreeMap::new(),
            cursor: SessionId(0),
            connections: BTreeMap::new(),
            starter,
            proxied,
            budget: Budget::new(Limits::new(buffer)),
            reaper: Reaper::default(),
            reports,
            received,
            events: VecDeque::new(),
        }
    }

    /// Adds a destination; `None` for the one of the command line.
    pub(super) fn add_destination(&mut self, address: Option<Destination>, policy: Policy) -> DestinationId {
        self.core.add_destination(address, policy)
    }

    /// Adds a session that is ready.
    pub(super) fn add_session(&mut self, destination: DestinationId, session: LiveSession) {
        let keepalive_off = session.link.capabilities().smux_keepalive_off;
        if let Some(number) = self.core.add_ready_session(now(), destination, &session.id, keepalive_off) {
            let (stage, gauge) = (
                Stage::Live { session: Box::new(session), is_ready: true },
                Gauge::new(Arc::clone(&self.budget)),
            );
            self.sessions.insert(number, Carrier { stage, gauge, span: tracing::Span::none() });
        }
    }

    /// Starts a session to each destination, before a connection needs it.
    pub(super) fn start_all(&mut self) {
        self.core.start_all(now());
    }

    /// Returns the next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> PumpEvent {
        self.transmit();
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        let core = &self.core;
        self.listeners.set_wanted(|destination| core.may_accept(destination), core.may_accept_proxied());
        let timeout = core.poll_timeout().map(|(at, _)| at.into());
        let event = tokio::select! {
            (number, step) = poll_fn(|cx| poll_sessions(&mut self.sessions, self.cursor, cx)) => {
                self.handle_step(number, step)
            }
            Some((number, report)) = self.received.recv() => {
                self.core.handle_report(now(), number, report);
                PumpEvent::Progress
            }
            accepted = self.listeners.accept() => self.handle_accepted(accepted),
            // A local reader has made room: look again which sessions may be read.
            () = self.budget.progress() => PumpEvent::Progress,
            () = sleep_until(timeout) => {
                self.core.handle_timeout(now());
                PumpEvent::Progress
            }
        };
        self.perform();
        event
    }

    /// State of each destination that is in use: its name, its connections, and the oldest session that is ready.
    pub(super) fn overview(&self) -> impl Iterator<Item = (Option<String>, usize, Option<(&str, &Link)>)> {
        self.core.overview().into_iter().map(|destination| {
            let carrier = destination.session.and_then(|number| self.sessions.get(&number));
            let session = carrier.and_then(Carrier::session);
            let session = session.map(|session| (session.id.as_str(), &session.link));
            (destination.destination, destination.connections, session)
        })
    }

    /// Closes all listeners and connections. Returns the sessions to be ended at the service, and those being ended.
    pub(super) fn close(self) -> (Vec<LeftoverSession>, Reaper, Arc<Journal>) {
        let Pump { mut core, sessions, mut connections, reaper, journal, listeners, .. } = self;
        drop(listeners);
        core.close();
        while let Some(action) = core.poll_action() {
            perform_local(&mut connections, action);
        }
        (sessions.into_values().map(|carrier| carrier.into_leftover(false)).collect(), reaper, journal)
    }

    fn handle_step(&mut self, number: SessionId, step: Step) -> PumpEvent {
        self.cursor = number;
        match step {
            Step::Ready => {
                if let Some(session) = self.sessions.get(&number).and_then(Carrier::session) {
                    let keepalive_off = session.link.capabilities().smux_keepalive_off;
                    self.core.handle_ready(now(), number, &session.id, keepalive_off);
                }
            }
            Step::Ended(end) => {
                if end.start_error.is_some() {
                    self.sessions.remove(&number);
                }
                self.core.handle_ended(now(), number, end);
            }
            Step::Link(LinkEvent::Channel(Event::Output(bytes))) => self.handle_bytes(number, bytes),
            Step::Link(LinkEvent::Channel(Event::Listening)) => self.core.handle_listening(number),
            Step::Link(LinkEvent::Channel(Event::PortRefused)) => self.core.handle_refused(number),
            Step::Link(event) => {
                if let Some(subject) = self.core.speaker(number) {
                    return PumpEvent::Link(subject, event);
                }
            }
        }
        PumpEvent::Progress
    }

    /// Takes bytes from a channel, in parts: a message of one-byte frames becomes an action for each of them.
    fn handle_bytes(&mut self, number: SessionId, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.core.handle_bytes(now(), number, bytes.split_to(bytes.len().min(PART)));
            self.perform();
        }
    }

    fn handle_accepted(&mut self, accepted: Accepted) -> PumpEvent {
        match accepted {
            Accepted::Port(destination, stream) => {
                self.take(destination, stream, Preface::default());
                PumpEvent::Accepted(destination)
            }
            Accepted::Socks(Request { destination, preface }, stream) => {
                let destination = self.core.proxied_destination(destination, self.proxied);
                self.take(destination, stream, preface);
                PumpEvent::Progress
            }
            Accepted::Refused(refusal) => PumpEvent::Refused(refusal),
            Accepted::Stranger(stranger) => PumpEvent::Stranger(stranger),
            Accepted::Failed(text) => {
                self.core.hurry(now());
                PumpEvent::AcceptFailed(text)
            }
        }
    }

    /// Takes a local connection.
    fn take(&mut self, destination: DestinationId, stream: LocalStream, preface: Preface) {
        let entry = self.journal.open(&stream, self.core.address(destination));
        let number = ConnectionId(entry.number());
        let connection = Connection::start(stream, preface, number, self.reports.clone(), entry);
        self.connections.insert(number, connection);
        self.core.handle_accepted(now(), number, destination);
    }

    /// Moves what the streams have to send into the channels, and carries out what is decided.
    fn transmit(&mut self) {
        self.perform();
        self.limit_early_messages();
        let now = now();
        for (number, carrier) in &mut self.sessions {
            let Stage::Live { session, is_ready: true } = &mut carrier.stage else { continue };
            let link = &mut session.link;
            let heard = link.last_contact().map_or(now, |at| at.into_std());
            let paused_since = link.paused_since().filter(|_| link.is_drained());
            let down_since = match (link.is_open(), link.is_paused()) {
                // The agent takes nothing while another stream's destination takes nothing.
                (true, false) => link.unacknowledged_since().filter(|since| *since + AGENT_STALL <= now),
                // A request waits here while the agent is paused.
                (true, true) => paused_since.is_none().then_some(now),
                // Requests that are unacknowledged may have been lost since then, on a path whose death was noticed now.
                (false, _) => Some(if link.is_drained() { now } else { heard }),
            };
            let (has_room, round_trip) = (carrier.gauge.has_room(), link.stats().rtt);
            let (received, has_gap) = (link.stats().messages_received, link.early_bytes() > 0);
            let state =
                LinkState { down_since, paused_since, heard, received, has_gap, has_room, round_trip };
            self.core.set_link(now, *number, state);
            if self.core.wants_contact(*number) {
                link.check();
            }
            if let Some(bytes) = self.core.poll_tentative(now, *number, link.tentative_room()) {
                link.send(Input::Tentative(bytes));
            }
            while !link.is_held()
                && link.wants_input()
                && let Some(bytes) = self.core.poll_transmit(now, *number, link.input_room())
            {
                link.send(Input::Bytes(bytes));
            }
        }
        self.perform();
    }

    fn limit_early_messages(&mut self) {
        let links = self.sessions.values_mut().filter_map(Carrier::link_mut);
        let mut links: Vec<&mut Link> = links.collect();
        let held: Vec<usize> = links.iter().map(|link| link.early_bytes()).collect();
        links.iter_mut().zip(early_limits(&held)).for_each(|(link, limit)| link.set_early_limit(limit));
    }

    /// Carries out the forwarder's actions.
    fn perform(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Start(session, destination) => self.start(session, destination),
                Action::End { session, is_over } => {
                    if let Some(carrier) = self.sessions.remove(&session) {
                        self.reaper.end(carrier.into_leftover(is_over));
                    }
                }
                Action::Join(number, session) => {
                    if let Some(connection) = self.connections.get(&number)
                        && let Some(carrier) = self.sessions.get(&session)
                    {
                        connection.join(&carrier.gauge);
                    }
                }
                Action::Report(status) => self.events.push_back(PumpEvent::Report(status)),
                Action::Over(end) => self.events.push_back(PumpEvent::Over(end)),
                local => perform_local(&mut self.connections, local),
            }
        }
    }

    fn start(&mut self, session: SessionId, destination: DestinationId) {
        let Some(starter) = &self.starter else { return };
        let starting = match self.core.address(destination) {
            Some(address) => starter.with(address.request(&starter.request)).start(),
            None => starter.start(),
        };
        let (stage, gauge) = (Stage::Starting(starting), Gauge::new(Arc::clone(&self.budget)));
        self.sessions.insert(session, Carrier { stage, gauge, span: tracing::Span::none() });
    }
}

/// Carries out an action about a local connection.
fn perform_local(connections: &mut BTreeMap<ConnectionId, Connection>, action: Action) {
    match action {
        Action::Read(number) => connections.get(&number).into_iter().for_each(Connection::grant),
        Action::Write(number, bytes) => connections.get(&number).into_iter().for_each(|it| it.write(&bytes)),
        Action::Reply(number, reply) => connections.get(&number).into_iter().for_each(|it| it.reply(reply)),
        Action::Finish(number) => connections.get(&number).into_iter().for_each(Connection::end),
        Action::Close(number) => drop(connections.remove(&number)),
        Action::Release(number) => connections.remove(&number).into_iter().for_each(Connection::release),
        Action::Dismiss(number) => connections.remove(&number).into_iter().for_each(Connection::dismiss),
        _ => {}
    }
}

/// Polls the sessions in turns, those after `cursor` first, so that one busy session cannot starve the others.
fn poll_sessions(
    sessions: &mut BTreeMap<SessionId, Carrier>,
    cursor: SessionId,
    cx: &mut Context<'_>,
) -> Poll<(SessionId, Step)> {
    for is_later in [true, false] {
        for (number, carrier) in sessions.iter_mut().filter(|(number, _)| (**number > cursor) == is_later) {
            if let Poll::Ready(step) = carrier.poll_step(cx) {
                return Poll::Ready((*number, step));
            }
        }
    }
    Poll::Pending
}

impl Carrier {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let _named = self.span.clone().entered();
            match &mut self.stage {
                Stage::Starting(starting) => match ready!(starting.as_mut().poll(cx)) {
                    Ok(session) => {
                        // At the level that no filter leaves out, so that each line of the session has it.
                        self.span = tracing::error_span!("additional", id = %session.id);
                        self.stage = Stage::Live { session: Box::new(session), is_ready: false };
                    }
                    Err(error) => return Poll::Ready(Step::Ended(SessionEnd::not_started(error))),
                },
                Stage::Live { session, is_ready: is_ready @ false } => {
                    let opening = ready!(session.poll_open(cx));
                    let is_multiplexing = session.link.capabilities().multiplexing;
                    if let Some(step) = opening_step(opening, is_multiplexing) {
                        *is_ready = matches!(step, Step::Ready);
                        return Poll::Ready(step);
                    }
                }
                Stage::Live { session, is_ready: true } => {
                    let event = ready!(pin!(session.link.next(self.gauge.has_room())).poll(cx));
                    return Poll::Ready(SessionEnd::of(&event).map_or(Step::Link(event), Step::Ended));
                }
            }
        }
    }

    /// The session, once it is ready.
    fn session(&self) -> Option<&LiveSession> {
        match &self.stage {
            Stage::Live { session, is_ready: true } => Some(session),
            _ => None,
        }
    }

    /// The link, from its beginning.
    fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.stage {
            Stage::Live { session, .. } => Some(&mut session.link),
            Stage::Starting(_) => None,
        }
    }

    fn into_leftover(mut self, is_over: bool) -> LeftoverSession {
        // Sessions being ended have no share in the memory for early messages.
        self.link_mut().into_iter().for_each(Link::discard_early);
        match self.stage {
            Stage::Starting(starting) => LeftoverSession::Starting(starting),
            Stage::Live { session, .. } if is_over => LeftoverSession::Over(session),
            Stage::Live { session, .. } => LeftoverSession::Open(session),
        }
    }
}

/// Step that an opening handshake makes for a forwarded port.
fn opening_step(opening: Opening, is_multiplexing: bool) -> Option<Step> {
    match opening {
        Opening::Ready(SessionKind::Port(port)) if port.is_forwarding() => Some(if is_multiplexing {
            tracing::info!("an additional session is ready");
            Step::Ready
        } else {
            Step::Ended(SessionEnd::given_up("its agent forwards one connection at a time"))
        }),
        Opening::Ready(_) => Some(Step::Ended(SessionEnd::given_up("it is not a port-forwarding session"))),
        Opening::KeyFailed(_) => None,
        Opening::Link(event) => SessionEnd::of(&event).map(Step::Ended),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Time without an acknowledgement after which the agent counts as stalled.
const AGENT_STALL: Duration = Duration::from_secs(2);
/// Bytes from the channel whose actions are carried out together.
const PART: usize = 64 << 10;
/// Reports of connections' tasks that wait for the pump.
const REPORTS: usize = 64;
