//! Assignment of connections to sessions: a state machine without clock, runtime and socket.
//!
//! ```text
//! handle_accepted, handle_report          ─▶ ┌───────────┐ ─▶ poll_action     (what to do, in order)
//! handle_ready, handle_bytes, handle_ended ─▶ │ Forwarder │ ─▶ poll_transmit   (bytes for a session's channel)
//! set_link, handle_timeout                ─▶ └───────────┘ ─▶ poll_timeout
//! ```
//!
//! The [`Forwarder`] has three tables: the destinations, the sessions to them, and the connections with the place of each:
//! it waits at its destination, or it has a stream of a session.
//!
//! | file | subject |
//! |---|---|
//! | `destination` | number of sessions, which of them takes a connection, when one is started or replaced |
//! | `session`, `streams` | one session and its smux streams: fairness, half-close, stalls |
//! | `tables`, `place` | sessions and connections, which both of them change |
//! | `reply` | the reply that each client of a proxy gets, and when |
//! | `waiting`, `probes` | connections without a session; those that need none |
//! | `retry`, `quota`, `seats` | delays after failures; limits on session starts and on the sessions of proxies' clients |
//! | `handover` | when the next connection of an agent that carries one may begin (`single`) |
//! | `api` | reports and actions |
//!
//! Time is a parameter and never runs backwards; seeds are parameters, too. After each `handle_*` the actions are polled
//! and carried out, then the bytes for each session that has room are polled:
//!
//! ```ignore
//! forwarder.handle_accepted(now, connection, destination);
//! while let Some(action) = forwarder.poll_action() {
//!     perform(action);
//! }
//! ```
//!
//! In scope: everything that is decided about connections and sessions. Out of scope: sockets, links, calls to AWS, text
//! for people (`pump`, `mux`).
// Tests start their virtual clocks somewhere.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod api;
mod destination;
#[cfg(feature = "cli")]
mod handover;
mod place;
mod probes;
mod quota;
mod reply;
mod retry;
mod seats;
mod session;
mod streams;
mod tables;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub(crate) use self::api::{
    Action, CHUNK, ConnectionId, DestinationId, LinkState, Report, SessionEnd, SessionId,
};
use self::destination::Destination;
pub(crate) use self::destination::{Policy, WAIT};
#[cfg(feature = "cli")]
pub(crate) use self::handover::{Handover, Traffic};
use self::quota::{StartOutcome, StartQuota};
pub(crate) use self::retry::Plan;
use self::seats::{Need, Seat};
use self::session::Session;
use self::tables::Tables;
use crate::destination::Destination as Address;
use crate::output::{Status, Subject, sentences};

/// All destinations of a run, their sessions and connections.
#[derive(Debug)]
pub(crate) struct Forwarder {
    destinations: BTreeMap<DestinationId, Destination>,
    /// Destinations of proxies' clients, which come and go.
    proxied: BTreeMap<Address, DestinationId>,
    tables: Tables,
    quota: StartQuota,
    /// When a session that is needed may be started.
    next_start: Option<Instant>,
    next_destination: u64,
    /// Descriptors that the process may have.
    descriptors: usize,
    random: fastrand::Rng,
}

/// State of one destination, for a report that the user requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overview {
    /// `None` for the destination of the command line.
    pub destination: Option<String>,
    /// The oldest session that is ready.
    pub session: Option<SessionId>,
    pub connections: usize,
}

