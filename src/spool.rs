//! A queue to a thread that writes to a disk, for what a session reports about itself.
//!
//! The session never waits for it. The queue is limited in the memory that it holds; entries that do not fit are dropped and
//! counted, and the writer reports their number.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The session's end of the queue.
#[derive(Debug)]
pub(crate) struct Spool<T>(Arc<Shared<T>>);

impl<T> Clone for Spool<T> {
    fn clone(&self) -> Spool<T> {
        Spool(Arc::clone(&self.0))
    }
}

impl<T> Spool<T> {
    /// Queues an entry that holds `size` bytes of memory in addition to itself, if there is room.
    pub(crate) fn push(&self, size: usize, entry: impl FnOnce() -> T) {
        let mut state = self.0.lock();
        let size = size + cost_of_an_entry::<T>();
        if state.is_closed || state.held + size > self.0.limit {
            state.lost += 1;
            return;
        }
        state.held += size;
        state.waiting.push_back((size, entry()));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.lock().held
    }
}

/// Keeps the thread going. Dropped, it lets the thread write what is left, for at most [`END_TIMEOUT`].
#[derive(Debug)]
pub(crate) struct SpoolGuard<T>(Arc<Shared<T>>);

impl<T> Drop for SpoolGuard<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_timeout_while(state, END_TIMEOUT, |state| !state.is_written);
        drop(waited);
    }
}

/// The writer's end of the queue.
#[derive(Debug)]
pub(crate) struct Outlet<T> {
    shared: Arc<Shared<T>>,
    /// Memory of the entry that was taken last.
    taken: usize,
}

impl<T> Outlet<T> {
    /// Returns the next entry, after a wait if there is none yet; `None` at the end. The memory of the one before is free
    /// then. Calls `flush` before it waits, and at the end.
    ///
    /// # Errors
    /// Those of `flush`.
    pub(crate) fn next(&mut self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<Option<T>> {
        let mut state = self.shared.lock();
        state.held -= std::mem::take(&mut self.taken);
        if state.waiting.is_empty() {
            state.waiting = VecDeque::new();
            drop(state);
            flush()?;
            let waits = |state: &mut State<T>| state.waiting.is_empty() && !state.is_closed;
            let woken = self.shared.changed.wait_while(self.shared.lock(), waits);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let Some((size, entry)) = state.waiting.pop_front() else { return Ok(None) };
        self.taken = size;
        Ok(Some(entry))
    }

    /// Returns the number of entries that were lost since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.shared.lock().lost)
    }

    /// Counts entries as lost.
    pub(crate) fn add_lost(&mut self, count: u64) {
        self.shared.lock().lost += count;
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        (state.is_closed, state.is_written) = (true, true);
        (state.waiting, state.held) = (VecDeque::new(), 0);
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// Starts a thread that runs `write` for a queue of at most `limit` bytes of memory.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    limit: usize,
    write: impl FnOnce(Outlet<T>) + Send + 'static,
) -> io::Result<(Spool<T>, SpoolGuard<T>)> {
    let (spool, outlet) = pair(limit);
    thread::Builder::new().name(name.to_owned()).spawn(move || write(outlet))?;
    let guard = SpoolGuard(Arc::clone(&spool.0));
    Ok((spool, guard))
}

/// Both ends of a queue, without a thread.
pub(crate) fn pair<T>(limit: usize) -> (Spool<T>, Outlet<T>) {
    let state = State { waiting: VecDeque::new(), held: 0, lost: 0, is_closed: false, is_written: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), limit });
    (Spool(Arc::clone(&shared)), Outlet { shared, taken: 0 })
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Bytes of memory.
    limit: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State<T> {
    /// Entries with the memory that each counts for.
    waiting: VecDeque<(usize, T)>,
    held: usize,
    /// Entries for which there was no room.
    lost: u64,
    is_closed: bool,
    /// The thread has ended.
    is_written: bool,
}

/// Memory of an entry in addition to what it refers to: its cell, in a deque that may be half empty, and the allocator's header.
const fn cost_of_an_entry<T>() -> usize {
    2 * size_of::<(usize, T)>() + 16
}

/// Time that the end of a session may wait for the disk.
const END_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const COST: usize = cost_of_an_entry::<Vec<u8>>();

    fn push(spool: &Spool<Vec<u8>>, size: usize) {
        spool.push(size, || vec![b'x'; size]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_dropped() {
        let (spool, mut outlet) = pair(2 * (100 + COST));
        for _ in 0..5 {
            push(&spool, 100);
        }
        assert_eq!((spool.held(), outlet.take_lost(), outlet.take_lost()), (2 * (100 + COST), 3, 0));
        assert_eq!(outlet.next(|| Ok(())).unwrap().unwrap().len(), 100);
        push(&spool, 1);
        assert_eq!(outlet.take_lost(), 1, "the entry that is being written still has its memory");
        outlet.next(|| Ok(())).unwrap();
        push(&spool, 1);
        assert_eq!((outlet.take_lost(), spool.held()), (0, 100 + COST + 1 + COST));
    }

    #[test]
    fn nothing_counts_too() {
        let (spool, mut outlet) = pair(1 << 16);
        for _ in 0..100_000 {
            push(&spool, 0);
        }
        assert!(outlet.take_lost() > 99_000);
    }

    #[test]
    fn the_rest_is_written_at_the_end() {
        let written = Arc::new(Mutex::new((0, 0)));
        let count = Arc::clone(&written);
        let (spool, guard) = start("test", 1 << 20, move |mut outlet: Outlet<Vec<u8>>| {
            let flush = || {
                count.lock().unwrap().1 += 1;
                Ok(())
            };
            while outlet.next(flush).unwrap().is_some() {
                count.lock().unwrap().0 += 1;
            }
        })
        .unwrap();
        for _ in 0..1000 {
            push(&spool, 10);
        }
        drop(guard);
        let (entries, flushes) = *written.lock().unwrap();
        assert!(entries == 1000 && flushes > 0, "{entries} entries, {flushes} flushes");
        push(&spool, 10);
        assert_eq!(spool.held(), 0, "nothing is taken after the end");
    }

    #[test]
    fn a_writer_that_has_given_up_holds_nothing() {
        let (spool, outlet) = pair(1 << 20);
        push(&spool, 1000);
        drop(outlet);
        push(&spool, 1000);
        assert_eq!(spool.held(), 0);
        drop(SpoolGuard(spool.0));
    }

    /// A disk that hangs.
    #[test]
    fn the_end_waits_for_a_second_at_most() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let write = move |mut outlet: Outlet<Vec<u8>>| {
            let _ = outlet.next(|| Ok(()));
            let _ = blocked.recv();
        };
        let (spool, guard) = start("test", 1 << 20, write).unwrap();
        push(&spool, 10);
        drop(guard);
        drop(release);
    }
}
