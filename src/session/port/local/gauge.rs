//! Accounting of the memory that waits for slow local readers.
//!
//! smux version 1 has no windows: a session that is not read stops all its streams. So what a slow reader does not take is
//! kept for it, up to a limit for each connection and one for the process; a session over either is not read until there
//! is room, but each session may keep a small share whatever the others hold ([`Limits`]). Nothing is dropped to keep a
//! limit. All figures are bytes of memory as `queue` counts it, not bytes of payload.
//!
//! A connection that its session has released counts for the process alone: it must not stop the session, which has ended,
//! or goes on with other clients. Released connections would add up with each session, though. So together they
//! may hold no more than all may, and over that the one whose reader has been idle for longest is reset.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Bytes of memory that waiting data may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For one connection. More of them hold up its session.
    pub each: usize,
    /// For all connections of the process.
    pub all: usize,
    /// For one session's connections in any case, so that the slow readers of one session do not stop another. More than
    /// [`FULL_SHARES`] sessions have a smaller share.
    pub session: usize,
}

impl Limits {
    /// With this many bytes for one connection.
    pub(crate) fn new(each: usize) -> Limits {
        Limits { each, all: each.saturating_mul(ALL_PER_EACH), session: MIN_SESSION }
    }
}

/// The memory that all sessions of the process share.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    total: AtomicUsize,
    /// The part of `total` that waits for the readers of released connections.
    released: AtomicUsize,
    /// Released connections, each with its task.
    loads: Mutex<Vec<(Weak<Load>, AbortHandle)>>,
    /// Number of times that the reader of a released connection has taken something, or that one was released.
    turns: AtomicUsize,
    sessions: AtomicUsize,
    progress: Notify,
}

impl Budget {
    /// Nothing waits yet.
    pub(crate) fn new(limits: Limits) -> Arc<Budget> {
        Arc::new(Budget {
            limits,
            total: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            loads: Mutex::default(),
            turns: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            progress: Notify::new(),
        })
    }

    /// Resolves when some session may have room again. Cancel-safe.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Bytes of memory that wait in all.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes that each session may hold in any case.
    fn share(&self) -> usize {
        self.limits.session / self.sessions.load(Ordering::Relaxed).div_ceil(FULL_SHARES).max(1)
    }

    /// Counts less in all.
    fn remove(&self, bytes: usize) {
        let total = self.total.fetch_sub(bytes, Ordering::Relaxed);
        if total >= self.limits.all && total - bytes < self.limits.all {
            self.progress.notify_one();
        }
    }

    /// Keeps a connection until its `task` ends. While released connections hold too much, breaks those off whose readers
    /// have been idle for longest.
    fn keep(&self, load: &Arc<Load>, task: AbortHandle) {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.retain(|(load, _)| load.strong_count() > 0);
        loads.push((Arc::downgrade(load), task));
        while self.released.load(Ordering::Relaxed) > self.limits.all {
            let turn = |(load, _): &(Weak<Load>, _)| load.upgrade().map(|load| load.lock().turn);
            let Some(at) = (0..loads.len()).min_by_key(|at| loads.get(*at).map(turn)) else { return };
            let (load, task) = loads.swap_remove(at);
            tracing::warn!(
                "a client that reads too slowly was broken off: too much waited for ended connections"
            );
            task.abort();
            load.upgrade().iter().for_each(|load| load.clear());
        }
    }
}

/// Bytes that wait for the connections of one session.
#[derive(Debug)]
pub(crate) struct Gauge {
    budget: Arc<Budget>,
    own: AtomicUsize,
    /// Connections with more than [`Limits::each`].
    full: AtomicUsize,
}

impl Gauge {
    /// For one session.
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Gauge> {
        budget.sessions.fetch_add(1, Ordering::Relaxed);
        Arc::new(Gauge { budget, own: AtomicUsize::new(0), full: AtomicUsize::new(0) })
    }

    /// Returns whether more may be read from the channel.
    pub(crate) fn has_room(&self) -> bool {
        self.full.load(Ordering::Relaxed) == 0
            && (self.own.load(Ordering::Relaxed) < self.budget.share()
                || self.budget.total.load(Ordering::Relaxed) < self.budget.limits.all)
    }

