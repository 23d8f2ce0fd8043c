//! Standard input as a bounded, cancel-safe source.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::termios::isatty;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::limits::{READ_SIZE, STDIN_CHUNKS};
use super::raw::{in_background, without};
use crate::process::watch_readable;

/// Standard input. At most five reads of up to 64 KiB are held: four in the queue (`STDIN_CHUNKS`), one in the thread.
///
/// A pipe or socket is read by the runtime itself: half the echo time of a thread, and more than 1 GB/s
/// (measured). A terminal, where a read may block although it looked readable, and a file, which no
/// runtime can wait for, have a thread. (Not `tokio::io::stdin`: the end of the process would wait for
/// the user's next line.)
#[derive(Debug)]
pub(crate) struct Stdin {
    source: Source,
    ended: bool,
}

#[derive(Debug)]
enum Source {
    Ready { fd: AsyncFd<OwnedFd>, buffer: Box<[u8]> },
    Thread { chunks: mpsc::Receiver<io::Result<Bytes>>, _wake: PipeWriter },
}

impl Stdin {
    /// Opens stdin in the way that fits what it is; needs a tokio runtime with IO.
    ///
    /// # Errors
    /// If the process has no descriptor or thread left.
    pub(crate) fn open() -> io::Result<Stdin> {
        Stdin::on(io::stdin().as_fd().try_clone_to_owned()?)
    }

    pub(super) fn on(fd: OwnedFd) -> io::Result<Stdin> {
        let source = match kind(&fd)? {
            FileType::Fifo | FileType::Socket => match watch_readable(fd) {
                Ok(fd) => Source::Ready { fd, buffer: vec![0; READ_SIZE].into() },
                Err(fd) => reader_thread(fd)?,
            },
            _ => reader_thread(fd)?,
        };
        Ok(Stdin { source, ended: false })
    }

    /// The next bytes; empty at the end of input, and from then on. Cancel-safe.
    ///
    /// # Errors
    /// A read error; the input has then ended too.
    pub(crate) async fn read(&mut self) -> io::Result<Bytes> {
        if self.ended {
            return Ok(Bytes::new());
        }
        let result = match &mut self.source {
            Source::Ready { fd, buffer } => read_ready(fd, buffer).await,
            Source::Thread { chunks, .. } => chunks.recv().await.unwrap_or(Ok(Bytes::new())),
        };
        self.ended = !matches!(&result, Ok(bytes) if !bytes.is_empty());
        result
    }
}

fn kind(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// Returns whether stdin is a pipe, a socket or a file that is not empty.
pub(super) fn has_data() -> bool {
    let stdin = io::stdin();
    match kind(&stdin) {
        Ok(FileType::Fifo | FileType::Socket) => true,
        Ok(FileType::RegularFile) => fstat(&stdin).is_ok_and(|stat| stat.st_size > 0),
        _ => false,
    }
}

async fn read_ready(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<Bytes> {
    loop {
        let mut guard = fd.readable().await?;
        let read = guard.try_io(|fd| {
            if !is_readable(fd.as_fd())? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer))?)
        });
        match read {
            Ok(Ok(count)) => return Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
            // A peer that is gone has nothing more to say.
            Ok(Err(err)) if err.kind() == io::ErrorKind::ConnectionReset => return Ok(Bytes::new()),
            Ok(Err(err)) => return Err(err),
            Err(_would_block) => {}
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)))?;
    Ok(!fds[0].revents().is_empty())
}

/// The thread ends with the input, or when the source is dropped, which wakes it. It takes nothing from
/// a terminal that will not be read.
fn reader_thread(fd: OwnedFd) -> io::Result<Source> {
    let (sender, chunks) = mpsc::channel(STDIN_CHUNKS);
    let (woken, wake) = io::pipe()?;
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        without(libc::SIGTTIN, || read_all(&fd, &woken, &sender));
    })?;
    Ok(Source::Thread { chunks, _wake: wake })
}

fn read_all(fd: &OwnedFd, woken: &PipeReader, sender: &mpsc::Sender<io::Result<Bytes>>) {
    let terminal = isatty(fd);
    let mut buffer = vec![0; READ_SIZE];
    while wait_readable(fd, woken) {
        if terminal && in_background(fd) {
            // What is typed is the shell's. Reading it would stop the process.
            if is_woken_within(woken, BACKGROUND_POLL) {
                return;
            }
            continue;
        }
        let chunk = match rustix::io::read(fd, &mut buffer[..]) {
            // Another process has set the terminal to O_NONBLOCK (smp#29): wait, then read again.
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Ok(0) => return,
            Err(Errno::IO) if terminal && in_background(fd) => continue,
            // It has hung up.
            Err(Errno::IO) if terminal => return,
            Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
            Err(err) => Err(err.into()),
        };
        let failed = chunk.is_err();
        if sender.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Waits until there is something to read; false when the source was dropped.
fn wait_readable(fd: &OwnedFd, woken: &PipeReader) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            // Where terminals cannot be polled (macOS's /dev/tty) the read itself has to wait.
            Err(_) => return true,
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) => {}
        }
    }
}

/// Returns whether the source is dropped within `time`.
fn is_woken_within(woken: &PipeReader, time: Timespec) -> bool {
    let mut fds = [PollFd::new(woken, PollFlags::IN)];
    poll(&mut fds, Some(&time)).is_ok_and(|count| count > 0)
}

/// Time between two looks whether the terminal is ours again.
const BACKGROUND_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
