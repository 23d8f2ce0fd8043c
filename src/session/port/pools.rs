//! All pools of a run: that of argv, those of the further ports, those of SOCKS clients, which come and go.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::super::ending::{Reaper, Remains};
use super::super::starter::Starter;
use super::connection::{Connection, FromConnection};
use super::destination::Destination;
use super::gauge::Budget;
use super::lane::ConnectionNumber;
use super::pool::{Pool, PoolEvent};
use crate::notice;

/// Tells a pool from the others; never used twice.
pub(super) type PoolId = u32;

/// All pools, and the sessions that are being ended.
pub(super) struct Pools {
    pools: BTreeMap<PoolId, Pool>,
    socks: BTreeMap<Destination, PoolId>,
    next_id: PoolId,
    budget: Arc<Budget>,
    reaper: Reaper,
    /// Who has spoken last.
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

    /// The pool of a SOCKS client's destination. When there are [`MAX_SOCKS_POOLS`], the one that is idle for the longest
    /// time makes room; `None` if all are in use.
    pub(super) fn for_socks(
        &mut self,
        destination: Destination,
        starter: &Starter,
        sessions: usize,
    ) -> Option<PoolId> {
        let budget = Arc::clone(&self.budget);
        self.socks_pool(destination, |destination| {
            Pool::on_demand(destination, starter, &budget).with_sessions(sessions).for_socks()
        })
    }

    fn socks_pool(
        &mut self,
        destination: Destination,
        new: impl FnOnce(Destination) -> Pool,
    ) -> Option<PoolId> {
        if let Some(id) = self.socks.get(&destination) {
            return Some(*id);
        }
        if self.socks.len() >= MAX_SOCKS_POOLS {
            let idle = |id: &PoolId| Some((self.pools.get(id)?.idle_since()?, *id));
            let (_, longest) = self.socks.values().filter_map(idle).min()?;
            self.remove(longest);
        }
        let id = self.insert(new(destination.clone()));
        self.socks.insert(destination, id);
        Some(id)
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

    /// Whether a pool takes another connection.
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

    /// Moves what the streams have to send into the channels.
    pub(super) fn transmit(&mut self) {
        self.pools.values_mut().for_each(Pool::transmit);
    }

    /// Tells the agent of all half-closed streams now: the descriptors of their connections are needed.
    pub(super) fn hurry(&mut self) {
        self.pools.values_mut().for_each(Pool::hurry);
    }

    /// When [`Pools::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let idle = self.socks.values().filter_map(|id| Some(self.pools.get(id)?.idle_since()? + SOCKS_IDLE));
        self.pools.values().filter_map(Pool::next_timeout).chain(idle).min()
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
        let lines = self.pools.values_mut().map(|pool| {
            let count = pool.len();
            let name = pool.destination().map(|destination| format!("{destination}: ")).unwrap_or_default();
            let line = match pool.oldest() {
                Some((id, link)) => notice::report(id, link.is_open(), &link.stats(), Some(count)),
                None => notice::no_session(count),
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
/// Destinations of SOCKS clients that have sessions at a time.
const MAX_SOCKS_POOLS: usize = 32;
/// How long one is kept that nobody uses.
const SOCKS_IDLE: Duration = Duration::from_secs(300);

// It sees private fields.
#[cfg(test)]
#[path = "tests/pools.rs"]
mod tests;
