//! The proxy's listener: its clients name their destination in a request (SOCKS or HTTP CONNECT), and are connections only
//! after that.
//!
//! On loopback only, whatever the port listens on: its clients reach everything that the instance reaches. A client has
//! [`HANDSHAKE_TIMEOUT`] for its handshake. When there are [`MAX_HANDSHAKES`] of them, a new one takes the place of the
//! oldest, as soon as that has had [`MIN_PATIENCE`]: clients that come in a burst wait for each other in the system's
//! queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep_until};

use super::accepted::Accepted;
use super::listener::{ListenError, Listener};
use super::memory::Ports;
use crate::process::{PeerOwner, descriptor_limit};
use crate::session::port::local::LocalStream;
use crate::session::port::proxy::{Handshake, Refusal, Request, Step};

/// Listens for SOCKS clients, and shakes hands with them.
#[derive(Debug)]
pub(crate) struct SocksListener {
    listener: Listener,
    /// Only this user's clients may come.
    is_guarded: bool,
    handshakes: JoinSet<Option<Accepted>>,
    /// The same with their beginnings, oldest first, without those that were aborted.
    begun: VecDeque<(Instant, AbortHandle)>,
    max_handshakes: usize,
    /// [`MIN_PATIENCE`], but in tests.
    patience: Duration,
    /// A client that takes the place of the oldest, if that is still silent once what has arrived has been read.
    newcomer: Option<LocalStream>,
}

impl SocksListener {
    /// Listens on 127.0.0.1 and, where the system has it, on ::1. Port 0 is any free one. If it `is_guarded`, only this
    /// user's clients and root's are accepted.
    ///
    /// # Errors
    /// As [`Listener::bind_loopback`].
    pub(crate) fn bind(ports: &Ports, port: u16, is_guarded: bool) -> Result<SocksListener, ListenError> {
        Ok(SocksListener::new(Listener::bind_loopback(ports, port)?, is_guarded))
    }

    /// Listens on a socket file, which only the user can open.
    ///
    /// # Errors
    /// As [`Listener::bind_file`].
    pub(crate) fn bind_file(path: &Path) -> Result<SocksListener, ListenError> {
        Ok(SocksListener::new(Listener::bind_file(&path.to_string_lossy())?, false))
    }

    fn new(listener: Listener, is_guarded: bool) -> SocksListener {
        // The connections that come of them need descriptors, too.
        let max_handshakes = MAX_HANDSHAKES.min(descriptor_limit() / 8).max(1);
        let (handshakes, begun) = (JoinSet::new(), VecDeque::new());
        SocksListener {
            listener,
            is_guarded,
            handshakes,
            begun,
            max_handshakes,
            patience: MIN_PATIENCE,
            newcomer: None,
        }
    }

    /// The port it listens on, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.listener.port()
    }

    /// The socket file it listens on, if it is one.
    pub(crate) fn socket(&self) -> Option<String> {
        self.listener.socket()
    }

    /// Returns the next client after its request. New ones are accepted only with `may_accept`. Cancel-safe.
    ///
    /// # Errors
    /// As the system's `accept`.
    pub(crate) async fn accept(&mut self, may_accept: bool) -> io::Result<Accepted> {
        loop {
            let room = self.room();
            tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next() => {
                    if let Some(newcomer) = self.newcomer.take() {
                        self.begin(newcomer);
                    }
                    if let Ok(Some(client)) = done {
                        return Ok(client);
                    }
                }
                () = what_has_arrived_is_read(), if self.newcomer.is_some() => self.replace_the_oldest(),
                accepted = poll_fn(|cx| self.listener.poll_accept(cx)), if may_accept && room == Room::Now && self.newcomer.is_none() => {
                    let stream = accepted?;
                    match self.is_guarded.then(|| stream.owner()) {
                        Some(PeerOwner::Other(stranger)) => {
                            stream.reset();
                            return Ok(Accepted::Stranger(stranger));
                        }
                        // It has not waited for its reply.
                        Some(PeerOwner::Gone) => {}
                        _ if self.handshakes.len() < self.max_handshakes => self.begin(stream),
                        _ => self.newcomer = Some(stream),
                    }
                }
                () = room.wait(), if may_accept && self.newcomer.is_none() => {}
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

    fn replace_the_oldest(&mut self) {
        if let Some((_, oldest)) = self.begun.pop_front() {
            oldest.abort();
        }
        if let Some(newcomer) = self.newcomer.take() {
            self.begin(newcomer);
        }
    }

    fn begin(&mut self, stream: LocalStream) {
        self.begun.push_back((Instant::now(), self.handshakes.spawn(handshake(stream))));
    }
}

/// When there is room for another handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Now,
    /// The oldest gives way then.
    At(Instant),
    /// When one has ended.
    Later,
}

impl Room {
    /// Ends when there may be room.
    async fn wait(self) {
        match self {
            Room::At(at) => sleep_until(at).await,
            Room::Now | Room::Later => std::future::pending().await,
        }
    }
}

/// Ends when all handshakes have read what had arrived, however long this thread has been busy: the runtime looks for it, and
/// then runs the tasks that it concerns.
async fn what_has_arrived_is_read() {
    yield_now().await;
    yield_now().await;
}

