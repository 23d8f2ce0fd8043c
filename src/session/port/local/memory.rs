//! Connections within the process: both ends of a byte stream with bounded buffers, half-close and reset, as TCP has them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection. Dropping it closes the connection: the other end reads what was written, then the end; it gets
/// an error if something was left unread here, or after [`MemoryStream::reset`].
#[derive(Debug)]
pub(crate) struct MemoryStream {
    shared: Arc<Mutex<[Direction; 2]>>,
    /// Index of the direction that this end reads.
    reads: usize,
    is_reset: Mutex<bool>,
}

/// Bytes on their way to one end.
#[derive(Debug, Default)]
struct Direction {
    bytes: VecDeque<u8>,
    /// No more is written.
    has_ended: bool,
    /// The connection was broken off.
    is_broken: bool,
    /// The reading end is closed.
    is_unread: bool,
    /// Tasks of either end that wait for a change.
    wakers: Vec<Waker>,
}

impl Direction {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_readable(&self) -> bool {
        !self.bytes.is_empty() || self.has_hung_up()
    }

    fn has_hung_up(&self) -> bool {
        self.has_ended || self.is_broken
    }

    /// Takes bytes out; none at the end.
    fn read(&mut self, room: usize, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        let count = room.min(self.bytes.len());
        if count == 0 && room > 0 {
            return match (self.is_broken, self.has_ended) {
                (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let (front, back) = self.bytes.as_slices();
        let first = count.min(front.len());
        take(&front[..first]);
        take(&back[..count - first]);
        self.bytes.drain(..count);
        self.wake();
        Ok(count)
    }

    fn is_writable(&self) -> bool {
        self.bytes.len() < CAPACITY || self.is_broken || self.is_unread
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken || self.is_unread {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(CAPACITY - self.bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend(&bytes[..count]);
        self.wake();
        Ok(count)
    }
}

impl MemoryStream {
    /// Both ends of a new connection.
    pub(crate) fn pair() -> (MemoryStream, MemoryStream) {
        let shared = Arc::<Mutex<[Direction; 2]>>::default();
        let end = |reads| MemoryStream { shared: Arc::clone(&shared), reads, is_reset: Mutex::new(false) };
        (end(0), end(1))
    }

    /// Resolves when something can be read, also the end or an error. Cancel-safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll(self.reads, cx, Direction::is_readable)).await;
        Ok(())
    }

    /// Resolves when the other end writes no more or is gone, whatever has not been read yet. Cancel-safe.
    pub(crate) async fn hung_up(&self) {
        poll_fn(|cx| self.poll(self.reads, cx, Direction::has_hung_up)).await;
    }

    /// Resolves when something can be written, or writing fails. Cancel-safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll(1 - self.reads, cx, Direction::is_writable)).await;
        Ok(())
    }

    /// Reads what there is, as much as `buffer` has room for.
    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.chunk_mut().len();
        self.lock()[self.reads].read(room, |bytes| buffer.put_slice(bytes))
    }

    /// Writes as much as the other end has room for.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.lock()[1 - self.reads].write(bytes)
    }

    /// Writes as much of `slices` as the other end has room for.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.try_write(slice) {
                Ok(count) => written += count,
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Shows the other end the end of what is written.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        let mut both = self.lock();
        both[1 - self.reads].has_ended = true;
        both[1 - self.reads].wake();
        Ok(())
    }

    /// Makes closing it break the connection off.
    pub(crate) fn reset(&self) {
        *self.is_reset.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn poll(&self, direction: usize, cx: &Context<'_>, is_ready: fn(&Direction) -> bool) -> Poll<()> {
        let direction = &mut self.lock()[direction];
        if is_ready(direction) { Poll::Ready(()) } else { direction.wait(cx) }
    }

    fn lock(&self) -> MutexGuard<'_, [Direction; 2]> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let is_reset = *self.is_reset.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut both = self.lock();
        let is_broken = is_reset || !both[self.reads].bytes.is_empty();
        for direction in both.iter_mut() {
            direction.is_broken |= is_broken;
        }
        both[self.reads].is_unread = true;
        both[1 - self.reads].has_ended = true;
        both.iter_mut().for_each(Direction::wake);
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let direction = &mut self.lock()[self.reads];
        match direction.read(buffer.remaining(), |bytes| buffer.put_slice(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => direction.wait(cx),
            read => Poll::Ready(read.map(drop)),
        }
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let direction = &mut self.lock()[1 - self.reads];
        match direction.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => direction.wait(cx),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}

/// Bytes that wait for one end; as much as a socket's buffer holds at first.
const CAPACITY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_in_order_and_wait_for_room() {
        let (mut near, mut far) = MemoryStream::pair();
        let sent: Vec<u8> = (0..5 * CAPACITY).map(|at| (at % 251) as u8).collect();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut received));
        read.unwrap();
        assert!(received == sent);
        far.write_all(b"answer").await.unwrap();
        let mut answer = BytesMut::with_capacity(16);
        near.readable().await.unwrap();
        assert_eq!(near.try_read_buf(&mut answer).unwrap(), 6, "after half-close");
    }

    #[tokio::test]
    async fn an_end_that_is_dropped_is_read_as_an_end_and_a_reset_as_an_error() {
        let (near, mut far) = MemoryStream::pair();
        near.try_write(b"last").unwrap();
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
        assert_eq!(far.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (near, mut far) = MemoryStream::pair();
        near.reset();
        drop(near);
        far.hung_up().await;
        assert_eq!(far.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (near, mut far) = MemoryStream::pair();
        far.write_all(b"unread").await.unwrap();
        drop(near);
        assert!(far.read(&mut [0]).await.is_err(), "as TCP does");
    }
}
