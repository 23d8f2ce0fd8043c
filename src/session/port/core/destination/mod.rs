//! One destination: how many sessions it has, which of them takes a connection, when one is started or replaced.
//!
//! A connection goes to the ready session with the fewest connections; a session that a local reader holds up is taken only
//! if there is no other. While no session can take them, connections wait, on demand here, else in the listener. When
//! sessions are started is the [`Plan`]:
//!
//! | plan | sessions are started | a session that ends |
//! |---|---|---|
//! | `Fixed` | all at once | is replaced, with backoff, reported once; the end of the first is the end of the run |
//! | `OnDemand` | as connections need them, one for each up to the number allowed | is replaced for the next connection that needs it |
//!
//! A destination has a [`need`](Destination::need); the [`Forwarder`](super::Forwarder) has it met when the limits of the
//! run allow. A connection that may be a probe ([`Probes`]) needs nothing.
//!
//! After a failure one session at a time is tried, with backoff, and on demand only while a connection waits. A lasting cause
//! (denied, no sign-in) closes the waiting connections at once; those of the next seconds are refused without another
//! request to the service.
//!
//! The agent resolves the name once for each session. So on demand a session is given up whose destination was refused and
//! that has no living connection, for the next connection to find a database that has moved.

mod replacement;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::api::{Action, ConnectionId, DestinationId, Report, SessionId};
use super::place::Place;
use super::probes::Probes;
use super::reply::{NO_PLACE, Refusal};
use super::retry::{Plan, Retry};
use super::seats::Need;
use super::session::Session;
use super::tables::Tables;
use super::waiting::Waiting;
use crate::destination::Destination as Address;
use crate::output::{Status, Subject, sentences};
use crate::session::port::proxy::Reply;

/// The policy of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub plan: Plan,
    /// Largest number of sessions.
    pub sessions: usize,
    /// True if sessions can be started.
    pub can_start: bool,
    /// Time that a connection waits for a target that was never connected in this run; `None`: it is refused at once.
    pub first_wait: Option<Duration>,
    /// True if its clients are a proxy's, which wait for a reply.
    pub is_proxied: bool,
}

/// A destination, with the sessions to it and the connections that wait for one.
#[derive(Debug)]
pub(super) struct Destination {
    number: DestinationId,
    /// `None` for the one of the command line.
    address: Option<Address>,
    policy: Policy,
    /// Largest number of connections that wait here; additional ones wait in the listener.
    max_waiting: usize,
    /// Since when there is no connection.
    idle_since: Option<Instant>,
    /// Number of sessions that the connections so far need, on demand.
    wanted: usize,
    /// Oldest first.
    sessions: Vec<SessionId>,
    waiting: BTreeMap<ConnectionId, Waiting>,
    probes: Probes,
    retry: Retry,
    refusal: Refusal,
    /// The last failure that was reported: on demand until a session is ready, otherwise for good (it is reported once).
    reported: Option<String>,
    /// Reason of a failed additional session that is not reported yet: others are still being started ([`Plan::Fixed`]).
    shortfall: Option<String>,
}

impl Destination {
    /// A destination without sessions. `descriptors`: how many the process may have.
    pub(super) fn new(
        number: DestinationId,
        address: Option<Address>,
        policy: Policy,
        descriptors: usize,
        seed: u64,
    ) -> Destination {
        Destination {
            number,
            address,
            policy,
            // The session that they wait for needs descriptors, too.
            max_waiting: MAX_WAITING.min(descriptors / 8),
            idle_since: None,
            wanted: 0,
            sessions: Vec::new(),
            waiting: BTreeMap::new(),
            probes: Probes::default(),
            retry: Retry::new(policy.plan, seed),
            refusal: Refusal::default(),
            reported: None,
            shortfall: None,
        }
    }

    /// Adds a session, which was started elsewhere or is started now.
    pub(super) fn add_session(&mut self, tables: &mut Tables) -> SessionId {
        let session = tables.add_session(self.number);
        self.sessions.push(session);
        session
    }

    /// Wants a session, although no connection needs one yet.
    pub(super) fn want_one(&mut self) {
        self.wanted = self.wanted.max(1);
    }

    pub(super) fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// Since when there is no connection; `None` while there are some.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Number of connections, including those that wait.
    pub(super) fn len(&self, tables: &Tables) -> usize {
        self.waiting.len() + self.sessions(tables).map(Session::len).sum::<usize>()
    }

