//! Connections of port sessions to their destinations: TCP, or made by the program that runs the agent.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// A byte stream to a destination.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// A connection on its way.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

type Dial = dyn Fn(&str, u16) -> Dialing + Send + Sync;

/// The network that an agent is in.
#[derive(Clone, Default)]
pub struct Destinations(Option<Arc<Dial>>);

impl Destinations {
    /// Connections are made by `dial`, which gets host and port; by default they are TCP.
    pub fn new(dial: impl Fn(&str, u16) -> Dialing + Send + Sync + 'static) -> Destinations {
        Destinations(Some(Arc::new(dial)))
    }

    pub(super) async fn connect(&self, (host, port): &(String, u16)) -> io::Result<Socket> {
        let Some(dial) = &self.0 else {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            let _ = stream.set_nodelay(true);
            return Ok(Socket::Tcp(stream));
        };
        let (read, write) = tokio::io::split(dial(host, *port).await?);
        Ok(Socket::Other(Mutex::new(read), Mutex::new(write)))
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "of its own" } else { "by TCP" })
    }
}

/// A connection that is read and written through shared references.
pub(super) enum Socket {
    Tcp(TcpStream),
    Other(Mutex<ReadHalf<Box<dyn Connection>>>, Mutex<WriteHalf<Box<dyn Connection>>>),
}

impl Socket {
    /// Reads what has come; 0 bytes at the end. Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => loop {
                stream.readable().await?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            },
            Socket::Other(read, _) => read.lock().await.read(buffer).await,
        }
    }

    /// The same into spare room, `limit` bytes at most.
    pub(super) async fn read_buf(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => loop {
                stream.readable().await?;
                match stream.try_read_buf(&mut buffer.limit(limit)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            },
            Socket::Other(read, _) => read.lock().await.read_buf(&mut buffer.limit(limit)).await,
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                while !bytes.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(bytes) {
                        Ok(written) => bytes = &bytes[written..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Socket::Other(_, write) => write.lock().await.write_all(bytes).await,
        }
    }
}
