//! A pool: the lanes of one destination, and the connections that wait for one.
//!
//! A connection goes to the ready lane with the fewest connections, to one that a local reader holds up only if there is
//! no other. When there is none, it waits, if its pool starts sessions on demand:
//!
//! | [`Plan`] | sessions are started | a lane that ends |
//! |---|---|---|
//! | `Fixed` | all at once | is replaced, with backoff, said once |
//! | `OnDemand` | as connections need them, one for each up to the number allowed | is replaced for the next connection that needs it |
//!
//! After a failure one session at a time is tried, with backoff, and on demand only while a connection waits. A cause that
//! does not pass by itself (denied, no sign-in) closes the waiting connections at once; those of the next seconds are
//! refused without another question to the service.
//!
//! The agent resolves the destination once for each session. So a pool on demand gives up a lane whose destination was
//! refused and that has no living connection, for the next connection to find a database that has moved.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::Sleep;

use super::super::ending::{End, Remains};
use super::super::starter::{StartError, Started, Starter};
use super::connection::{CHUNK, Connection, FromConnection};
use super::gauge::Budget;
use super::lane::{ConnectionNumber, Lane, LaneEnd, LaneEvent};
use crate::link::{Backoff, LinkEvent};
use crate::notice;

/// When sessions are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// At once, and again when they end; without the first there is nothing left.
    Fixed,
    /// When connections need them.
    OnDemand,
}

/// What a pool tells the loop.
#[derive(Debug)]
pub(super) enum PoolEvent {
    /// Something has moved: the streams may want to send.
    Progress,
    /// Something for the user.
    Tell(LinkEvent),
    /// A line for stderr, where the settings want it.
    Status(String),
    /// A line for stderr in any case.
    Complaint(String),
    /// The destination was refused.
    Refused,
    /// The end of the lane without which there is nothing left.
    Over(End),
}

/// The lanes of one destination.
pub(super) struct Pool {
    plan: Plan,
    /// How many lanes there may be.
    sessions: usize,
    /// Oldest first.
    lanes: Vec<Lane>,
    /// Where the next look for events begins, so that one busy session does not silence the others.
    cursor: usize,
    waiting: BTreeMap<ConnectionNumber, Waiting>,
    /// `None` where no further session can be started.
    starter: Option<Starter>,
    budget: Arc<Budget>,
    retry: Retry,
    /// Sessions to be ended at the service.
    remains: Vec<Remains>,
    /// What was said last of failures, until something works again.
    told: Option<String>,
}

/// A connection without a lane.
struct Waiting {
    connection: Connection,
    early: BytesMut,
    /// A chunk was asked for and has not come.
    is_reading: bool,
    has_ended: bool,
    until: Instant,
}

/// When the next session may be started.
struct Retry {
    backoff: Backoff,
    /// After a failure, until a session is ready.
    has_failed: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// Until when connections are refused without asking.
    refused_until: Option<Instant>,
    /// Before which a lane whose destination was refused is not replaced.
    refresh: Backoff,
    refresh_after: Option<Instant>,
}

impl Pool {
    /// The destination of argv: `first` is its session. `starter`: for further ones.
    pub fn with_first(plan: Plan, first: Started, starter: Option<Starter>, budget: &Arc<Budget>) -> Pool {
        let mut pool = Pool::new(plan, starter, budget);
        pool.lanes.push(Lane::ready(first, budget));
        pool
    }

    fn new(plan: Plan, starter: Option<Starter>, budget: &Arc<Budget>) -> Pool {
        let backoff = match plan {
            Plan::Fixed => Backoff::with_steps(FIRST_RETRY_FIXED, LAST_RETRY_FIXED, fastrand::u64(..)),
            Plan::OnDemand => Backoff::with_steps(FIRST_RETRY, LAST_RETRY, fastrand::u64(..)),
        };
        Pool {
            plan,
            sessions: 1,
            lanes: Vec::new(),
            cursor: 0,
            waiting: BTreeMap::new(),
            starter,
            budget: Arc::clone(budget),
            retry: Retry {
                backoff,
                has_failed: false,
                pause: None,
                refused_until: None,
                refresh: Backoff::with_steps(FIRST_REFRESH, LAST_REFRESH, fastrand::u64(..)),
                refresh_after: None,
            },
            remains: Vec::new(),
            told: None,
        }
    }

    /// With up to so many lanes; one, unless this is called.
    pub fn with_sessions(self, sessions: usize) -> Pool {
        Pool { sessions, ..self }
    }

