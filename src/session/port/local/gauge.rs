//! Accounting of the memory that waits for slow local readers.
//!
//! smux version 1 has no windows: a session that is not read stops all its streams. So what a slow reader does not take is
//! kept for it, up to a limit for each connection and one for the process; a session over either is not read until there
//! is room, but each session may keep a small share whatever the others hold ([`Limits`]). Nothing is dropped to keep a
//! limit. All figures are bytes of memory as `queue` counts it, not bytes of payload.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// Bytes of memory that waiting data may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For one connection. More of them hold up its session.
    pub each: usize,
    /// For all connections of the process.
    pub all: usize,
    /// For one session's connections in any case, so that the slow readers of one session do not stop another.
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
    progress: Notify,
}

impl Budget {
    /// Nothing waits yet.
    pub(crate) fn new(limits: Limits) -> Arc<Budget> {
        Arc::new(Budget { limits, total: AtomicUsize::new(0), progress: Notify::new() })
    }

    /// Resolves when some session may have room again. Cancel-safe.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
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
        Arc::new(Gauge { budget, own: AtomicUsize::new(0), full: AtomicUsize::new(0) })
    }

    /// Returns whether more may be read from the channel.
    pub(crate) fn has_room(&self) -> bool {
        let Limits { all, session, .. } = self.budget.limits;
        self.full.load(Ordering::Relaxed) == 0
            && (self.own.load(Ordering::Relaxed) < session || self.budget.total.load(Ordering::Relaxed) < all)
    }

    /// Resolves when there may be room again. Cancel-safe.
    pub(crate) async fn progress(&self) {
        self.budget.progress().await;
    }
}

/// Bytes that wait for one connection, which joins a session's [`Gauge`] when it gets one.
#[derive(Debug, Default)]
pub(crate) struct Load {
    queued: AtomicUsize,
    gauge: OnceLock<Arc<Gauge>>,
}

impl Load {
    /// The session that the connection belongs to from here on; only the first counts.
    pub(crate) fn join(&self, gauge: &Arc<Gauge>) {
        let _ = self.gauge.set(Arc::clone(gauge));
    }

    /// So many more bytes are held.
    pub(crate) fn add(&self, bytes: usize) {
        let Some(gauge) = self.gauge.get() else { return };
        let each = gauge.budget.limits.each;
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if before <= each && before + bytes > each {
            gauge.full.fetch_add(1, Ordering::Relaxed);
        }
        gauge.own.fetch_add(bytes, Ordering::Relaxed);
        gauge.budget.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes are free again: taken by the reader, or given up.
    pub(crate) fn remove(&self, bytes: usize) {
        let Some(gauge) = self.gauge.get() else { return };
        let Limits { each, all, .. } = gauge.budget.limits;
        let had_room = gauge.has_room();
        // A task that is being aborted on another thread may count the same bytes once more.
        let take = |queued: usize| Some(queued.saturating_sub(bytes));
        let before = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        let bytes = bytes.min(before);
        if before > each && before - bytes <= each {
            gauge.full.fetch_sub(1, Ordering::Relaxed);
        }
        gauge.own.fetch_sub(bytes, Ordering::Relaxed);
        let total = gauge.budget.total.fetch_sub(bytes, Ordering::Relaxed);
        let is_below = total >= all && total - bytes < all;
        if is_below || (!had_room && gauge.has_room()) {
            gauge.budget.progress.notify_one();
        }
    }

    /// Nothing waits any more: the connection is gone.
    pub(crate) fn clear(&self) {
        self.remove(self.queued.load(Ordering::Relaxed));
    }
}

/// Limit for the whole process, as a multiple of the limit for one connection.
const ALL_PER_EACH: usize = 4;
/// Bytes that one session's connections may hold, whatever those of others hold.
const MIN_SESSION: usize = 4 << 20;

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
        assert_eq!(budget.total.load(Ordering::Relaxed), 0);
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