impl Forwarder {
    /// A forwarder without destinations. `descriptors`: how many the process may have. `seed`: for the jitter of delays.
    pub(crate) fn new(now: Instant, descriptors: usize, seed: u64) -> Forwarder {
        Forwarder {
            destinations: BTreeMap::new(),
            proxied: BTreeMap::new(),
            tables: Tables::default(),
            quota: StartQuota::new(now),
            next_start: None,
            next_destination: 0,
            descriptors,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Adds a destination; `None` for the one of the command line.
    pub(crate) fn add_destination(&mut self, address: Option<Address>, policy: Policy) -> DestinationId {
        let number = DestinationId(self.next_destination);
        self.next_destination += 1;
        let seed = self.random.u64(..);
        let destination = Destination::new(number, address, policy, self.descriptors, seed);
        self.destinations.insert(number, destination);
        number
    }

    /// Returns the destination of a proxy's client, which is added unless it is known.
    pub(crate) fn proxied_destination(&mut self, address: Address, policy: Policy) -> DestinationId {
        if let Some(number) = self.proxied.get(&address) {
            return *number;
        }
        self.forget_unused();
        let number = self.add_destination(Some(address.clone()), policy);
        self.proxied.insert(address, number);
        number
    }

    /// Adds a session that was started elsewhere and is ready. `id`: the service's. `keepalive_off`: its agent wants no
    /// keepalives in smux.
    pub(crate) fn add_ready_session(
        &mut self,
        now: Instant,
        destination: DestinationId,
        id: &str,
        keepalive_off: bool,
    ) -> Option<SessionId> {
        let number = self.destinations.get_mut(&destination)?.add_session(&mut self.tables);
        self.tables.sessions.get_mut(&number)?.handle_ready(now, id, keepalive_off);
        self.settle(now);
        Some(number)
    }

    /// Starts a session to each destination, before a connection needs it.
    pub(crate) fn start_all(&mut self, now: Instant) {
        self.destinations.values_mut().for_each(Destination::want_one);
        self.settle(now);
    }

    /// Address of a destination; `None` for the one of the command line.
    pub(crate) fn address(&self, destination: DestinationId) -> Option<&Address> {
        self.destinations.get(&destination)?.address()
    }

    /// Returns whether a destination takes another connection.
    pub(crate) fn may_accept(&self, destination: DestinationId) -> bool {
        self.destinations.get(&destination).is_some_and(|destination| destination.may_accept(&self.tables))
    }

    /// Returns whether another client of a proxy may be accepted: its connection may have to wait.
    pub(crate) fn may_accept_proxied(&self) -> bool {
        let waiting = self.proxied().map(|(_, destination)| destination.waiting_count());
        waiting.sum::<usize>() < MAX_PROXIED_WAITING.min(self.descriptors / 4)
    }

    /// Subject of a session's events, if it is the oldest of its destination, which speaks for all.
    pub(crate) fn speaker(&self, session: SessionId) -> Option<Subject> {
        let entry = self.tables.sessions.get(&session)?;
        let destination = self.destinations.get(&entry.destination())?;
        (destination.session_numbers().first() == Some(&session)).then(|| destination.subject(entry))
    }

    /// State of each destination that is in use.
    pub(crate) fn overview(&self) -> Vec<Overview> {
        let shown = self.destinations.values().filter_map(|destination| {
            let (sessions, connections) = (destination.session_numbers(), destination.len(&self.tables));
            if destination.policy().is_proxied && sessions.is_empty() && connections == 0 {
                return None;
            }
            let is_ready =
                |number: &&SessionId| self.tables.sessions.get(number).is_some_and(Session::is_ready);
            let session = sessions.iter().find(is_ready).copied();
            Some(Overview { destination: destination.name(), session, connections })
        });
        shown.collect()
    }

    /// Takes a connection, whose first chunk is requested already.
    pub(crate) fn handle_accepted(&mut self, now: Instant, number: ConnectionId, destination: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(&destination) {
            destination.handle_accepted(now, number, &mut self.tables);
        }
        self.settle(now);
    }

    /// Takes a report about a connection. Of one that is gone, nothing is known any more.
    pub(crate) fn handle_report(&mut self, now: Instant, number: ConnectionId, report: Report) {
        let Some(place) = self.tables.connections.get(&number).copied() else { return };
        let Some(destination) = self.destinations.get_mut(&place.destination) else { return };
        destination.note_report(number, &report, &self.tables);
        match place.stream {
            None => destination.handle_report(now, number, report, &mut self.tables),
            Some((session, stream)) => {
                let Tables { sessions, connections, out, .. } = &mut self.tables;
                if let Some(session) = sessions.get_mut(&session) {
                    session.handle_report(now, (number, stream), report, connections, out);
                }
            }
        }
        self.settle(now);
    }

    /// The handshake of a session is over, which was started for an [`Action::Start`].
    pub(crate) fn handle_ready(&mut self, now: Instant, number: SessionId, id: &str, keepalive_off: bool) {
        let Some(session) = self.tables.sessions.get_mut(&number) else { return };
        session.handle_ready(now, id, keepalive_off);
        self.quota.handle_outcome(now, StartOutcome::Succeeded);
        if let Some(destination) = self.destinations.get_mut(&session.destination()) {
            destination.handle_ready(id, &mut self.tables);
        }
        self.settle(now);
    }

    /// Takes bytes from a session's channel.
    pub(crate) fn handle_bytes(&mut self, now: Instant, number: SessionId, bytes: Bytes) {
        let Tables { sessions, connections, out, .. } = &mut self.tables;
        let Some(session) = sessions.get_mut(&number) else { return };
        match session.handle_bytes(now, bytes, connections, out) {
            Ok(()) => self.settle(now),
            Err(end) => self.handle_ended(now, number, end),
        }
    }

    /// A session's agent takes all input from now on.
    pub(crate) fn handle_listening(&mut self, number: SessionId) {
        self.tables.sessions.get_mut(&number).into_iter().for_each(Session::handle_listening);
    }

    /// The agent could not reach a session's destination.
    pub(crate) fn handle_refused(&mut self, number: SessionId) {
        let Some(session) = self.tables.sessions.get_mut(&number) else { return };
        session.handle_refused();
        let destination = self.destinations.get(&session.destination()).and_then(Destination::name);
        self.tables.out.push_back(Action::Report(Status::DestinationRefused { destination }));
    }

    /// A session has ended, or could not be started.
    pub(crate) fn handle_ended(&mut self, now: Instant, number: SessionId, end: SessionEnd) {
        let outcome = end.start_error.as_ref().and_then(StartOutcome::of);
        outcome.into_iter().for_each(|outcome| self.quota.handle_outcome(now, outcome));
        let Some(session) = self.tables.sessions.get(&number) else { return };
        if let Some(destination) = self.destinations.get_mut(&session.destination()) {
            destination.handle_ended(now, number, end, &mut self.tables);
        }
        self.settle(now);
    }

    /// Takes the state of a session's link.
    pub(crate) fn set_link(&mut self, now: Instant, number: SessionId, link: LinkState) {
        if let Some(session) = self.tables.sessions.get_mut(&number) {
            session.set_link(now, link);
        }
    }

    /// Returns whether a session's link is to show a sign of life, if there is no other.
    pub(crate) fn wants_contact(&self, number: SessionId) -> bool {
        self.tables.sessions.get(&number).is_some_and(Session::wants_contact)
    }

    /// Ends half-closed streams whose remote has been quiet for a second instead of ten: their descriptors are needed. Their clients
    /// are reset, since an answer may still have come.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.tables.sessions.values_mut().for_each(|session| session.hurry(now));
    }

    /// At most `max` bytes for a session's channel, filled from its streams in turns.
    #[must_use]
    pub(crate) fn poll_transmit(&mut self, now: Instant, number: SessionId, max: usize) -> Option<Bytes> {
        let Tables { sessions, connections, out, .. } = &mut self.tables;
        sessions.get_mut(&number)?.poll_transmit(now, max, connections, out)
    }

    /// At most `max` bytes for a session whose agent may not listen yet ([`Input::Tentative`](crate::protocol::Input)).
    #[must_use]
    pub(crate) fn poll_tentative(&mut self, now: Instant, number: SessionId, max: usize) -> Option<Bytes> {
        let Tables { sessions, connections, out, .. } = &mut self.tables;
        sessions.get_mut(&number)?.poll_tentative(now, max, connections, out)
    }

    /// Returns the next action.
    #[must_use]
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.tables.out.pop_front()
    }