    /// How many connections there are, those that wait included.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.lanes.iter().map(Lane::len).sum::<usize>()
    }

    /// The oldest lane, if it is ready.
    pub fn oldest(&mut self) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.is_ready())
    }

    /// Whether another connection may be accepted.
    pub fn may_take(&self) -> bool {
        let may_wait = self.plan == Plan::OnDemand && self.waiting.len() < MAX_WAITING;
        may_wait || self.lanes.iter().any(Lane::may_open)
    }

    /// Takes a connection.
    pub fn take(&mut self, number: ConnectionNumber, connection: Connection) {
        let now = Instant::now();
        self.refresh(now);
        if let Some(lane) = self.least_loaded() {
            return lane.open(number, connection, &[], true);
        }
        if self.plan == Plan::Fixed || self.retry.refused_until.is_some_and(|until| now < until) {
            return;
        }
        let waiting = Waiting {
            connection,
            early: BytesMut::new(),
            is_reading: true,
            has_ended: false,
            until: now + WAIT,
        };
        self.waiting.insert(number, waiting);
    }

    /// Takes what a connection's task reports.
    pub fn handle_report(&mut self, number: ConnectionNumber, report: FromConnection) {
        if self.lanes.iter_mut().any(|lane| lane.handle_report(number, &report)) {
            return;
        }
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        if !waiting.handle_report(report) {
            self.waiting.remove(&number);
        }
    }

    /// Moves what the streams have to send into the channels.
    pub fn transmit(&mut self) {
        self.lanes.iter_mut().for_each(Lane::transmit);
    }

    /// Keeps no connection waiting any more whose local input has ended: its descriptor is needed.
    pub fn hurry(&mut self) {
        self.lanes.iter_mut().for_each(Lane::hurry);
    }

    /// The next event. Pends while there is nothing to tell.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PoolEvent> {
        self.start_lanes(cx);
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
    pub fn next_timeout(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter_map(Lane::next_timeout);
        lanes.chain(self.waiting.values().map(|waiting| waiting.until)).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<PoolEvent> {
        let mut events = Vec::new();
        for index in (0..self.lanes.len()).rev() {
            match self.lanes[index].handle_timeout(now) {
                Ok(true) => events.push(PoolEvent::Status(notice::READER_STALLS.to_owned())),
                Ok(false) => {}
                Err(end) => events.push(self.handle_end(index, end)),
            }
        }
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| now < waiting.until);
        if self.waiting.len() < before {
            events.push(PoolEvent::Status(notice::WAITED_IN_VAIN.to_owned()));
        }
        events
    }

    /// What is to be ended at the service since this was asked last.
    pub fn take_remains(&mut self) -> Vec<Remains> {
        std::mem::take(&mut self.remains)
    }

    /// Gives everything up. What is to be ended at the service.
    pub fn give_up(mut self) -> Vec<Remains> {
        let open = self.lanes.iter_mut().filter_map(|lane| lane.give_up(false));
        self.remains.extend(open);
        self.remains
    }

    fn least_loaded(&mut self) -> Option<&mut Lane> {
        let open = self.lanes.iter_mut().filter(|lane| lane.may_open());
        open.min_by_key(|lane| (lane.is_held_up(), lane.len()))
    }

    /// How many lanes there should be.
    fn target(&self) -> usize {
        match self.plan {
            Plan::Fixed => self.sessions,
            Plan::OnDemand => self.sessions.min(self.len()),
        }
    }

    /// Starts what is missing and may be started now.
    fn start_lanes(&mut self, cx: &mut Context<'_>) {
        while self.lanes.len() < self.target()
            && let Some(starter) = &self.starter
        {
            // After a failure, one tells whether it is over.
            if self.retry.has_failed && self.lanes.iter().any(|lane| !lane.is_ready()) {
                return;
            }
            if let Some(pause) = &mut self.retry.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.retry.pause = None;
            }
            self.lanes.push(Lane::starting(starter.start(), &self.budget));
        }
    }

    fn handle(&mut self, index: usize, event: LaneEvent) -> PoolEvent {
        match event {
            LaneEvent::Progress => PoolEvent::Progress,
            LaneEvent::Ready => {
                self.retry.has_failed = false;
                self.retry.refused_until = None;
                if self.plan == Plan::OnDemand {
                    self.told = None;
                }
                for (number, waiting) in std::mem::take(&mut self.waiting) {
                    self.place(number, waiting);
                }
                PoolEvent::Progress
            }
            LaneEvent::Refused => PoolEvent::Refused,
            // One of them speaks for all: the oldest.
            LaneEvent::Tell(event) if index == 0 => PoolEvent::Tell(event),
            LaneEvent::Tell(_) => PoolEvent::Progress,
            LaneEvent::Ended(end) => self.handle_end(index, end),
        }
    }

    fn place(&mut self, number: ConnectionNumber, waiting: Waiting) {
        let Some(lane) = self.least_loaded() else {
            self.waiting.insert(number, waiting);
            return;
        };
        lane.open(number, waiting.connection, &waiting.early, waiting.is_reading);
        if waiting.has_ended {
            lane.handle_report(number, &FromConnection::InputEnded);
        }
    }

    /// Drops a lane that is over, and plans the next attempt.
    fn handle_end(&mut self, index: usize, end: LaneEnd) -> PoolEvent {
        let mut lane = self.lanes.remove(index);
        let was_ready = lane.is_ready();
        let lived = lane.lived();
        self.remains.extend(lane.give_up(end.is_over()));
        if self.plan == Plan::Fixed && index == 0 {
            return PoolEvent::Over(end.end);
        }
        tracing::warn!(reason = end.reason, "a further session has ended");
        if lived.is_some_and(|lived| lived >= STEADY_AFTER) {
            self.retry.backoff.reset();
        } else {
            self.retry.pause_after_failure();
        }
        let text = match (self.plan, was_ready) {
            (Plan::Fixed, _) => {
                let is_news = self.told.is_none();
                let text = self.told.get_or_insert(notice::fewer_sessions(&end.reason));
                return if is_news { PoolEvent::Status(text.clone()) } else { PoolEvent::Progress };
            }
            (Plan::OnDemand, true) => return PoolEvent::Status(notice::session_ended(&end.reason)),
            (Plan::OnDemand, false) => notice::not_started(&end.reason),
        };
        let is_permanent = end.start_error.as_ref().is_some_and(|error| !error.is_transient());
        if is_permanent {
            self.waiting.clear();
            self.retry.refuse();
        }
        if self.told.as_ref() == Some(&text) {
            return PoolEvent::Progress;
        }
        self.told = Some(text.clone());
        let advice = end.start_error.as_ref().and_then(StartError::advice);
        match (is_permanent, advice) {
            (true, Some(advice)) => PoolEvent::Complaint(format!("{text}; {advice}")),
            (true, None) => PoolEvent::Complaint(text),
            (false, _) => PoolEvent::Status(text),
        }
    }

    /// Gives up lanes whose destination was refused and that nobody uses.
    fn refresh(&mut self, now: Instant) {
        if self.plan == Plan::Fixed || self.retry.refresh_after.is_some_and(|after| now < after) {
            return;
        }
        let before = self.lanes.len();
        let remains = &mut self.remains;
        self.lanes.retain_mut(|lane| {
            let is_stale = lane.is_refused() && lane.len() == 0;
            if is_stale {
                remains.extend(lane.give_up(false));
            }
            !is_stale
        });
        if self.lanes.len() < before {
            self.retry.refresh_after = Some(now + self.retry.refresh.next_delay());
        }
    }
}