    /// Numbers of the sessions, oldest first, including those being started.
    pub(super) fn session_numbers(&self) -> &[SessionId] {
        &self.sessions
    }

    /// Number of connections that wait for a session.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The connection that has waited longest.
    pub(super) fn oldest_waiting(&self) -> Option<ConnectionId> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    /// Returns whether another connection may be accepted.
    pub(super) fn may_accept(&self, tables: &Tables) -> bool {
        let may_wait = self.is_on_demand() && self.waiting.len() < self.max_waiting;
        may_wait || self.sessions(tables).any(Session::may_open)
    }

    /// Takes a connection.
    pub(super) fn handle_accepted(&mut self, now: Instant, number: ConnectionId, tables: &mut Tables) {
        self.refresh(now, tables);
        let wait = self.policy.first_wait.filter(|_| !tables.was_ready).unwrap_or(WAIT);
        let wait = if self.policy.is_proxied { wait.min(WAIT_PROXIED) } else { wait };
        let is_full = !self.policy.is_proxied && self.waiting.len() >= self.max_waiting;
        // First come, first served.
        let is_next = self.waiting.is_empty() && self.sessions(tables).any(Session::may_open);
        let refusal = self.refusal.at_once(now).filter(|_| !is_next);
        if let Some(reply) = refusal.or((!is_next && (is_full || !self.is_on_demand())).then_some(NO_PLACE)) {
            return self.refuse(number, reply, tables);
        }
        tables.connections.insert(number, Place { destination: self.number, stream: None });
        self.waiting.insert(number, Waiting::new(now + wait));
        self.place_waiting(now, tables);
        if self.policy.is_proxied {
            // Its request is more than a probe.
            self.update_wanted(tables);
        } else if self.is_on_demand() {
            self.probes.open(now, number);
        }
    }

    /// Takes a report about a connection, before its session does.
    pub(super) fn note_report(&mut self, number: ConnectionId, report: &Report, tables: &Tables) {
        if self.probes.handle_report(number, report) {
            self.update_wanted(tables);
        }
    }

    /// Takes a report about a connection that waits.
    pub(super) fn handle_report(
        &mut self,
        now: Instant,
        number: ConnectionId,
        report: Report,
        tables: &mut Tables,
    ) {
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        let action = waiting.handle_report(now, number, report);
        if matches!(action, Some(Action::Dismiss(_))) {
            // A probe that waits for the end sees it.
            self.waiting.remove(&number);
            tables.connections.remove(&number);
            self.limit_wanted();
        }
        tables.out.extend(action);
    }

    /// Ends a session that another destination needs more.
    pub(super) fn end_session(&mut self, number: SessionId, tables: &mut Tables) {
        self.sessions.retain(|session| *session != number);
        tables.end_session(number, false);
        self.limit_wanted();
    }

    /// Ends all sessions.
    pub(super) fn end(mut self, tables: &mut Tables) {
        std::mem::take(&mut self.sessions)
            .into_iter()
            .for_each(|session| _ = tables.end_session(session, false));
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_keys().for_each(|number| self.refuse(number, NO_PLACE, tables));
    }

    /// Brings connections and sessions together after a change.
    pub(super) fn settle(&mut self, now: Instant, tables: &mut Tables) {
        self.place_waiting(now, tables);
        self.retire(now, tables);
        if self.len(tables) > 0 {
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert(now);
        }
    }

