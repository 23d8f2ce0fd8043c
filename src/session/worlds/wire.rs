//! A wire between two ends in the process: a delay each way, silence, and its end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// One end of a wire.
pub(super) struct Wire {
    shared: Arc<Mutex<Shared>>,
    /// Index of the direction that this end reads.
    reads: usize,
    timer: Pin<Box<Sleep>>,
}

/// A hold on both directions of a wire.
#[derive(Clone)]
pub(super) struct WireControl(Arc<Mutex<Shared>>);

struct Shared {
    directions: [Direction; 2],
    delay: Duration,
    /// Until then nothing arrives.
    silent_until: Option<Instant>,
    /// Nothing arrives any more, and neither end learns of it.
    is_dead: bool,
    is_broken: bool,
}

#[derive(Default)]
struct Direction {
    queue: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    has_ended: Option<Instant>,
    /// The end that read it is gone: what is written is lost, and holds up nothing.
    is_unread: bool,
    wakers: Vec<Waker>,
}

impl Direction {
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }
}

impl Wire {
    pub(super) fn pair(delay: Duration) -> (Wire, Wire, WireControl) {
        let directions = [Direction::default(), Direction::default()];
        let shared = Shared { directions, delay, silent_until: None, is_dead: false, is_broken: false };
        let shared = Arc::new(Mutex::new(shared));
        let end = |reads| Wire {
            shared: Arc::clone(&shared),
            reads,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        (end(0), end(1), WireControl(Arc::clone(&shared)))
    }
}

impl WireControl {
    /// Breaks the connection: both ends learn of it.
    pub(super) fn cut(&self) {
        self.change(|shared| shared.is_broken = true);
    }

    /// Delivers nothing for a while; nothing is lost.
    pub(super) fn silence(&self, time: Duration) {
        let until = Instant::now() + time;
        self.change(|shared| shared.silent_until = Some(until));
    }

    /// Delivers nothing any more, as a path that has gone.
    pub(super) fn kill(&self) {
        self.change(|shared| shared.is_dead = true);
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = lock(&self.0);
        change(&mut shared);
        shared.wake();
    }
}

impl Shared {
    fn wake(&mut self) {
        self.directions.iter_mut().for_each(|direction| direction.wakers.drain(..).for_each(Waker::wake));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut guard = lock(&this.shared);
            let shared = &mut *guard;
            if shared.is_broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let direction = &mut shared.directions[this.reads];
            direction.wait(cx);
            if shared.is_dead {
                return Poll::Pending;
            }
            let Some(due) = direction.queue.front().map(|(due, _)| *due).or(direction.has_ended) else {
                return Poll::Pending;
            };
            let due = due.max(shared.silent_until.unwrap_or(due));
            if due <= Instant::now() {
                let Some((_, bytes)) = direction.queue.front_mut() else { return Poll::Ready(Ok(())) };
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.drain(..count);
                if bytes.is_empty() {
                    direction.queue.pop_front();
                }
                direction.held -= count;
                direction.wakers.drain(..).for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            drop(guard);
            this.timer.as_mut().reset(due);
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        if shared.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let direction = &mut shared.directions[1 - self.reads];
        if direction.is_unread && !shared.is_dead {
            return Poll::Ready(Ok(bytes.len()));
        }
        let count = bytes.len().min(CAPACITY.saturating_sub(direction.held));
        if count == 0 && !bytes.is_empty() {
            direction.wait(cx);
            return Poll::Pending;
        }
        direction.queue.push_back((Instant::now() + shared.delay, bytes[..count].to_vec()));
        direction.held += count;
        direction.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        let direction = &mut shared.directions[1 - self.reads];
        direction.has_ended.get_or_insert(Instant::now() + shared.delay);
        direction.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        let at = Instant::now() + shared.delay;
        shared.directions[1 - self.reads].has_ended.get_or_insert(at);
        shared.directions[self.reads].is_unread = true;
        shared.wake();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes under way in one direction.
const CAPACITY: usize = 1 << 20;
