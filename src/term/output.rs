//! Standard output and error, written in order without blocking the runtime.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::Notify;

use crate::queue::ByteQueue;

/// Bytes of memory held from which on [`Output::has_room`] is false.
pub(crate) const OUTPUT_QUEUE: usize = 1 << 20;

/// A byte stream to a terminal, pipe, socket or file.
///
/// [`push`](Output::push) writes at once as far as that cannot block; the rest is left to a thread that
/// writes in order. The queue takes whatever is pushed: who fills it looks at
/// [`has_room`](Output::has_room) first.
#[derive(Debug)]
pub(crate) struct Output {
    shared: Arc<Shared>,
    threaded: bool,
}

impl Output {
    /// Writes to stdout.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub(crate) fn stdout() -> io::Result<Output> {
        Ok(Output::on(Sink::stdout()?))
    }

    /// Writes to stderr.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub(crate) fn stderr() -> io::Result<Output> {
        Ok(Output::on(Sink::stderr()?))
    }

    pub(super) fn on(sink: Sink) -> Output {
        let shared = Shared { sink, state: Mutex::default(), work: Condvar::new(), progress: Notify::new() };
        Output { shared: Arc::new(shared), threaded: false }
    }

    /// Takes bytes. After an error (the reader is gone) they are dropped.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        let mut state = self.shared.lock();
        if state.held == 0 && state.failed.is_none() {
            match self.shared.sink.write_now(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(err) => self.shared.fail(&mut state, &err),
            }
        }
        if bytes.is_empty() || state.failed.is_some() {
            return;
        }
        state.held += state.queue.push(bytes);
        if !self.threaded {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("output".to_owned()).spawn(move || shared.write_all()) {
                Ok(_) => self.threaded = true,
                Err(err) => self.shared.fail(&mut state, &err),
            }
        }
        self.shared.work.notify_one();
    }

    /// Returns whether what waits holds less memory than [`OUTPUT_QUEUE`].
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        self.held() < OUTPUT_QUEUE
    }

    /// Bytes of memory that what waits holds.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        self.shared.lock().held
    }

    /// Returns whether all has been written.
    #[cfg(all(test, unix))]
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.lock().held == 0
    }

    /// Returns whether the reader has gone, although nothing was written since. On Windows, only a write shows that.
    pub(crate) fn has_lost_reader(&self) -> bool {
        self.shared.sink.is_hung_up()
    }

    /// Resolves after some progress; pends while nothing is waiting. Cancel-safe.
    ///
    /// # Errors
    /// The error that ended the stream, each time: `BrokenPipe` when its reader is gone.
    pub(crate) async fn drive(&mut self) -> io::Result<()> {
        loop {
            {
                let mut state = self.shared.lock();
                state.check()?;
                if std::mem::take(&mut state.progressed) {
                    return Ok(());
                }
            }
            self.shared.progress.notified().await;
        }
    }

    /// Resolves when all has been written. Cancel-safe. A reader that takes nothing makes it wait for
    /// ever: bound it.
    ///
    /// # Errors
    /// As [`drive`](Output::drive).
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        loop {
            {
                let state = self.shared.lock();
                state.check()?;
                if state.held == 0 {
                    return Ok(());
                }
            }
            self.shared.progress.notified().await;
        }
    }
}

impl Drop for Output {
    /// The thread writes what is left, as long as the process lives.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    sink: Sink,
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes `drive` and `flush`, one at a time.
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: ByteQueue,
    /// Bytes of memory held by `queue` and by the thread.
    held: usize,
    progressed: bool,
    failed: Option<(io::ErrorKind, Option<i32>)>,
    closed: bool,
}

