//! The local end of a connection: TCP, a socket file, or another part of the process.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::memory::MemoryStream;
use crate::process::{PeerOwner, peer_owner};

/// A TCP connection, one to a socket file, or one within the process. It is read and written through shared references: by a connection's task, and
/// by the session, which writes what need not wait.
#[derive(Debug)]
pub(crate) enum LocalStream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(MemoryStream),
}

/// The same expression for all kinds.
macro_rules! each {
    ($stream:expr, $inner:ident => $value:expr) => {
        match $stream {
            LocalStream::Tcp($inner) => $value,
            #[cfg(unix)]
            LocalStream::Unix($inner) => $value,
            LocalStream::Memory($inner) => $value,
        }
    };
}

impl LocalStream {
    /// Name of the peer, for people.
    pub(crate) fn peer(&self) -> String {
        match self {
            LocalStream::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_| "nowhere".to_owned(), |peer| peer.to_string())
            }
            #[cfg(unix)]
            LocalStream::Unix(_) => "the socket file".to_owned(),
            LocalStream::Memory(_) => "this program".to_owned(),
        }
    }

    /// Makes closing it break the connection off: a TCP client sees a reset. A socket file has none.
    pub(crate) fn reset(&self) {
        match self {
            LocalStream::Tcp(stream) => _ = stream.set_zero_linger(),
            #[cfg(unix)]
            LocalStream::Unix(_) => {}
            LocalStream::Memory(stream) => stream.reset(),
        }
    }

    /// The owner of the other end: of a TCP connection within this machine, where the system reports it. The file system
    /// decides about a socket file.
    pub(crate) fn owner(&self) -> PeerOwner {
        match self {
            LocalStream::Tcp(stream) => match (stream.local_addr(), stream.peer_addr()) {
                (Ok(local), Ok(peer)) if peer.ip().to_canonical().is_loopback() => peer_owner(local, peer),
                (Ok(_), Ok(_)) => PeerOwner::Unknown,
                _ => PeerOwner::Gone,
            },
            #[cfg(unix)]
            LocalStream::Unix(_) => PeerOwner::Trusted,
            LocalStream::Memory(_) => PeerOwner::Trusted,
        }
    }

    /// Reads what has come; 0 bytes at the end. Cancel-safe.
    pub(crate) async fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            each!(self, stream => stream.readable().await)?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Reads what has come. A reading that leaves room has taken all of it: like the runtime's own reading of a stream, this
    /// waits for the system to report more, instead of asking once again.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let (room, mut count) = (buffer.capacity() - buffer.len(), 0);
        let read = || {
            count = each!(self, stream => stream.try_read_buf(buffer))?;
            let has_taken_all = !cfg!(windows) && (1..room).contains(&count);
            if has_taken_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        };
        let read = match self {
            LocalStream::Tcp(stream) => stream.try_io(Interest::READABLE, read),
            #[cfg(unix)]
            LocalStream::Unix(stream) => stream.try_io(Interest::READABLE, read),
            LocalStream::Memory(stream) => stream.try_read_buf(buffer),
        };
        if count > 0 { Ok(count) } else { read }
    }

    /// Writes some of `slices`, as soon as the other side takes something. Cancel-safe.
    pub(crate) async fn write_some(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            each!(self, stream => stream.writable().await)?;
            match each!(self, stream => stream.try_write_vectored(slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    /// Writes what the other side takes now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.try_write(bytes))
    }

    /// Shows the other side the end of what is written.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            LocalStream::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            #[cfg(unix)]
            LocalStream::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            LocalStream::Memory(stream) => stream.shutdown(),
        }
    }

    /// Resolves when the local side sends no more or is gone, whatever of it has not been read yet. Cancel-safe.
    ///
    /// On Windows this may be late, and nothing may depend on it: TCP reports the end to the system's socket driver (AFD)
    /// behind the data, of which the driver takes as much as fits into the receive buffer. It polls the end separately
    /// from unread data; wine reports it after the data has been read.
    pub(crate) async fn hung_up(&self) {
        loop {
            let ready = match self {
                LocalStream::Tcp(stream) => stream.ready(Interest::READABLE).await,
                #[cfg(unix)]
                LocalStream::Unix(stream) => stream.ready(Interest::READABLE).await,
                LocalStream::Memory(stream) => return stream.hung_up().await,
            };
            if ready.map_or(true, |ready| ready.is_read_closed()) {
                return;
            }
            // There are unread bytes, so the end of the stream behind them cannot be seen yet.
            tokio::time::sleep(HANG_UP_POLL).await;
        }
    }
}

/// Interval at which a local side that is not being read is checked.
const HANG_UP_POLL: Duration = Duration::from_secs(1);
