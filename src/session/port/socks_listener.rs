//! The SOCKS listener: clients that say where to before they are connections.
//!
//! On loopback only, whatever the port listens on: whoever reaches it reaches what the instance reaches. A client has
//! [`HANDSHAKE_TIMEOUT`] for its handshake; of so many at a time ([`MAX_HANDSHAKES`]), further ones wait in the listener.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::destination::Destination;
use super::listener::poll_accept_any;
use super::socks::{Handshake, Step};

/// Listens for SOCKS clients, and shakes hands with them.
#[derive(Debug)]
pub(super) struct SocksListener {
    sockets: Vec<TcpListener>,
    port: u16,
    handshakes: JoinSet<Option<(TcpStream, Destination)>>,
}

impl SocksListener {
    /// Listens on 127.0.0.1 and, if that is possible too, on ::1. Port 0 is any free one.
    ///
    /// # Errors
    /// As the system's `bind`.
    pub(super) async fn bind(port: u16) -> io::Result<SocksListener> {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = first.local_addr()?.port();
        let mut sockets = vec![first];
        match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
            Ok(second) => sockets.push(second),
            Err(error) => tracing::info!(port, %error, "no SOCKS listener on ::1"),
        }
        Ok(SocksListener { sockets, port, handshakes: JoinSet::new() })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The next connection, with its destination, which waits for its reply. New clients are accepted only with
    /// `may_accept`. Cancel-safe.
    ///
    /// # Errors
    /// As the system's `accept`.
    pub(super) async fn accept(&mut self, may_accept: bool) -> io::Result<(TcpStream, Destination)> {
        loop {
            let has_room = self.handshakes.len() < MAX_HANDSHAKES;
            tokio::select! {
                accepted = poll_fn(|cx| poll_accept_any(&self.sockets, cx)), if may_accept && has_room => {
                    self.handshakes.spawn(handshake(accepted?));
                }
                Some(done) = self.handshakes.join_next() => if let Ok(Some(connection)) = done {
                    return Ok(connection);
                },
                // Without a handshake, and with no more clients wanted.
                else => std::future::pending().await,
            }
        }
    }
}

/// `None` for a client that did not get so far.
async fn handshake(mut stream: TcpStream) -> Option<(TcpStream, Destination)> {
    let destination = tokio::time::timeout(HANDSHAKE_TIMEOUT, destination(&mut stream)).await;
    match destination {
        Ok(Ok(Some(destination))) => Some((stream, destination)),
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a SOCKS client has gone");
            None
        }
        Err(_) => {
            tracing::info!("a SOCKS client has not said in time where to");
            None
        }
    }
}

async fn destination(stream: &mut TcpStream) -> io::Result<Option<Destination>> {
    let mut handshake = Handshake::default();
    let mut step = handshake.start();
    loop {
        step = match step {
            Step::Read(count) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).await?;
                handshake.handle(&bytes)
            }
            Step::Send(bytes) => {
                stream.write_all(bytes).await?;
                handshake.handle(&[])
            }
            Step::Connect(destination) => return Ok(Some(destination)),
            Step::Refuse(answer, reason) => {
                tracing::info!(reason, "a SOCKS client was refused");
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // Closing with unread input would reset the connection and destroy the answer.
                let _ = tokio::io::copy(&mut stream.take(MAX_DROPPED), &mut tokio::io::sink()).await;
                return Ok(None);
            }
        }
    }
}

/// A client on the same machine needs milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients that shake hands at a time.
const MAX_HANDSHAKES: usize = 256;
/// Read and dropped of what a refused client still sends, in bytes.
const MAX_DROPPED: u64 = 64 << 10;