    /// Resolves when there may be room again. Cancel-safe.
    pub(crate) async fn progress(&self) {
        self.budget.progress().await;
    }

    /// Counts a connection with `before` bytes, which has `after` now. The process counts for itself.
    fn change(&self, before: usize, after: usize) {
        let had_room = self.has_room();
        let each = self.budget.limits.each;
        match (before > each, after > each) {
            (false, true) => _ = self.full.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.full.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        // Wraps for less, as it should.
        self.own.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        if !had_room && self.has_room() {
            self.budget.progress.notify_one();
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.budget.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that wait for one connection, which joins a session's [`Gauge`] when it gets one.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<State>);

/// Content of a [`Load`].
#[derive(Debug, Default)]
struct State {
    queued: usize,
    owner: Owner,
    /// The last turn of its reader, once it is released.
    turn: usize,
}

/// The account for a connection's bytes.
#[derive(Debug, Default)]
enum Owner {
    /// They are not counted: there is no session yet.
    #[default]
    None,
    Session(Arc<Gauge>),
    /// The session has released the connection.
    Process(Arc<Budget>),
}

impl Load {
    /// The session that the connection belongs to from here on; only the first counts.
    pub(crate) fn join(&self, gauge: &Arc<Gauge>) {
        let mut state = self.lock();
        if matches!(state.owner, Owner::None) {
            state.owner = Owner::Session(Arc::clone(gauge));
        }
    }

    /// So many more bytes are held.
    pub(crate) fn add(&self, bytes: usize) {
        let mut state = self.lock();
        let before = state.queued;
        if let Owner::Session(gauge) = &state.owner {
            #[cfg(test)]
            assert!(
                before <= gauge.budget.limits.each + MAX_FRAME,
                "a session over its limit is read: {before}"
            );
            gauge.budget.total.fetch_add(bytes, Ordering::Relaxed);
            gauge.change(before, before + bytes);
            state.queued += bytes;
        }
    }

    /// So many bytes are free again: taken by the reader, or given up.
    pub(crate) fn remove(&self, bytes: usize) {
        let mut state = self.lock();
        // A task that is being aborted may count the same bytes once more.
        let bytes = bytes.min(state.queued);
        let before = state.queued;
        state.queued -= bytes;
        let State { queued, owner, turn } = &mut *state;
        match owner {
            Owner::None => {}
            Owner::Session(gauge) => {
                gauge.budget.remove(bytes);
                gauge.change(before, *queued);
            }
            Owner::Process(budget) => {
                budget.released.fetch_sub(bytes, Ordering::Relaxed);
                budget.remove(bytes);
                *turn = budget.turns.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Nothing waits any more: the connection is gone.
    pub(crate) fn clear(&self) {
        self.remove(usize::MAX);
    }

    /// The session no longer counts these bytes; the process does, until the connection's `task` ends.
    pub(crate) fn release(self: &Arc<Load>, task: AbortHandle) {
        let mut state = self.lock();
        let Owner::Session(gauge) = std::mem::take(&mut state.owner) else { return };
        let budget = Arc::clone(&gauge.budget);
        gauge.change(state.queued, 0);
        budget.released.fetch_add(state.queued, Ordering::Relaxed);
        state.turn = budget.turns.fetch_add(1, Ordering::Relaxed);
        state.owner = Owner::Process(Arc::clone(&budget));
        drop(state);
        budget.keep(self, task);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of memory that one message of the agent may add to a connection that has just room: the largest frame.
#[cfg(test)]
const MAX_FRAME: usize = 1 << 20;
/// Limit for the whole process, as a multiple of the limit for one connection.
const ALL_PER_EACH: usize = 4;
/// Bytes that one session's connections may hold, whatever those of others hold.
const MIN_SESSION: usize = 4 << 20;
/// Sessions that have it whole. The shares of twice as many are half as large, and so on: 32 MiB for all of them.
const FULL_SHARES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(gauge: &Arc<Gauge>) -> Load {
        let load = Load::default();
        load.join(gauge);
        load
    }

    fn budget() -> Arc<Budget> {
        Budget::new(Limits { each: 100, all: 250, session: 20 })
    }

    #[test]
    fn one_full_connection_holds_up_its_session_only() {
        let budget = budget();
        let (one, other) = (Gauge::new(budget.clone()), Gauge::new(budget));
        let (slow, fast) = (load(&one), load(&other));
        slow.add(100);
        assert!(one.has_room());
        slow.add(1);
        assert!(!one.has_room());
        fast.add(50);
        assert!(other.has_room());
        slow.remove(1);
        assert!(one.has_room());
    }

    #[test]
    fn all_together_are_bounded_and_each_session_has_a_share() {
        let budget = budget();
        let (one, other) = (Gauge::new(budget.clone()), Gauge::new(budget.clone()));
        let (first, second, third, fast) = (load(&one), load(&one), load(&one), load(&other));
        for slow in [&first, &second, &third] {
            slow.add(90);
        }
        assert!(!one.has_room(), "270 bytes wait");
        assert!(other.has_room(), "its share is left to it");
        fast.add(20);
        assert!(!other.has_room());
        first.clear();
        assert!(one.has_room() && other.has_room());
        for load in [&second, &third, &fast] {
            load.clear();
        }
        assert_eq!(budget.held(), 0);
    }

    /// The bytes stay those of the process, but the session that has released them goes on.
    #[tokio::test]
    async fn a_released_connection_holds_up_no_session_of_its_own() {
        let budget = budget();
        let gauge = Gauge::new(budget.clone());
        let slow = Arc::new(load(&gauge));
        slow.add(150);
        assert!(!gauge.has_room());
        slow.release(task());
        assert!(gauge.has_room());
        budget.progress().await;
        let others = [load(&gauge), load(&gauge)];
        others.iter().for_each(|other| other.add(60));
        assert!(!gauge.has_room(), "270 bytes wait in all, 150 of them for the released one");
        slow.remove(21);
        assert!(gauge.has_room());
        budget.progress().await;
        slow.clear();
        others.iter().for_each(Load::clear);
        assert_eq!((total(&budget), gauge.own.load(Ordering::Relaxed)), ((0, 0), 0));
    }

    /// However many sessions end, the readers that they leave behind hold no more than all may.
    #[tokio::test]
    async fn the_idlest_released_connection_makes_room() {
        let budget = budget();
        let released: Vec<_> = (0..3)
            .map(|_| {
                let (slow, task) = (Arc::new(load(&Gauge::new(budget.clone()))), task());
                slow.add(80);
                slow.release(task.clone());
                (slow, task)
            })
            .collect();
        assert_eq!(total(&budget), (240, 240));
        // The first one's reader is slow, but it reads.
        released[0].0.remove(1);
        let next = Arc::new(load(&Gauge::new(budget.clone())));
        next.add(12);
        next.release(task());
        tokio::task::yield_now().await;
        let is_over: Vec<bool> = released.iter().map(|(_, task)| task.is_finished()).collect();
        assert_eq!(is_over, [false, true, false]);
        assert_eq!(total(&budget), (171, 171));
    }

    #[test]
    fn the_shares_of_many_sessions_are_smaller() {
        let budget = budget();
        let gauges: Vec<_> = (0..2 * FULL_SHARES).map(|_| Gauge::new(budget.clone())).collect();
        let hog = load(&gauges[0]);
        hog.add(300);
        let small = load(&gauges[1]);
        small.add(10);
        assert!(!gauges[1].has_room());
        drop(gauges.into_iter().skip(FULL_SHARES).collect::<Vec<_>>());
        let gauge = match &small.lock().owner {
            Owner::Session(gauge) => gauge.clone(),
            other => panic!("{other:?}"),
        };
        assert!(gauge.has_room());
    }

    fn task() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    /// Bytes in all, and those of released connections.
    fn total(budget: &Budget) -> (usize, usize) {
        (budget.held(), budget.released.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn new_room_is_reported() {
        let budget = budget();
        let gauge = Gauge::new(budget.clone());
        let slow = load(&gauge);
        slow.add(150);
        slow.remove(30);
        assert!(!gauge.has_room());
        slow.remove(30);
        assert!(gauge.has_room());
        budget.progress().await;
    }
}
