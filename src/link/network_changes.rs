//! Changes to the machine's network, as the system reports them, shared by all links of a process.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::process::NetworkEvents;

/// The source of changes; it starts to watch with its first subscription.
#[derive(Debug, Default)]
pub(super) struct NetworkChanges {
    shared: Arc<Shared>,
    /// Watches the system; absent until that is asked for.
    watch: OnceLock<AbortHandle>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    /// One for each subscriber that waits, by its number.
    wakers: Mutex<HashMap<u64, Waker>>,
    subscribers: AtomicU64,
}

/// One link's view of the changes.
#[derive(Debug)]
pub(super) struct Subscription {
    shared: Arc<Shared>,
    number: u64,
    seen: u64,
    /// The waker that waits among the shared ones, unless there has been a change since.
    waiting: Option<Waker>,
}

impl NetworkChanges {
    /// Subscribes to the changes from now on, with `is_watching` to those that the system reports, too. Where it reports none
    /// (a sandbox), there never is one.
    pub(super) fn subscribe(&self, is_watching: bool) -> Subscription {
        if is_watching {
            self.watch.get_or_init(|| tokio::spawn(watch(Arc::clone(&self.shared))).abort_handle());
        }
        self.shared.subscribe()
    }

    /// Reports a change to all subscribers.
    pub(super) fn report(&self) {
        self.shared.report();
    }
}

impl Drop for NetworkChanges {
    fn drop(&mut self) {
        if let Some(task) = self.watch.get() {
            task.abort();
        }
    }
}

impl Subscription {
    /// Ready once for each change, or for several that came together.
    pub(super) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_waiting = self.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        // A change that comes after this look finds the waker. The link looks several times for each message.
        if is_waiting && self.shared.count.load(Ordering::Acquire) == self.seen {
            return Poll::Pending;
        }
        let mut wakers = self.shared.wakers();
        let count = self.shared.count.load(Ordering::Acquire);
        if count != self.seen {
            (self.seen, self.waiting) = (count, None);
            return Poll::Ready(());
        }
        wakers.insert(self.number, cx.waker().clone());
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    /// A waker keeps its task's memory.
    fn drop(&mut self) {
        self.shared.wakers().remove(&self.number);
    }
}

impl Shared {
    fn subscribe(self: &Arc<Shared>) -> Subscription {
        let number = self.subscribers.fetch_add(1, Ordering::Relaxed);
        Subscription {
            shared: Arc::clone(self),
            number,
            seen: self.count.load(Ordering::Acquire),
            waiting: None,
        }
    }

    fn report(&self) {
        let mut wakers = self.wakers();
        self.count.fetch_add(1, Ordering::Release);
        wakers.drain().for_each(|(_, waker)| waker.wake());
    }

    fn wakers(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(shared: Arc<Shared>) {
    let mut events = match NetworkEvents::open() {
        Ok(events) => events,
        Err(error) => return tracing::debug!(%error, "changes of the network are not reported here"),
    };
    while events.changed().await.is_ok() {
        // An address comes with its routes.
        tokio::time::sleep(SETTLE).await;
        shared.report();
        tokio::time::sleep(AT_MOST_EACH).await;
    }
}

/// Returns whether the machine has lost the address: no socket can be bound to it.
pub(super) fn is_gone(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// Time for the other messages of one change.
const SETTLE: Duration = Duration::from_millis(100);
/// Changes in quick succession count as one.
const AT_MOST_EACH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_can_be_bound() {
        assert!(!is_gone(IpAddr::from([127, 0, 0, 1])));
        assert!(is_gone(IpAddr::from([192, 0, 2, 1])), "reserved for documentation");
    }

    #[tokio::test]
    async fn each_subscriber_sees_a_change_once() {
        let shared = Arc::<Shared>::default();
        let (mut one, mut other) = (shared.subscribe(), shared.subscribe());
        let waiting = tokio::spawn(async move {
            std::future::poll_fn(|cx| one.poll_changed(cx)).await;
            one
        });
        tokio::task::yield_now().await;
        shared.report();
        shared.report();
        let mut one = waiting.await.unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(one.poll_changed(&mut cx).is_pending() && other.poll_changed(&mut cx).is_ready());
        assert!(other.poll_changed(&mut cx).is_pending());
    }

    /// A port that outlives its sessions subscribes with each of them, on a machine whose network may never change.
    #[test]
    fn the_wakers_of_ended_sessions_are_dropped() {
        let shared = Arc::<Shared>::default();
        for _ in 0..100 {
            let mut subscription = shared.subscribe();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(subscription.poll_changed(&mut cx).is_pending());
            assert!(subscription.poll_changed(&mut cx).is_pending());
            assert_eq!(shared.wakers().len(), 1);
        }
        assert_eq!(shared.wakers().len(), 0);
    }
}
