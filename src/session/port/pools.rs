//! All pools of a run: that of argv, those of the further ports, those of SOCKS clients, which come and go.
//!
//! The sessions that pools need are started here, within the limits of the run: the [`StartQuota`] for all, and the seats
//! (`seats`) of SOCKS clients. The pool whose client has waited longest is the first.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::super::ending::{Reaper, Remains};
use super::super::starter::Starter;
use super::clock::now;
use super::core::quota::StartQuota;
use super::core::seats::{self, Need, Seat};
use super::lane::ConnectionNumber;
use super::local::Budget;
use super::local::{Connection, FromConnection};
use super::pool::{Pool, PoolEvent};
use crate::destination::Destination;
use crate::output::{Status, sentences};
use crate::process::descriptor_limit;

/// Tells a pool from the others; never used twice.
pub(super) type PoolId = u64;

/// All pools, and the sessions that are being ended.
pub(super) struct Pools {
    pools: BTreeMap<PoolId, Pool>,
    socks: BTreeMap<Destination, PoolId>,
    next_id: PoolId,
    budget: Arc<Budget>,
    reaper: Reaper,
    quota: StartQuota,
    /// When a session that is needed may be started.
    next_start: Option<Instant>,
    /// Some have to wait for the quota, which may not have been reported yet.
    starts_wait: bool,
    /// Connections of SOCKS clients that may wait for a session.
    max_waiting: usize,
    /// Pool that produced the last event.
    cursor: PoolId,
}

impl Pools {
    /// With the pool of argv's destination.
    pub(super) fn new(main: Pool, budget: &Arc<Budget>) -> Pools {
        let mut pools = Pools::without_main(budget);
        pools.pools.insert(MAIN, main);
        pools
    }

    /// Without a destination yet.
    pub(super) fn without_main(budget: &Arc<Budget>) -> Pools {
        Pools {
            pools: BTreeMap::new(),
            socks: BTreeMap::new(),
            next_id: MAIN + 1,
            budget: Arc::clone(budget),
            reaper: Reaper::default(),
            quota: StartQuota::new(now()),
            next_start: None,
            starts_wait: false,
            max_waiting: MAX_SOCKS_WAITING.min(descriptor_limit() / 4),
            cursor: MAIN,
        }
    }

    /// Adds the pool of a further port.
    pub(super) fn add(&mut self, destination: Destination, starter: &Starter, sessions: usize) -> PoolId {
        self.insert(Pool::on_demand(destination, starter, &self.budget).with_sessions(sessions))
    }

    /// Starts a session for each pool, before a connection needs it.
    pub(super) fn start_all(&mut self) {
        self.pools.values_mut().for_each(Pool::want_one);
    }

    /// The pool of a SOCKS client's destination.
    pub(super) fn for_socks(
        &mut self,
        destination: Destination,
        starter: &Starter,
        sessions: usize,
    ) -> PoolId {
        let budget = Arc::clone(&self.budget);
        self.socks_pool(destination, |destination| {
            Pool::on_demand(destination, starter, &budget).with_sessions(sessions).for_socks()
        })
    }

    fn socks_pool(&mut self, destination: Destination, new: impl FnOnce(Destination) -> Pool) -> PoolId {
        if let Some(id) = self.socks.get(&destination) {
            return *id;
        }
        self.forget_unused();
        let id = self.insert(new(destination.clone()));
        self.socks.insert(destination, id);
        id
    }

    /// Makes room for another destination: those that are in use are bounded by the connections that may wait, those
    /// without session and connection are kept only for what is known of them.
    fn forget_unused(&mut self) {
        if self.socks.len() < MAX_SOCKS_POOLS {
            return;
        }
        let unused = self.socks.values().filter_map(|id| {
            let pool = self.pools.get(id).filter(|pool| pool.lane_count() == 0)?;
            Some((pool.idle_since()?, *id))
        });
        if let Some((_, id)) = unused.min() {
            self.remove(id);
        }
    }

