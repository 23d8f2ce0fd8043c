//! Port forwarding with agents after 3.0.196.0: many local connections at once, each a smux stream.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::mpsc;

use super::super::ending::{Closing, End, Reaper, Remains};
use super::super::state::{Front, Session, sleep_until, tell};
use super::Asked;
use super::connection::{Connection, FromConnection};
use super::gauge::{Budget, Limits};
use super::journal::Journal;
use super::lane::ConnectionNumber;
use super::listener::{AcceptPause, Listener};
use super::local_stream::LocalStream;
use super::pool::{Plan, Pool, PoolEvent};
use crate::notice;

/// Runs until the session ends without which there is nothing left, or a signal comes.
pub(super) async fn run(session: Session, listener: Listener) -> (End, Closing) {
    let (first, mut front) = session.split(true);
    front.console.say(notice::WAITING_FOR_CONNECTIONS);
    let budget = Budget::new(Limits::default());
    let main = Pool::with_first(Plan::Fixed, first, front.starter.clone(), &budget);
    let pools = Pools::new(main.with_sessions(front.settings.sessions));
    let (reports, mut from_connections) = mpsc::channel(REPORTS);
    let journal = Journal::new(front.settings.log_connections);
    let mut forward = Forward { front, pools, reports, journal, accepted: 0 };
    let mut accept_pause = AcceptPause::default();
    let end = loop {
        forward.pools.transmit();
        forward.journal.show(&mut forward.front.console);
        let Forward { front: Front { console, watch, .. }, pools, .. } = &mut forward;
        let may_accept = accept_pause.is_over() && pools.may_take(MAIN);
        let timeout = pools.next_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            (_, event) = pools.next() => if let Some(end) = forward.handle(event) { break end },
            Some(((pool, number), report)) = from_connections.recv() => pools.handle_report(pool, number, report),
            accepted = listener.accept(), if may_accept => match accepted {
                Ok(stream) => {
                    accept_pause.handle_success();
                    forward.take(MAIN, stream);
                }
                Err(error) => {
                    accept_pause.handle_failure(&error).into_iter().for_each(|text| console.status(&text));
                    pools.hurry();
                }
            },
            () = accept_pause.wait() => {}
            // A local reader has made room: look again which sessions may be read.
            () = budget.progress() => {}
            () = sleep_until(timeout) => {
                let events = pools.handle_timeout(Instant::now());
                if let Some(end) = events.into_iter().find_map(|event| forward.handle(event)) {
                    break end;
                }
            }
            signal = watch.recv() => match Asked::by(signal, console) {
                Asked::Report => forward.report(),
                Asked::End => break End::Interrupted,
                Asked::Nothing => {}
            },
            _ = console.drive() => {}
        }
    };
    forward.journal.show(&mut forward.front.console);
    let (remains, reaper) = forward.pools.give_up();
    forward.journal.show(&mut forward.front.console);
    (end, forward.front.into_closing(remains, reaper))
}

/// What the loop works on.
struct Forward {
    front: Front,
    pools: Pools,
    reports: mpsc::Sender<((PoolId, ConnectionNumber), FromConnection)>,
    journal: Arc<Journal>,
    accepted: ConnectionNumber,
}

impl Forward {
    /// Takes a local connection for a pool.
    fn take(&mut self, pool: PoolId, stream: LocalStream) {
        if self.accepted == 0 {
            self.front.console.say(&notice::connection_accepted_mux(&self.front.id));
        }
        self.accepted += 1;
        let number = self.accepted;
        let connection = Connection::start(stream, (pool, number), self.reports.clone(), &self.journal);
        self.pools.take(pool, number, connection);
    }

    fn handle(&mut self, event: PoolEvent) -> Option<End> {
        let console = &mut self.front.console;
        match event {
            PoolEvent::Progress => {}
            PoolEvent::Tell(event) => return tell(console, event),
            PoolEvent::Status(text) => console.status(&text),
            PoolEvent::Complaint(text) => console.complain(&text),
            PoolEvent::Refused => console.say(notice::DESTINATION_FAILED),
            PoolEvent::Over(end) => return Some(end),
        }
        None
    }

    /// Prints the state on stderr, since it was asked for.
    fn report(&mut self) {
        for line in self.pools.report() {
            self.front.console.complain(&line);
        }
    }
}

/// Tells a pool from the others; never used twice.
type PoolId = u32;

/// All pools of the port, and the sessions that are being ended.
struct Pools {
    pools: BTreeMap<PoolId, Pool>,
    reaper: Reaper,
    cursor: PoolId,
}

impl Pools {
    fn new(main: Pool) -> Pools {
        Pools { pools: BTreeMap::from([(MAIN, main)]), reaper: Reaper::default(), cursor: MAIN }
    }

    async fn next(&mut self) -> (PoolId, PoolEvent) {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(PoolId, PoolEvent)> {
        let Pools { pools, reaper, cursor } = self;
        // Who has spoken comes last, so that one busy pool does not silence the others.
        let last = *cursor;
        let (after, before): (Vec<_>, Vec<_>) = pools.iter_mut().partition(|(id, _)| **id > last);
        for (id, pool) in after.into_iter().chain(before) {
            if let Poll::Ready(event) = pool.poll_event(cx) {
                *cursor = *id;
                pool.take_remains().into_iter().for_each(|remains| reaper.end(remains));
                return Poll::Ready((*id, event));
            }
        }
        Poll::Pending
    }

    fn may_take(&self, pool: PoolId) -> bool {
        self.pools.get(&pool).is_some_and(Pool::may_take)
    }

    fn take(&mut self, pool: PoolId, number: ConnectionNumber, connection: Connection) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.take(number, connection);
            pool.take_remains().into_iter().for_each(|remains| self.reaper.end(remains));
        }
    }

    fn handle_report(&mut self, pool: PoolId, number: ConnectionNumber, report: FromConnection) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.handle_report(number, report);
        }
    }

    fn transmit(&mut self) {
        self.pools.values_mut().for_each(Pool::transmit);
    }

    fn hurry(&mut self) {
        self.pools.values_mut().for_each(Pool::hurry);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.pools.values().filter_map(Pool::next_timeout).min()
    }

    fn handle_timeout(&mut self, now: Instant) -> Vec<PoolEvent> {
        let mut events = Vec::new();
        for pool in self.pools.values_mut() {
            events.extend(pool.handle_timeout(now));
            pool.take_remains().into_iter().for_each(|remains| self.reaper.end(remains));
        }
        events
    }

    fn report(&mut self) -> Vec<String> {
        let lines = self.pools.values_mut().filter_map(|pool| {
            let count = pool.len();
            let (id, link) = pool.oldest()?.session()?;
            Some(notice::report(id, link.is_open(), &link.stats(), Some(count)))
        });
        lines.collect()
    }

    /// Closes all connections. What is to be ended at the service, and what is being ended.
    fn give_up(self) -> (Vec<Remains>, Reaper) {
        (self.pools.into_values().flat_map(Pool::give_up).collect(), self.reaper)
    }
}

/// The pool of argv's destination.
const MAIN: PoolId = 0;
/// Reports of connection tasks that wait for the loop.
const REPORTS: usize = 64;
