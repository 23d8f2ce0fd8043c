//! A pool: the lanes of one destination, and the connections that wait for one.
//!
//! A connection goes to the ready lane with the fewest connections; a lane that a local reader holds up is taken only if
//! there is no other. While no lane can take them, connections wait, in a pool on demand here, else in the listener. When
//! sessions are started is the pool's plan:
//!
//! | [`Plan`] | sessions are started | a lane that ends |
//! |---|---|---|
//! | `Fixed` | all at once | is replaced, with backoff, said once; the end of the first is the end of the run |
//! | `OnDemand` | as connections need them, one for each up to the number allowed | is replaced for the next connection that needs it |
//!
//! A pool says what it needs ([`Pool::need`]); `pools` starts it when the limits of the run allow ([`Pool::start_lane`]). A
//! connection that may be a probe (`probes`) needs nothing.
//!
//! After a failure one session at a time is tried, with backoff, and on demand only while a connection waits. A cause that
//! does not pass by itself (denied, no sign-in) closes the waiting connections at once; those of the next seconds are
//! refused without another question to the service.
//!
//! The agent resolves the destination once for each session. So a pool on demand gives up a lane whose destination was
//! refused and that has no living connection, for the next connection to find a database that has moved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::ending::{End, Remains};
use super::super::live::LiveSession;
use super::super::starter::{StartError, Starter, Starting};
use super::clock::now;
use super::core::probes::Probes;
use super::core::quota::StartOutcome;
use super::core::retry::{Plan, Retry, reply_for};
use super::core::seats::Need;
use super::lane::{ConnectionNumber, Lane, LaneEnd, LaneEvent};
use super::local::Budget;
use super::local::{Connection, FromConnection};
use super::proxy::Reply;
use super::waiting::Waiting;
use crate::aws::ErrorKind;
use crate::destination::Destination;
use crate::link::{Link, LinkEvent};
use crate::output::{Status, Subject, sentences};
use crate::process::descriptor_limit;

/// Events from a pool to the loop.
#[derive(Debug)]
pub(super) enum PoolEvent {
    /// Something has moved: the streams may want to send.
    Progress,
    /// Something of a session's connection for the user.
    Link(Subject, LinkEvent),
    /// A change of state.
    Tell(Status),
    /// A line for stderr in any case.
    Failure(String),
    /// The destination was refused.
    Refused,
    /// The end of the lane without which there is nothing left.
    Over(End),
}

/// Starts a session.
pub(super) type Start = Box<dyn Fn() -> Starting + Send>;

/// The lanes of one destination.
pub(super) struct Pool {
    plan: Plan,
    /// `None` for the destination of the command line.
    destination: Option<Destination>,
    /// True if its connections wait for a SOCKS reply.
    speaks_socks: bool,
    /// Since when there is no connection.
    idle_since: Option<Instant>,
    /// Largest number of lanes.
    sessions: usize,
    /// Number of lanes that the connections so far need, on demand.
    wanted: usize,
    /// Oldest first.
    lanes: Vec<Lane>,
    /// Lane at which the next poll for events begins, so that one busy session cannot starve the others.
    cursor: usize,
    waiting: BTreeMap<ConnectionNumber, Waiting>,
    probes: Probes,
    /// Largest number of connections that wait here; additional ones wait in the listener.
    max_waiting: usize,
    /// `None` where no further session can be started.
    start: Option<Start>,
    budget: Arc<Budget>,
    retry: Retry,
    /// Outcomes of starts that the quota has not seen yet.
    outcomes: Vec<StartOutcome>,
    /// Sessions to be ended at the service.
    remains: Vec<Remains>,
    /// The last failure that was reported: on demand until a session is ready, otherwise for good (it is reported once).
    told: Option<String>,
}

impl Pool {
    /// The destination of argv: `first` is its session. `starter`: for further ones.
    pub(super) fn with_first(
        plan: Plan,
        first: LiveSession,
        starter: Option<Starter>,
        budget: &Arc<Budget>,
    ) -> Pool {
        let mut pool = Pool::without_lane(plan, starter.map(into_start), budget);
        pool.lanes.push(Lane::ready(first, budget));
        pool
    }