    fn insert(&mut self, pool: Pool) -> PoolId {
        let id = self.next_id;
        self.next_id += 1;
        self.pools.insert(id, pool);
        id
    }

    fn remove(&mut self, id: PoolId) {
        self.socks.retain(|_, other| *other != id);
        if let Some(pool) = self.pools.remove(&id) {
            pool.give_up().into_iter().for_each(|remains| self.reaper.end(remains));
        }
    }

    /// The destination of a pool; `None` for argv's.
    pub(super) fn destination(&self, pool: PoolId) -> Option<&Destination> {
        self.pools.get(&pool).and_then(Pool::destination)
    }

    /// The next event of any pool. Cancel-safe.
    pub(super) async fn next(&mut self) -> (PoolId, PoolEvent) {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(PoolId, PoolEvent)> {
        if std::mem::take(&mut self.starts_wait) && self.quota.report_wait() {
            return Poll::Ready((MAIN, PoolEvent::Tell(Status::message(sentences::STARTS_WAIT.to_owned()))));
        }
        let Pools { pools, reaper, cursor, .. } = self;
        // Who has spoken comes last, so that one busy pool does not silence the others.
        let last = *cursor;
        for is_later in [true, false] {
            for (id, pool) in pools.iter_mut().filter(|(id, _)| (**id > last) == is_later) {
                if let Poll::Ready(event) = pool.poll_event(cx) {
                    *cursor = *id;
                    pool.take_remains().for_each(|remains| reaper.end(remains));
                    return Poll::Ready((*id, event));
                }
            }
        }
        Poll::Pending
    }

    /// Starts the sessions that are needed and allowed now. Returns whether some have to wait for the quota.
    fn start_lanes(&mut self, now: Instant) -> bool {
        self.next_start = None;
        let Pools { pools, quota, .. } = self;
        for pool in pools.values_mut() {
            pool.take_outcomes().into_iter().for_each(|outcome| quota.handle_outcome(now, outcome));
        }
        let mut needs = self.needs(now);
        while let Some((_, id)) = needs.pop_first() {
            while let Some(need) = self.pools.get(&id).and_then(|pool| pool.need(now)) {
                if let Some(at) = self.quota.ready_at(now) {
                    self.next_start = Some(self.next_start.map_or(at, |other| other.min(at)));
                    return true;
                }
                if !self.make_room(now, id, need) {
                    break;
                }
                self.quota.take(now);
                if let Some(pool) = self.pools.get_mut(&id) {
                    pool.start_lane();
                }
            }
        }
        false
    }

    /// The pools that need sessions: those whose clients have none before others, then by how long they have waited.
    fn needs(&self, now: Instant) -> BTreeMap<(bool, ConnectionNumber, PoolId), PoolId> {
        let needs = self.pools.iter().filter_map(|(id, pool)| {
            let is_further = pool.need(now)? == Need::Further;
            Some(((is_further, pool.oldest_waiting().unwrap_or_default(), *id), *id))
        });
        needs.collect()
    }

    /// Returns whether a session may be started as far as SOCKS clients' seats are concerned; ends an idle one
    /// if that is needed.
    fn make_room(&mut self, now: Instant, id: PoolId, need: Need) -> bool {
        let pools = || self.socks.values().filter_map(|id| Some((*id, self.pools.get(id)?)));
        if !pools().any(|(other, _)| other == id) {
            return true;
        }
        let taken = pools().map(|(_, pool)| pool.lane_count()).sum();
        let idle =
            pools().flat_map(|(id, pool)| pool.idle_lanes().map(move |(since, lane)| (since, (id, lane))));
        match seats::seat(now, need, taken, idle) {
            Seat::Free => true,
            Seat::InsteadOf((other, lane)) => {
                if let Some(pool) = self.pools.get_mut(&other) {
                    pool.end_lane(lane);
                    pool.take_remains().for_each(|remains| self.reaper.end(remains));
                }
                true
            }
            Seat::Wait(at) => {
                self.next_start = self.next_start.into_iter().chain(at).min();
                false
            }
        }
    }

    /// Returns whether another SOCKS client may be accepted: its connection may have to wait.
    pub(super) fn may_take_socks(&self) -> bool {
        let pools = self.socks.values().filter_map(|id| self.pools.get(id));
        pools.map(Pool::waiting_count).sum::<usize>() < self.max_waiting
    }

    /// Returns whether a pool takes another connection.
    pub(super) fn may_take(&self, pool: PoolId) -> bool {
        self.pools.get(&pool).is_some_and(Pool::may_take)
    }

    /// Hands a connection to a pool.
    pub(super) fn take(&mut self, pool: PoolId, number: ConnectionNumber, connection: Connection) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.take(number, connection);
            pool.take_remains().for_each(|remains| self.reaper.end(remains));
        }
    }

    /// Takes what a connection's task reports.
    pub(super) fn handle_report(&mut self, pool: PoolId, number: ConnectionNumber, report: FromConnection) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.handle_report(number, report);
        }
    }

    /// Moves what the streams have to send into the channels, and starts the sessions that are needed. To be called before
    /// [`Pools::next_timeout`].
    pub(super) fn transmit(&mut self) {
        self.pools.values_mut().for_each(Pool::transmit);
        self.starts_wait |= self.start_lanes(now());
    }

    /// Tells the agent of all half-closed streams now: the descriptors of their connections are needed.
    pub(super) fn hurry(&mut self) {
        self.pools.values_mut().for_each(Pool::hurry);
    }

    /// When [`Pools::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let idle = self.socks.values().filter_map(|id| Some(self.pools.get(id)?.idle_since()? + SOCKS_IDLE));
        let pools = self.pools.values().filter_map(Pool::next_timeout);
        pools.chain(idle).chain(self.next_start).min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(PoolId, PoolEvent)> {
        let mut events = Vec::new();
        for (id, pool) in &mut self.pools {
            events.extend(pool.handle_timeout(now).into_iter().map(|event| (*id, event)));
            pool.take_remains().for_each(|remains| self.reaper.end(remains));
        }
        let is_old = |pool: &Pool| pool.idle_since().is_some_and(|since| since + SOCKS_IDLE <= now);
        let old: Vec<_> =
            self.socks.values().copied().filter(|id| self.pools.get(id).is_some_and(is_old)).collect();
        old.into_iter().for_each(|id| self.remove(id));
        events
    }

    /// The state of each pool's oldest session.
    pub(super) fn report(&mut self) -> Vec<String> {
        let is_shown = |pool: &&mut Pool| !pool.speaks_socks() || pool.lane_count() > 0 || pool.len() > 0;
        let lines = self.pools.values_mut().filter(is_shown).map(|pool| {
            let count = pool.len();
            let name = pool.destination().map(|destination| format!("{destination}: ")).unwrap_or_default();
            let line = match pool.oldest() {
                Some((id, link)) => sentences::report(id, link.is_open(), &link.stats(), Some(count)),
                None => sentences::no_session(count),
            };
            name + &line
        });
        lines.collect()
    }

    /// Closes all connections. What is to be ended at the service, and what is being ended.
    pub(super) fn give_up(self) -> (Vec<Remains>, Reaper) {
        (self.pools.into_values().flat_map(Pool::give_up).collect(), self.reaper)
    }
}

/// The pool of argv's destination.
pub(super) const MAIN: PoolId = 0;
/// Destinations of SOCKS clients that are remembered without a session.
const MAX_SOCKS_POOLS: usize = 128;
/// SOCKS clients that wait for a session, where there are descriptors enough; others wait in the listener.
const MAX_SOCKS_WAITING: usize = 1024;
/// Time that an unused one is kept.
const SOCKS_IDLE: Duration = Duration::from_secs(300);

// It sees private fields.
#[cfg(test)]
#[path = "tests/pools.rs"]
mod tests;