impl Waiting {
    /// Whether the connection still waits for something.
    fn handle_report(&mut self, report: FromConnection) -> bool {
        match report {
            FromConnection::Data(bytes) => {
                self.early.extend_from_slice(&bytes);
                self.is_reading = self.early.len() <= MAX_EARLY - CHUNK;
                if self.is_reading {
                    self.connection.grant();
                }
            }
            // Whoever has said nothing and sends no more wants nothing, most likely: a probe.
            FromConnection::InputEnded if self.early.is_empty() => return false,
            FromConnection::InputEnded => {
                self.is_reading = false;
                self.has_ended = true;
                self.until = self.until.min(Instant::now() + WAIT_HALF_CLOSED);
            }
            FromConnection::Reset | FromConnection::Closed => return false,
        }
        true
    }
}

impl Retry {
    fn pause_after_failure(&mut self) {
        self.has_failed = true;
        let delay = self.backoff.delay_after_failure();
        self.pause = Some(Box::pin(tokio::time::sleep(delay)));
    }

    /// As long as there is a pause, connections are refused.
    fn refuse(&mut self) {
        self.refused_until = self.pause.as_ref().map(|pause| pause.deadline().into_std());
    }
}

/// Before a session that keeps a fixed number is tried again, at first and at last.
const FIRST_RETRY_FIXED: Duration = Duration::from_secs(2);
const LAST_RETRY_FIXED: Duration = Duration::from_secs(128);
/// The same while a connection waits.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(8);
/// Between two replacements of a session whose destination was refused, at first (after one at once) and at last.
const FIRST_REFRESH: Duration = Duration::from_secs(5);
const LAST_REFRESH: Duration = Duration::from_secs(120);
/// A session that lived so long was a good one: the next is not put off.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Connections that wait at a time; further ones wait in the listener.
const MAX_WAITING: usize = 256;
/// How long a connection waits for a session: longer than an instance takes to boot.
const WAIT: Duration = Duration::from_secs(300);
/// The same for one whose client may have gone: it sends no more.
const WAIT_HALF_CLOSED: Duration = Duration::from_secs(10);
/// Read from a connection while it waits. A stream's queue takes that at once.
const MAX_EARLY: usize = 2 * CHUNK;