/// Returns `None` if the handshake did not complete.
async fn handshake(stream: LocalStream) -> Option<Accepted> {
    match stream {
        LocalStream::Tcp(stream) => shake_hands(stream, LocalStream::Tcp).await,
        #[cfg(unix)]
        LocalStream::Unix(stream) => shake_hands(stream, LocalStream::Unix).await,
        LocalStream::Memory(stream) => shake_hands(stream, LocalStream::Memory).await,
    }
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    wrap: impl FnOnce(S) -> LocalStream,
) -> Option<Accepted> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, request(&mut stream)).await {
        Ok(Ok(Ok(request))) => Some(Accepted::Socks(request, wrap(stream))),
        Ok(Ok(Err(refusal))) => Some(Accepted::Refused(refusal)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a proxy client has gone");
            None
        }
        Err(_) => {
            tracing::info!("a proxy client did not name its destination in time");
            None
        }
    }
}

async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Result<Request, Refusal>> {
    let mut handshake = Handshake::default();
    let mut step = handshake.start();
    loop {
        step = match step {
            Step::Read(count) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).await?;
                handshake.handle(&bytes)
            }
            Step::ReadSome(most) => {
                let mut bytes = BytesMut::with_capacity(most);
                if stream.read_buf(&mut (&mut bytes).limit(most)).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                handshake.handle(&bytes)
            }
            Step::Send(bytes) => {
                stream.write_all(bytes).await?;
                handshake.handle(&[])
            }
            Step::Connect(request) => return Ok(Ok(request)),
            Step::Refuse(answer, refusal) => {
                tracing::info!(%refusal, "a proxy client was refused");
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // Closing with unread input would reset the connection and destroy the answer.
                let (mut rest, mut sink) = (stream.take(MAX_DROPPED), tokio::io::sink());
                let dropping = tokio::io::copy(&mut rest, &mut sink);
                let _ = tokio::time::timeout(REFUSED_LINGER, dropping).await;
                return Ok(Err(refusal));
            }
        }
    }
}

/// A client on the same machine needs milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a client always gets before a newer one may take its place.
const MIN_PATIENCE: Duration = Duration::from_millis(250);
/// Clients that shake hands at a time.
const MAX_HANDSHAKES: usize = 256;
/// Time that input from a refused client is read and dropped.
const REFUSED_LINGER: Duration = Duration::from_secs(1);
/// Read and dropped of what a refused client still sends, in bytes.
const MAX_DROPPED: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;
    use crate::destination::Destination;

    /// Wine takes up to a second to look up the owner of a connection, and then does not report it: for each connection of
    /// the machine it reads the descriptors of all its processes.
    fn is_guarded() -> bool {
        std::env::var_os("WINEPREFIX").is_none()
    }

    async fn connect(listener: &mut SocksListener) -> Destination {
        match listener.accept(true).await.unwrap() {
            Accepted::Socks(request, _) => request.destination,
            other => panic!("{other:?}"),
        }
    }

    async fn client(listener: &SocksListener, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port().unwrap())).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    const REQUEST: &[u8] = &[5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 7, 0, 80];

    #[tokio::test]
    async fn a_new_client_takes_the_place_of_the_oldest_that_is_silent() {
        let mut listener = SocksListener::bind(&Ports::System, 0, is_guarded()).unwrap();
        listener.max_handshakes = 4;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(client(&listener, &[5]).await);
            // All are there before the next comes.
            let accepting = tokio::time::timeout(Duration::from_millis(20), listener.accept(true));
            accepting.await.unwrap_err();
        }
        let _honest = client(&listener, REQUEST).await;
        assert_eq!(connect(&mut listener).await.to_string(), "10.0.0.7:80");
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or_default(), 0, "the oldest is closed");
        assert_eq!(listener.handshakes.len(), 3, "the others may still speak");
        silent[3].write_all(&REQUEST[1..]).await.unwrap();
        connect(&mut listener).await;
    }

    #[tokio::test]
    async fn clients_that_come_in_a_burst_are_all_served() {
        let mut listener = SocksListener::bind(&Ports::System, 0, is_guarded()).unwrap();
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

    /// A machine that is busy for longer than a client's time has not shown that the client is silent.
    #[tokio::test]
    async fn a_request_that_has_arrived_is_read_before_its_client_gives_way() {
        let mut listener = SocksListener::bind(&Ports::System, 0, is_guarded()).unwrap();
        (listener.max_handshakes, listener.patience) = (1, Duration::from_millis(10));
        let mut first = client(&listener, &[]).await;
        tokio::time::timeout(Duration::from_millis(20), listener.accept(true)).await.unwrap_err();
        first.write_all(REQUEST).await.unwrap();
        let mut second =
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port().unwrap())).unwrap();
        second.write_all(REQUEST).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        for _ in 0..2 {
            connect(&mut listener).await;
        }
        assert!(first.try_read(&mut [0; 2]).unwrap_or(2) > 0, "the first is closed");
    }

    /// Each is served although all before it are silent, and none of those is kept beyond the bound.
    #[tokio::test]
    async fn silent_clients_cost_a_bounded_number_of_descriptors() {
        let mut listener = SocksListener::bind(&Ports::System, 0, is_guarded()).unwrap();
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