    /// When [`Forwarder::handle_timeout`] is due, and why.
    #[must_use]
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let sessions = self.tables.sessions.values().filter_map(Session::next_timeout);
        let destinations = self.destinations.values().filter_map(Destination::next_timeout);
        let unused =
            self.proxied().filter_map(|(_, destination)| Some(destination.idle_since()? + PROXIED_IDLE));
        let unused = unused.map(|at| (at, "an unused destination"));
        let start = self.next_start.map(|at| (at, "a session's start"));
        sessions.chain(destinations).chain(unused).chain(start).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let numbers: Vec<_> = self.tables.sessions.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.handle_session_timeout(now, number));
        self.destinations.values_mut().for_each(|it| it.handle_timeout(now, &mut self.tables));
        let is_old = |destination: &Destination| {
            destination.idle_since().is_some_and(|since| since + PROXIED_IDLE <= now)
        };
        let old: Vec<_> = self.proxied().filter(|(_, it)| is_old(it)).map(|(number, _)| number).collect();
        old.into_iter().for_each(|number| self.remove(number));
        self.settle(now);
    }

    /// Closes the connections of all sessions.
    pub(crate) fn close(&mut self) {
        let Tables { sessions, connections, out, .. } = &mut self.tables;
        sessions.values_mut().for_each(|session| session.close_all(connections, out));
    }

    fn handle_session_timeout(&mut self, now: Instant, number: SessionId) {
        let Some(session) = self.tables.sessions.get_mut(&number) else { return };
        match session.handle_timeout(now, &mut self.tables.out) {
            Ok(false) => {}
            Ok(true) => {
                let destination = self.destinations.get(&session.destination());
                let of = destination.map(|destination| destination.subject(session)).unwrap_or_default();
                self.tables.out.push_back(Action::Report(Status::ReaderStalled { of }));
            }
            Err(end) => self.handle_ended(now, number, end),
        }
    }

    /// Brings connections and sessions together after a change, and starts the sessions that are needed.
    fn settle(&mut self, now: Instant) {
        self.destinations.values_mut().for_each(|destination| destination.settle(now, &mut self.tables));
        if self.start_sessions(now) && self.quota.report_wait() {
            self.tables.out.push_back(Action::Report(Status::message(sentences::STARTS_WAIT.to_owned())));
        }
    }

    /// Starts the sessions that are needed and allowed now. Returns whether some have to wait for the quota.
    fn start_sessions(&mut self, now: Instant) -> bool {
        self.next_start = None;
        let mut needs = self.needs(now);
        while let Some((.., number)) = needs.pop_first() {
            while let Some(need) = self.destinations.get(&number).and_then(|it| it.need(now, &self.tables)) {
                if let Some(at) = self.quota.ready_at(now) {
                    self.next_start = Some(self.next_start.map_or(at, |other| other.min(at)));
                    return true;
                }
                if !self.make_room(now, number, need) {
                    break;
                }
                self.quota.take(now);
                if let Some(destination) = self.destinations.get_mut(&number) {
                    let session = destination.add_session(&mut self.tables);
                    self.tables.out.push_back(Action::Start(session, number));
                }
            }
        }
        false
    }

    /// The destinations that need sessions: those whose clients have none before others, then by how long they have waited.
    fn needs(&self, now: Instant) -> BTreeSet<(bool, ConnectionId, DestinationId)> {
        let needs = self.destinations.iter().filter_map(|(number, destination)| {
            let is_additional = destination.need(now, &self.tables)? == Need::Additional;
            let oldest = destination.oldest_waiting().unwrap_or(ConnectionId(0));
            Some((is_additional, oldest, *number))
        });
        needs.collect()
    }

    /// Returns whether a session may be started as far as the seats of proxies' clients are concerned; ends an idle one if
    /// that is needed.
    fn make_room(&mut self, now: Instant, number: DestinationId, need: Need) -> bool {
        if !self.proxied().any(|(other, _)| other == number) {
            return true;
        }
        let taken = self.proxied().map(|(_, destination)| destination.session_numbers().len()).sum();
        let sessions = self.proxied().flat_map(|(number, destination)| {
            destination.session_numbers().iter().map(move |session| (number, *session))
        });
        let idle = sessions.filter_map(|(number, session)| {
            Some((self.tables.sessions.get(&session)?.idle_since()?, (number, session)))
        });
        match seats::seat(now, need, taken, idle) {
            Seat::Free => true,
            Seat::InsteadOf((other, session)) => {
                if let Some(destination) = self.destinations.get_mut(&other) {
                    destination.end_session(session, &mut self.tables);
                }
                true
            }
            Seat::Wait(at) => {
                self.next_start = self.next_start.into_iter().chain(at).min();
                false
            }
        }
    }

    /// Makes room for another destination: those that are in use are bounded by the connections that may wait, those
    /// without session and connection are kept only for what is known of them.
    fn forget_unused(&mut self) {
        if self.proxied.len() < MAX_PROXIED {
            return;
        }
        let unused = self.proxied().filter(|(_, destination)| destination.session_numbers().is_empty());
        let unused = unused.filter_map(|(number, destination)| Some((destination.idle_since()?, number)));
        if let Some((_, number)) = unused.min() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: DestinationId) {
        self.proxied.retain(|_, other| *other != number);
        if let Some(destination) = self.destinations.remove(&number) {
            destination.end(&mut self.tables);
        }
    }

    fn proxied(&self) -> impl Iterator<Item = (DestinationId, &Destination)> {
        self.proxied.values().filter_map(|number| Some((*number, self.destinations.get(number)?)))
    }
}

/// Destinations of proxies' clients that are remembered without a session.
const MAX_PROXIED: usize = 128;
/// Clients of proxies that wait for a session, where there are descriptors enough; others wait in the listener.
const MAX_PROXIED_WAITING: usize = 1024;
/// Time that an unused one is kept.
const PROXIED_IDLE: Duration = Duration::from_secs(300);