    /// Another destination, of the same target.
    pub(super) fn on_demand(destination: Destination, starter: &Starter, budget: &Arc<Budget>) -> Pool {
        let starter = starter.with(destination.request(&starter.request));
        let pool = Pool::without_lane(Plan::OnDemand, Some(into_start(starter)), budget);
        Pool { destination: Some(destination), ..pool }
    }

    /// Without a lane yet.
    pub(super) fn without_lane(plan: Plan, start: Option<Start>, budget: &Arc<Budget>) -> Pool {
        Pool {
            plan,
            destination: None,
            speaks_socks: false,
            idle_since: None,
            sessions: 1,
            wanted: 0,
            lanes: Vec::new(),
            cursor: 0,
            waiting: BTreeMap::new(),
            probes: Probes::default(),
            // The session that they wait for needs descriptors, too.
            max_waiting: MAX_WAITING.min(descriptor_limit() / 8),
            start,
            budget: Arc::clone(budget),
            retry: Retry::new(plan),
            outcomes: Vec::new(),
            remains: Vec::new(),
            told: None,
        }
    }

    /// With up to this many lanes; one, unless this is called.
    pub(super) fn with_sessions(self, sessions: usize) -> Pool {
        Pool { sessions, ..self }
    }

    /// Wants a session, although no connection needs one yet.
    pub(super) fn want_one(&mut self) {
        self.wanted = self.wanted.max(1);
    }

    /// For connections that wait for a SOCKS reply.
    pub(super) fn for_socks(self) -> Pool {
        Pool { speaks_socks: true, ..self }
    }

    /// Returns the destination; `None` for the one of the command line.
    pub(super) fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    /// Returns whether its sessions are started when connections need them.
    pub(super) fn is_on_demand(&self) -> bool {
        self.plan == Plan::OnDemand
    }

    /// Returns whether its connections wait for a SOCKS reply.
    pub(super) fn speaks_socks(&self) -> bool {
        self.speaks_socks
    }

