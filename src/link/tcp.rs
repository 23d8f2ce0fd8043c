//! TCP connections: a name's addresses are tried side by side.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::host;
use crate::blocking;

/// Reason that there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// The host asked for.
        host: String,
        /// The resolver's error.
        error: io::Error,
    },
    /// No connection was accepted there.
    #[error("cannot connect to {host}:{port}: {error}")]
    Connect {
        /// The host asked for.
        host: String,
        /// The TCP port.
        port: u16,
        /// The system's error for the last address that failed.
        error: io::Error,
    },
}

/// Connects to a host, a name or an address with or without brackets. An address that does not answer within
/// [`NEXT_ADDRESS_AFTER`] is joined by the next one, and the first to answer is taken (RFC 8305). The socket sends at
/// once, and notices a path that is dead.
///
/// # Errors
/// When no address answers. Sets no time limit.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let bare = host::without_brackets(host);
    let mut addresses = blocking::addresses(bare, port)
        .await
        .map_err(|error| ConnectError::Resolve { host: host.to_owned(), error })?;
    let failed = |error| ConnectError::Connect { host: host.to_owned(), port, error };
    addresses.truncate(MAX_ADDRESSES);
    let stream = race(interleave(addresses)).await.map_err(failed)?;
    prepare(&stream).map_err(failed)?;
    Ok(stream)
}

/// The first address that answers.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() || next_at <= Instant::now() {
            if let Some(address) = waiting.next() {
                attempts.push(TcpStream::connect(address));
            } else if attempts.is_empty() {
                return Err(last);
            }
            next_at = Instant::now() + NEXT_ADDRESS_AFTER;
        }
        tokio::select! {
            outcome = attempts.next() => match outcome {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last = error;
                    next_at = Instant::now();
                }
                None => {}
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
        }
    }
}

/// The families in turn, beginning with the resolver's first (RFC 8305 section 4): a broken family costs one delay.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut ordered: Vec<_> =
        preferred.into_iter().flat_map(|address| [Some(address), other.next()]).flatten().collect();
    ordered.extend(other);
    ordered
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    // Both only help to notice a dead path sooner; the websocket's pings do so in the end.
    if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "no TCP keepalive");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket.set_tcp_user_timeout(Some(USER_TIMEOUT)) {
        tracing::debug!(%error, "no TCP user timeout");
    }
    Ok(())
}

/// The "connection attempt delay" that RFC 8305 section 5 recommends.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// AWS names have at most a handful.
const MAX_ADDRESSES: usize = 16;
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time that sent bytes may stay unacknowledged by the peer's system. Twice the usual time between websocket
/// pings: a slow network keeps its connection, and a dead one is noticed even when pongs are not read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(mixed), expected);
        let old_first = addresses(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(interleave(old_first.clone()), old_first);
        assert_eq!(interleave(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn a_refused_address_is_followed_by_the_next_at_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Bound, so that no other process gets the port, and not listening.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let refusing = closed.local_addr().unwrap();
        let stream = race(vec![refusing, refusing, listener.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let error = race(vec![refusing, refusing]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A listener whose queue is full leaves a SYN unanswered, as a black hole does.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_silent_address_is_overtaken() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let silent = socket.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(silent).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answering = listener.local_addr().unwrap();
        let begin = Instant::now();
        let stream = race(vec![silent, answering]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
        assert!(begin.elapsed() >= NEXT_ADDRESS_AFTER);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_notice_a_dead_path() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = connect("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