    /// When [`Destination::handle_timeout`] is due, and why.
    pub(super) fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        let waiting = self.waiting.values().map(|waiting| (waiting.until(), "a waiting connection"));
        let probe = self.probes.next_timeout().map(|at| (at, "a probe"));
        let retry = self.retry.pause.map(|at| (at, "another attempt"));
        waiting.chain(probe).chain(retry).min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, tables: &mut Tables) {
        self.retry.handle_timeout(now);
        if self.probes.handle_timeout(now) > 0 {
            self.update_wanted(tables);
        }
        let over: Vec<_> = self.waiting.extract_if(.., |_, waiting| waiting.until() <= now).collect();
        if over.is_empty() {
            return;
        }
        self.limit_wanted();
        let had_no_place = self.policy.is_proxied && self.sessions.is_empty() && !self.retry.has_failed;
        let text =
            if had_no_place { sentences::TOO_MANY_DESTINATIONS } else { sentences::NO_SESSION_IN_TIME };
        self.report_message(text.to_owned(), tables);
        over.into_iter().for_each(|(number, _)| self.refuse(number, Reply::TimedOut, tables));
    }

    /// Returns the present need for a session, if any.
    pub(super) fn need(&self, now: Instant, tables: &Tables) -> Option<Need> {
        let usable = self.sessions(tables).filter(|session| !session.is_spent()).count();
        let is_pause = self.retry.pause.is_some_and(|until| now < until);
        if !self.policy.can_start || usable >= self.target() || is_pause {
            return None;
        }
        // After a failure, one session shows if it is over; on demand only if a connection waits for it.
        let nothing_waits = self.is_on_demand() && self.clients_waiting() == 0;
        let is_trying = self.sessions(tables).any(|session| !session.is_ready());
        if self.retry.has_failed && (nothing_waits || is_trying) {
            return None;
        }
        Some(if usable == 0 { Need::First } else { Need::Additional })
    }

    /// The session and destination of an event, for the user.
    pub(super) fn subject(&self, session: &Session) -> Subject {
        Subject { session: session.id().map(str::to_owned), destination: self.name() }
    }

    fn sessions<'a>(&'a self, tables: &'a Tables) -> impl Iterator<Item = &'a Session> {
        self.sessions.iter().filter_map(|number| tables.sessions.get(number))
    }

    fn is_on_demand(&self) -> bool {
        self.policy.plan == Plan::OnDemand
    }

    /// Number of sessions wanted.
    fn target(&self) -> usize {
        match self.policy.plan {
            Plan::Fixed => self.policy.sessions,
            Plan::OnDemand => self.wanted,
        }
    }

    /// On demand, each client needs a session, up to the number allowed.
    fn update_wanted(&mut self, tables: &Tables) {
        let connections = self.len(tables);
        self.wanted = self.policy.sessions.min(connections - self.probes.len().min(connections));
    }

    /// Sessions that the waiting connections do not need are started for the next connection, if one comes.
    fn limit_wanted(&mut self) {
        self.wanted = self.wanted.min(self.sessions.len() + self.clients_waiting());
    }

    /// Number of waiting connections that are not probes, as far as known.
    fn clients_waiting(&self) -> usize {
        self.waiting.keys().filter(|number| !self.probes.is_fresh(**number)).count()
    }

    /// Hands waiting connections to sessions that have room, oldest first.
    fn place_waiting(&mut self, now: Instant, tables: &mut Tables) {
        while !self.waiting.is_empty()
            && let Some(session) = self.least_loaded(tables)
            && let Some((number, waiting)) = self.waiting.pop_first()
        {
            let Tables { sessions, connections, out, .. } = tables;
            if let Some(session) = sessions.get_mut(&session) {
                session.open(now, number, waiting, self.policy.is_proxied, connections, out);
            }
        }
    }

    fn least_loaded(&self, tables: &Tables) -> Option<SessionId> {
        let open = self.sessions.iter().filter_map(|number| {
            let session = tables.sessions.get(number).filter(|session| session.may_open())?;
            Some((session.is_held_up(), session.len(), *number))
        });
        open.min().map(|(.., number)| number)
    }

    /// Closes a connection that gets no session. A proxy's client gets a reply; another would take an orderly end for an
    /// empty answer.
    fn refuse(&self, number: ConnectionId, reply: Reply, tables: &mut Tables) {
        tables.connections.remove(&number);
        if self.policy.is_proxied {
            tables.out.extend([Action::Reply(number, reply), Action::Dismiss(number)]);
        } else {
            tables.out.push_back(Action::Close(number));
        }
    }

    fn report_message(&self, text: String, tables: &mut Tables) {
        let of = Subject { session: None, destination: self.name() };
        tables.out.push_back(Action::Report(Status::Message { of, text, is_failure: true }));
    }

    pub(super) fn name(&self) -> Option<String> {
        self.address.as_ref().map(Address::to_string)
    }
}

/// Connections that wait at a time, where there are descriptors enough.
const MAX_WAITING: usize = 256;
/// Time that a connection waits for a session: longer than an instance takes to boot.
pub(crate) const WAIT: Duration = Duration::from_secs(300);
/// The same for a proxy's client, which soon gives up itself.
const WAIT_PROXIED: Duration = Duration::from_secs(60);
