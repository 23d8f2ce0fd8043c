//! The SOCKS listener: its clients name their destination in a handshake, and are connections only after that.
//!
//! On loopback only, whatever the port listens on: whoever reaches it reaches what the instance reaches. A client has
//! [`HANDSHAKE_TIMEOUT`] for its handshake. When there are [`MAX_HANDSHAKES`] of them, a further one takes the place of the
//! oldest, as soon as that has had [`MIN_PATIENCE`]: clients that come in a burst wait for each other in the system's
//! queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::destination::Destination;
use super::listener::poll_accept_any;
use super::socks::{Handshake, Step};
use crate::process::descriptor_limit;

/// Listens for SOCKS clients, and shakes hands with them.
#[derive(Debug)]
pub(super) struct SocksListener {
    sockets: Vec<TcpListener>,
    port: u16,
    handshakes: JoinSet<Option<(TcpStream, Destination)>>,
    /// The same with their beginnings, oldest first, without those that were aborted.
    begun: VecDeque<(Instant, AbortHandle)>,
    max_handshakes: usize,
    /// [`MIN_PATIENCE`], but in tests.
    patience: Duration,
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
        // The connections that come of them need descriptors, too.
        let max_handshakes = MAX_HANDSHAKES.min(descriptor_limit() / 8).max(1);
        let (handshakes, begun) = (JoinSet::new(), VecDeque::new());
        Ok(SocksListener { sockets, port, handshakes, begun, max_handshakes, patience: MIN_PATIENCE })
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
            let room = self.room();
            tokio::select! {
                accepted = poll_fn(|cx| poll_accept_any(&self.sockets, cx)), if may_accept && room == Room::Now => {
                    self.begin(accepted?);
                }
                () = room.wait(), if may_accept => {}
                Some(done) = self.handshakes.join_next() => if let Ok(Some(connection)) = done {
                    return Ok(connection);
                },
                // Without a handshake, and with no more clients wanted.
                else => std::future::pending().await,
            }
        }
    }

    /// When the next client may be accepted.
    fn room(&mut self) -> Room {
        self.begun.retain(|(_, handshake)| !handshake.is_finished());
        match self.begun.front() {
            _ if self.handshakes.len() < self.max_handshakes => Room::Now,
            // An aborted one has its descriptor until it is joined.
            Some((since, _)) if self.handshakes.len() == self.max_handshakes => {
                let at = *since + self.patience;
                if at <= Instant::now() { Room::Now } else { Room::At(at) }
            }
            _ => Room::Later,
        }
    }

    fn begin(&mut self, stream: TcpStream) {
        if self.handshakes.len() >= self.max_handshakes
            && let Some((_, oldest)) = self.begun.pop_front()
        {
            oldest.abort();
        }
        self.begun.push_back((Instant::now(), self.handshakes.spawn(handshake(stream))));
    }
}

/// When there is room for a further handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Now,
    /// The oldest gives way then.
    At(Instant),
    /// When one has ended.
    Later,
}

impl Room {
    /// Ends when there may be room by itself.
    async fn wait(self) {
        match self {
            Room::At(at) => sleep_until(at).await,
            Room::Now | Room::Later => std::future::pending().await,
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
/// How long a client may take in any case before a newer one takes its place.
const MIN_PATIENCE: Duration = Duration::from_millis(250);
/// Clients that shake hands at a time.
const MAX_HANDSHAKES: usize = 256;
/// Read and dropped of what a refused client still sends, in bytes.
const MAX_DROPPED: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn client(listener: &SocksListener, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port())).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    const REQUEST: &[u8] = &[5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 7, 0, 80];

    #[tokio::test]
    async fn a_new_client_takes_the_place_of_the_oldest_that_is_silent() {
        let mut listener = SocksListener::bind(0).await.unwrap();
        listener.max_handshakes = 4;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(client(&listener, &[5]).await);
            // All are there before the next comes.
            let accepting = tokio::time::timeout(Duration::from_millis(20), listener.accept(true));
            accepting.await.unwrap_err();
        }
        let _honest = client(&listener, REQUEST).await;
        let (_stream, destination) = listener.accept(true).await.unwrap();
        assert_eq!(destination.to_string(), "10.0.0.7:80");
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or_default(), 0, "the oldest is closed");
        assert_eq!(listener.handshakes.len(), 3, "the others may still speak");
        silent[3].write_all(&REQUEST[1..]).await.unwrap();
        listener.accept(true).await.unwrap();
    }

    #[tokio::test]
    async fn clients_that_come_in_a_burst_are_all_served() {
        let mut listener = SocksListener::bind(0).await.unwrap();
        listener.max_handshakes = 4;
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(client(&listener, REQUEST).await);
        }
        let mut served = Vec::new();
        for _ in 0..40 {
            served.push(listener.accept(true).await.unwrap());
            assert!(listener.handshakes.len() <= 5);
        }
    }

    /// Each is served although all before it are silent, and none of those is kept beyond the bound.
    #[tokio::test]
    async fn clients_that_come_and_say_nothing_cost_a_bounded_number_of_descriptors() {
        let mut listener = SocksListener::bind(0).await.unwrap();
        (listener.max_handshakes, listener.patience) = (8, Duration::from_millis(2));
        let mut silent = Vec::new();
        for _ in 0..10 {
            for _ in 0..20 {
                silent.push(client(&listener, &[]).await);
            }
            let _honest = client(&listener, REQUEST).await;
            listener.accept(true).await.unwrap();
            assert!(listener.begun.len() <= 8 && listener.handshakes.len() <= 9);
        }
    }
}