impl State {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            None => Ok(()),
            Some((_, Some(code))) => Err(io::Error::from_raw_os_error(code)),
            Some((kind, None)) => Err(kind.into()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the queue, since its reader is gone.
    fn fail(&self, state: &mut State, err: &io::Error) {
        state.failed = Some((err.kind(), err.raw_os_error()));
        state.queue = ByteQueue::default();
        state.held = 0;
        self.progress.notify_one();
    }

    /// The thread.
    fn write_all(&self) {
        let mut state = self.lock();
        loop {
            while state.queue.is_empty() {
                if state.closed || state.failed.is_some() {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let mut batch = state.queue.take();
            while !batch.is_empty() {
                drop(state);
                let written = self.sink.write(&batch.slices());
                state = self.lock();
                match written {
                    Ok(count) => {
                        state.held = state.held.saturating_sub(batch.advance(count));
                        state.progressed = true;
                        self.progress.notify_one();
                    }
                    Err(err) => return self.fail(&mut state, &err),
                }
            }
        }
    }
}

#[cfg(unix)]
pub(super) use self::unix::Sink;
#[cfg(windows)]
pub(super) use super::windows::Sink;

#[cfg(unix)]
mod unix {
    use std::io::{self, IoSlice};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{FileType, fstat};
    use rustix::io::{Errno, retry_on_intr};
    use rustix::net::SendFlags;

    /// A descriptor and how much may be written to it at once after `poll` called it writable.
    #[derive(Debug)]
    pub(in crate::term) struct Sink {
        fd: OwnedFd,
        safe: Safe,
    }

    #[derive(Debug, Clone, Copy)]
    enum Safe {
        /// A write of this size cannot block.
        Bytes(usize),
        /// The system can be asked not to block.
        Socket,
    }

    impl Sink {
        pub(super) fn stdout() -> io::Result<Sink> {
            Sink::new(io::stdout().as_fd().try_clone_to_owned()?)
        }

        pub(super) fn stderr() -> io::Result<Sink> {
            Sink::new(io::stderr().as_fd().try_clone_to_owned()?)
        }

        pub(in crate::term) fn new(fd: OwnedFd) -> io::Result<Sink> {
            let safe = match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                FileType::Socket => Safe::Socket,
                FileType::CharacterDevice => Safe::Bytes(TERMINAL_ROOM),
                _ => Safe::Bytes(libc::PIPE_BUF),
            };
            Ok(Sink { fd, safe })
        }

        /// Writes as much as cannot block, perhaps nothing.
        pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                if done >= AT_ONCE || !is_writable(self.fd.as_fd())? {
                    break;
                }
                let written = match self.safe {
                    Safe::Bytes(limit) => {
                        let part = rest.get(..limit).unwrap_or(rest);
                        retry_on_intr(|| rustix::io::write(&self.fd, part))
                    }
                    Safe::Socket => retry_on_intr(|| rustix::net::send(&self.fd, rest, SendFlags::DONTWAIT)),
                };
                match written {
                    Ok(count) => done += count,
                    Err(Errno::AGAIN) => break,
                    Err(err) => return Err(err.into()),
                }
            }
            Ok(done)
        }

        /// Returns whether the other end of a pipe, socket or terminal is closed. A socket whose peer sends no more is not.
        pub(super) fn is_hung_up(&self) -> bool {
            let state = state(self.fd.as_fd(), PollFlags::empty());
            state.is_ok_and(|state| state.intersects(PollFlags::ERR | PollFlags::HUP))
        }

        /// Writes some of `batch`, waiting as long as it takes.
        pub(super) fn write(&self, batch: &[IoSlice<'_>]) -> io::Result<usize> {
            loop {
                match rustix::io::writev(&self.fd, batch) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => return Ok(count),
                    Err(Errno::INTR) => {}
                    // Another process has set O_NONBLOCK.
                    Err(Errno::AGAIN) => {
                        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
                        retry_on_intr(|| poll(&mut fds, None))?;
                    }
                    Err(err) => return Err(err.into()),
                }
            }
        }
    }

    fn is_writable(fd: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(!state(fd, PollFlags::OUT)?.is_empty())
    }

    /// Those of `events` that hold now, and errors.
    fn state(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::from_borrowed_fd(fd, events)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        retry_on_intr(|| poll(&mut fds, Some(&now)))?;
        Ok(fds[0].revents())
    }

    /// Terminals report room only while they can take at least this much (the low-water mark).
    const TERMINAL_ROOM: usize = 256;
    /// The most `write_now` writes, so that one call stays short.
    const AT_ONCE: usize = 16 * 1024;
}