    /// Since when there is no connection; `None` while there are some.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Returns the number of connections, including those that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.lanes.iter().map(Lane::len).sum::<usize>()
    }

    /// The id and the link of the oldest session that is ready.
    pub(super) fn oldest(&mut self) -> Option<(&str, &mut Link)> {
        self.lanes.iter_mut().find_map(Lane::session)
    }

    /// Returns the number of sessions, including those being started.
    pub(super) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Returns the number of connections that wait for a session.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The connection that has waited longest.
    pub(super) fn oldest_waiting(&self) -> Option<ConnectionNumber> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    /// The sessions that no connection uses, since when, by their index.
    pub(super) fn idle_lanes(&self) -> impl Iterator<Item = (Instant, usize)> {
        self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.idle_since()?, index)))
    }

    /// Returns whether another connection may be accepted.
    pub(super) fn may_take(&self) -> bool {
        let may_wait = self.plan == Plan::OnDemand && self.waiting.len() < self.max_waiting;
        may_wait || self.lanes.iter().any(Lane::may_open)
    }

    /// Takes a connection.
    pub(super) fn take(&mut self, number: ConnectionNumber, connection: Connection) {
        let now = now();
        self.refresh();
        let wait = if self.speaks_socks { WAIT_SOCKS } else { WAIT };
        let early = BytesMut::new();
        let waiting = Waiting { connection, early, is_reading: true, has_ended: false, until: now + wait };
        // Those that came before are served before.
        if self.waiting.is_empty() && self.lanes.iter().any(Lane::may_open) {
            self.place(number, waiting);
        } else if let Some((until, reply)) = self.retry.refusal
            && now < until
        {
            return refuse(waiting, reply);
        } else if self.plan == Plan::OnDemand && (self.speaks_socks || self.waiting.len() < self.max_waiting)
        {
            self.waiting.insert(number, waiting);
        } else {
            return refuse(waiting, Reply::GeneralFailure);
        }
        if self.speaks_socks {
            // Its request is more than a probe.
            self.update_wanted();
        } else if self.plan == Plan::OnDemand {
            self.probes.open(now, number);
        }
    }

    /// Takes what a connection's task reports.
    pub(super) fn handle_report(&mut self, number: ConnectionNumber, report: FromConnection) {
        if self.probes.handle_report(number, &report) {
            self.update_wanted();
        }
        if self.lanes.iter_mut().any(|lane| lane.handle_report(number, &report)) {
            return;
        }
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        if !waiting.handle_report(report) {
            if let Some(waiting) = self.waiting.remove(&number) {
                // A probe that waits for the end sees it.
                waiting.connection.dismiss();
            }
            self.limit_wanted();
        }
    }

    /// Moves what the streams have to send into the channels.
    pub(super) fn transmit(&mut self) {
        self.place_waiting();
        self.lanes.iter_mut().for_each(Lane::transmit);
        if self.len() > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now());
        }
    }

    /// Out of descriptors: ends every half-closed connection now instead of waiting for the remote to be quiet.
    pub(super) fn hurry(&mut self) {
        self.lanes.iter_mut().for_each(Lane::hurry);
    }

    /// The next event. Pends while there is nothing to tell.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PoolEvent> {
        if let Some(event) = self.retire() {
            return Poll::Ready(event);
        }
        let count = self.lanes.len();
        for offset in 0..count {
            let index = (self.cursor + offset) % count;
            if let Poll::Ready(event) = self.lanes[index].poll_event(cx) {
                self.cursor = index + 1;
                return Poll::Ready(self.handle(index, event));
            }
        }
        Poll::Pending
    }

    /// When [`Pool::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter_map(Lane::next_timeout);
        let waiting = self.waiting.values().map(|waiting| waiting.until);
        lanes.chain(waiting).chain(self.probes.next_timeout()).chain(self.retry.pause).min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<PoolEvent> {
        let mut events = Vec::new();
        for index in (0..self.lanes.len()).rev() {
            match self.lanes[index].handle_timeout(now) {
                Ok(true) => events.push(PoolEvent::Tell(Status::ReaderStalled { of: self.of(index) })),
                Ok(false) => {}
                Err(end) => events.push(self.handle_end(index, end)),
            }
        }
        self.retry.handle_timeout(now);
        if self.probes.handle_timeout(now) > 0 {
            self.update_wanted();
        }
        let over: Vec<_> = self.waiting.extract_if(.., |_, waiting| waiting.until <= now).collect();
        if over.is_empty() {
            return events;
        }
        self.limit_wanted();
        let had_no_place = self.speaks_socks && self.lanes.is_empty() && !self.retry.has_failed;
        let (text, reply) = if had_no_place {
            (sentences::TOO_MANY_DESTINATIONS, Reply::GeneralFailure)
        } else {
            (sentences::WAITED_IN_VAIN, self.retry.reply)
        };
        events.push(self.message(text.to_owned()));
        over.into_iter().for_each(|(_, waiting)| refuse(waiting, reply));
        events
    }

    /// Returns the pool's present need for a session, if any.
    pub(super) fn need(&self, now: Instant) -> Option<Need> {
        let usable = self.lanes.iter().filter(|lane| !lane.is_spent()).count();
        if self.start.is_none()
            || usable >= self.target()
            || self.retry.pause.is_some_and(|until| now < until)
        {
            return None;
        }
        // After a failure, one tells whether it is over; on demand only if a connection waits for it.
        let is_in_vain = self.plan == Plan::OnDemand && self.clients_waiting() == 0;
        if self.retry.has_failed && (is_in_vain || self.lanes.iter().any(|lane| !lane.is_ready())) {
            return None;
        }
        Some(if usable == 0 { Need::First } else { Need::Further })
    }

    /// Starts a session.
    pub(super) fn start_lane(&mut self) {
        if let Some(start) = &self.start {
            self.lanes.push(Lane::starting(start(), &self.budget));
        }
    }

    /// Ends a session that another destination needs more.
    pub(super) fn end_lane(&mut self, index: usize) {
        let mut lane = self.lanes.remove(index);
        self.remains.extend(lane.give_up(false));
        self.limit_wanted();
    }

    /// The outcomes of starts since this was asked last.
    pub(super) fn take_outcomes(&mut self) -> Vec<StartOutcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Takes the sessions that still have to be ended at the service.
    pub(super) fn take_remains(&mut self) -> impl Iterator<Item = Remains> + use<> {
        std::mem::take(&mut self.remains).into_iter()
    }

    /// Gives everything up. What is to be ended at the service.
    pub(super) fn give_up(mut self) -> Vec<Remains> {
        let open = self.lanes.iter_mut().filter_map(|lane| lane.give_up(false));
        self.remains.extend(open);
        self.remains
    }

    fn least_loaded(&mut self) -> Option<&mut Lane> {
        let open = self.lanes.iter_mut().filter(|lane| lane.may_open());
        open.min_by_key(|lane| (lane.is_held_up(), lane.len()))
    }

    /// Returns the number of lanes wanted.
    fn target(&self) -> usize {
        match self.plan {
            Plan::Fixed => self.sessions,
            Plan::OnDemand => self.wanted,
        }
    }

    /// Ends a lane that has no stream ids left, when its last connection has gone and another takes over.
    fn retire(&mut self) -> Option<PoolEvent> {
        let has_successor = self.plan == Plan::OnDemand || self.lanes.iter().any(Lane::may_open);
        let is_done = |lane: &Lane| lane.is_spent() && lane.len() == 0;
        let index = self.lanes.iter().position(is_done).filter(|_| has_successor || self.start.is_none())?;
        if !has_successor {
            return Some(self.handle_end(index, LaneEnd::here(SPENT)));
        }
        let mut lane = self.lanes.remove(index);
        let session = lane.session().map(|(id, _)| id.to_owned()).unwrap_or_default();
        self.remains.extend(lane.give_up(false));
        let destination = self.name();
        Some(PoolEvent::Tell(Status::SessionEnded { session, destination, reason: SPENT.to_owned() }))
    }

    /// On demand, each client needs a lane, up to the number allowed.
    fn update_wanted(&mut self) {
        self.wanted = self.sessions.min(self.len() - self.probes.len().min(self.len()));
    }

    /// Sessions that the waiting connections do not need are started for the next connection, if one comes.
    fn limit_wanted(&mut self) {
        self.wanted = self.wanted.min(self.lanes.len() + self.clients_waiting());
    }

    /// Returns the number of waiting connections that are not probes, as far as known.
    fn clients_waiting(&self) -> usize {
        self.waiting.keys().filter(|number| !self.probes.is_fresh(**number)).count()
    }

    fn handle(&mut self, index: usize, event: LaneEvent) -> PoolEvent {
        match event {
            LaneEvent::Progress => PoolEvent::Progress,
            LaneEvent::Ready => {
                self.outcomes.push(StartOutcome::Succeeded);
                self.retry.has_failed = false;
                self.retry.refusal = None;
                self.retry.reply = Reply::HostUnreachable;
                let is_told = self.plan == Plan::OnDemand;
                if is_told {
                    self.told = None;
                }
                self.place_waiting();
                let session = self.lanes[index].session().map(|(id, _)| id.to_owned()).unwrap_or_default();
                PoolEvent::Tell(Status::SessionStarted { session, destination: self.name(), is_told })
            }
            LaneEvent::Refused => PoolEvent::Refused,
            // One of them speaks for all: the oldest.
            LaneEvent::Tell(event) if index == 0 => PoolEvent::Link(self.of(index), event),
            LaneEvent::Tell(_) => PoolEvent::Progress,
            LaneEvent::Ended(end) => self.handle_end(index, end),
        }
    }

    /// Hands waiting connections to lanes that have room, oldest first.
    fn place_waiting(&mut self) {
        while self.lanes.iter().any(Lane::may_open)
            && let Some((number, waiting)) = self.waiting.pop_first()
        {
            self.place(number, waiting);
        }
    }

    fn place(&mut self, number: ConnectionNumber, waiting: Waiting) {
        let speaks_socks = self.speaks_socks;
        let Some(lane) = self.least_loaded() else {
            self.waiting.insert(number, waiting);
            return;
        };
        lane.open(number, waiting.connection, &waiting.early, waiting.is_reading);
        if speaks_socks {
            lane.answer(number);
        }
        if waiting.has_ended {
            lane.handle_report(number, &FromConnection::InputEnded);
        }
    }

    /// Drops a lane that is over, and plans the next attempt.
    fn handle_end(&mut self, index: usize, end: LaneEnd) -> PoolEvent {
        let mut lane = self.lanes.remove(index);
        let session = lane.session().map(|(id, _)| id.to_owned());
        let (lived, is_reached) = (lane.lived(), lane.is_reached());
        self.remains.extend(lane.give_up(end.is_over()));
        if is_reached {
            self.retry.reset_refresh();
        }
        self.limit_wanted();
        if self.plan == Plan::Fixed && index == 0 {
            return PoolEvent::Over(end.end);
        }
        tracing::warn!(reason = end.reason, "a further session has ended");
        if lived.is_some_and(|lived| lived >= STEADY_AFTER) {
            self.retry.backoff.reset();
        } else {
            self.retry.pause_after_failure(now());
        }
        if self.plan == Plan::Fixed {
            let is_news = self.told.is_none();
            let text = self.told.get_or_insert(sentences::fewer_sessions(&end.reason)).clone();
            return if is_news { self.message(text) } else { PoolEvent::Progress };
        }
        if let Some(session) = session {
            // The agent may not forward there. A SOCKS client gets a reply, instead of a session each.
            if self.speaks_socks && !is_reached && self.retry.pause.is_some() {
                self.retry.reply = Reply::HostUnreachable;
                self.retry.refuse();
            }
            let destination = self.name();
            return PoolEvent::Tell(Status::SessionEnded { session, destination, reason: end.reason });
        }
        self.handle_failed_start(&end)
    }

    /// A session that connections wait for could not be started.
    fn handle_failed_start(&mut self, end: &LaneEnd) -> PoolEvent {
        let error = end.start_error.as_ref();
        self.outcomes.extend(error.and_then(outcome_of));
        self.retry.reply = error.map_or(Reply::HostUnreachable, reply_for);
        let is_permanent = error.is_some_and(|error| !error.is_transient());
        if is_permanent {
            self.retry.refuse();
            for (_, waiting) in std::mem::take(&mut self.waiting) {
                refuse(waiting, self.retry.reply);
            }
        }
        let mut text = sentences::not_started(self.name().as_deref(), &end.reason);
        if let Some(advice) = error.and_then(StartError::advice) {
            text = format!("{text}; {advice}");
        }
        if self.told.as_ref() == Some(&text) {
            return PoolEvent::Progress;
        }
        self.told = Some(text.clone());
        if is_permanent { PoolEvent::Failure(text) } else { self.message(text) }
    }

    fn message(&self, text: String) -> PoolEvent {
        let of = Subject { session: None, destination: self.name() };
        PoolEvent::Tell(Status::Message { of, text })
    }

    fn of(&mut self, index: usize) -> Subject {
        let session = self.lanes[index].session().map(|(id, _)| id.to_owned());
        Subject { session, destination: self.name() }
    }

    fn name(&self) -> Option<String> {
        self.destination.as_ref().map(Destination::to_string)
    }

    /// Gives up lanes whose destination was refused and that nobody uses, unless they have looked for it just now.
    fn refresh(&mut self) {
        if self.plan == Plan::Fixed {
            return;
        }
        if self.lanes.iter().any(Lane::is_reached) {
            self.retry.reset_refresh();
        }
        let before = self.lanes.len();
        let (remains, age) = (&mut self.remains, self.retry.refresh_age);
        self.lanes.retain_mut(|lane| {
            let is_old = lane.lived().is_some_and(|lived| lived >= age);
            let is_stale = lane.is_refused() && lane.len() == 0 && is_old;
            if is_stale {
                remains.extend(lane.give_up(false));
            }
            !is_stale
        });
        if self.lanes.len() < before {
            self.retry.age_more();
        }
    }
}

