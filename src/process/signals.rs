//! Signals as a stream.
#![expect(unsafe_code, reason = "asking for a signal's disposition has no safe interface")]

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::signal::unix::{self, SignalKind, signal};

use super::signal::Signal;

/// The stream of signals. From [`Signals::install`] on, none of them ends the process any more, also
/// when this has been dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
    news: Arc<News>,
}

/// Wakes the task that waits for signals, and remembers that there may be one.
#[derive(Debug)]
struct News {
    is_there: AtomicBool,
    task: AtomicWaker,
}

impl Wake for News {
    fn wake(self: Arc<News>) {
        self.is_there.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Signals {
    /// Starts to listen; needs a tokio runtime with IO. A SIGHUP ignored from the start (`nohup`) stays
    /// ignored.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        let mut streams = Vec::new();
        for (what, kind) in kinds() {
            if what == Signal::Hangup && is_ignored(kind) {
                continue;
            }
            streams.push((what, signal(kind)?));
        }
        let news = News { is_there: AtomicBool::new(true), task: AtomicWaker::new() };
        Ok(Signals { streams, news: Arc::new(news) })
    }

    /// The next signal, the most urgent first. Several of one kind may come as one. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Signal {
        poll_fn(|context| {
            self.news.task.register(context.waker());
            // The eight streams are looked at when one of them has woken the task, not whenever something else has.
            if self.news.is_there.swap(false, Ordering::Acquire) { self.poll() } else { Poll::Pending }
        })
        .await
    }

    fn poll(&mut self) -> Poll<Signal> {
        let waker = Waker::from(Arc::clone(&self.news));
        for (what, stream) in &mut self.streams {
            if let Poll::Ready(Some(())) = stream.poll_recv(&mut Context::from_waker(&waker)) {
                // Those after it may have one, too.
                self.news.is_there.store(true, Ordering::Release);
                return Poll::Ready(*what);
            }
        }
        Poll::Pending
    }
}

/// In the order of their urgency.
fn kinds() -> [(Signal, SignalKind); 8] {
    [
        (Signal::Terminate, SignalKind::terminate()),
        (Signal::Hangup, SignalKind::hangup()),
        (Signal::Interrupt, SignalKind::interrupt()),
        (Signal::Quit, SignalKind::quit()),
        (Signal::Suspend, SignalKind::from_raw(libc::SIGTSTP)),
        (Signal::Continue, SignalKind::from_raw(libc::SIGCONT)),
        (Signal::WindowChanged, SignalKind::window_change()),
        (Signal::Usr1, SignalKind::user_defined1()),
    ]
}

pub(super) fn is_ignored(kind: SignalKind) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action the call only fills `action`, which is read when it has returned 0.
    unsafe {
        libc::sigaction(kind.as_raw_value(), std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