/// Closes a connection that gets no session. Nothing of the remote has come on it: its end is the whole.
fn refuse(waiting: Waiting, reply: Reply) {
    waiting.connection.reply(reply);
    waiting.connection.dismiss();
}

/// Effect of a failed start on the quota.
fn outcome_of(error: &StartError) -> Option<StartOutcome> {
    let StartError::Aws(error) = error else { return None };
    match error.kind {
        ErrorKind::Throttled => Some(StartOutcome::Throttled),
        ErrorKind::BadCredentials => Some(StartOutcome::Repeated),
        _ => None,
    }
}

fn into_start(starter: Starter) -> Start {
    Box::new(move || starter.start())
}

/// Reason for the end of a lane after 2^31 connections.
const SPENT: &str = "it has no stream ids left";
/// A session that lasted this long was a good one: the next is started without delay.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Connections that wait at a time, where there are descriptors enough.
const MAX_WAITING: usize = 256;
/// Time that a connection waits for a session: longer than an instance takes to boot.
const WAIT: Duration = Duration::from_secs(300);
/// The same for a SOCKS client, which gives up itself before long.
const WAIT_SOCKS: Duration = Duration::from_secs(60);

// It sees private fields.
#[cfg(test)]
#[path = "tests/pool.rs"]
mod tests;
