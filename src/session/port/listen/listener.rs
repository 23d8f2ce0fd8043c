//! Local listeners: TCP, UNIX sockets, ports of the process alone.
//!
//! Listening says nothing about the destination. The agent looks its name up once, when the session begins, and dials
//! the addresses it found for every later connection, one after the other inside its accept loop: a record that
//! changes needs a new session, and a dial that hangs keeps the session's later connections waiting.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
#[cfg(unix)]
use std::path::Path;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream};

use super::bind::{advice, bind, error_text, is_in_use};
use super::memory::{PortSpace, Ports, StreamListener};
#[cfg(unix)]
use super::unix;
use crate::blocking;
#[cfg(feature = "cli")]
use crate::output::official;
use crate::output::sentences;
use crate::process;
use crate::protocol::PortProperties;
use crate::session::port::local::LocalStream;

/// The local listeners of one session: TCP on one or more addresses with the same port, a socket file, or a
/// port of the process.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp {
        sockets: Vec<TcpListener>,
        port: u16,
        /// An address of the same name that another process listens on.
        taken: Option<SocketAddr>,
    },
    #[cfg(unix)]
    Unix {
        socket: tokio::net::UnixListener,
        _file: unix::SocketFile,
        path: String,
    },
    Within(Box<dyn StreamListener>),
}

impl Listener {
    /// Listens as the session's properties say: on `localhost` (both address families) or `host`, on the given port or
    /// any.
    ///
    /// # Errors
    /// The official plugin's words, `listen tcp 127.0.0.1:<port>: bind: address already in use`.
    pub(crate) async fn bind(
        ports: &Ports,
        properties: &PortProperties,
        host: Option<&str>,
    ) -> Result<Listener, ListenError> {
        if properties.local_connection_type == "unix" {
            return Listener::bind_file(&properties.local_unix_socket);
        }
        let port = match properties.local_port_number.as_str() {
            "" => 0,
            text => text.parse::<u16>().map_err(|_| ListenError::Port(text.to_owned()))?,
        };
        Listener::bind_port(ports, port, host).await
    }

    /// Listens on a TCP port, on `localhost` (both address families) or `host`. Port 0 is any free one.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub(crate) async fn bind_port(
        ports: &Ports,
        port: u16,
        host: Option<&str>,
    ) -> Result<Listener, ListenError> {
        if let Ports::Within(ports) = ports {
            return Listener::bind_within(&**ports, port);
        }
        let looked_up = blocking::addresses(host.unwrap_or("localhost"), port).await;
        let addresses = addresses(host, port, looked_up)?;
        if addresses.is_empty() {
            let name = host.unwrap_or_default().to_owned();
            return Err(ListenError::Resolve(name, "no address".to_owned()));
        }
        Listener::bind_all(&addresses)
    }

    /// Listens on 127.0.0.1 and, where the system has it, on ::1. Port 0 is any free one.
    ///
    /// # Errors
    /// As [`Listener::bind`], and if another process has the port on one of them: it would get a part of the clients.
    pub(crate) fn bind_loopback(ports: &Ports, port: u16) -> Result<Listener, ListenError> {
        if let Ports::Within(ports) = ports {
            return Listener::bind_within(&**ports, port);
        }
        let addresses = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        let listener = Listener::bind_all(&addresses)?;
        match listener.taken() {
            Some(address) => Err(ListenError::bind(address, &io::ErrorKind::AddrInUse.into())),
            None => Ok(listener),
        }
    }

    fn bind_within(ports: &dyn PortSpace, port: u16) -> Result<Listener, ListenError> {
        let listener = ports.bind(port);
        let address = (Ipv4Addr::LOCALHOST, port).into();
        listener.map(Listener::Within).map_err(|error| ListenError::bind(address, &error))
    }

    /// Listens on the first address, and on the others where that is possible. A free port is one that is free on all.
    fn bind_all(addresses: &[SocketAddr]) -> Result<Listener, ListenError> {
        let mut listener = Listener::bind_once(addresses)?;
        for _ in 0..FREE_PORT_ATTEMPTS {
            if addresses[0].port() != 0 || listener.taken().is_none() {
                break;
            }
            // The next free port is another as long as this one is held.
            let next = Listener::bind_once(addresses)?;
            listener = next;
        }
        Ok(listener)
    }

    fn bind_once(addresses: &[SocketAddr]) -> Result<Listener, ListenError> {
        let first = addresses[0];
        let socket = bind(first).map_err(|error| ListenError::bind(first, &error))?;
        let port = socket.local_addr().map_err(|error| ListenError::bind(first, &error))?.port();
        let (mut sockets, mut taken) = (vec![socket], None);
        for address in &addresses[1..] {
            let address = SocketAddr::new(address.ip(), port);
            match bind(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    tracing::info!(%address, %error, "not listening there too");
                    taken = taken.or((error.kind() == io::ErrorKind::AddrInUse).then_some(address));
                }
            }
        }
        Ok(Listener::Tcp { sockets, port, taken })
    }

    /// Returns whether only this machine reaches it, by TCP.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Listener::Tcp { sockets, .. } => sockets
                .iter()
                .all(|socket| socket.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback())),
            #[cfg(unix)]
            Listener::Unix { .. } => false,
            Listener::Within(_) => false,
        }
    }

    /// An address of the same name that another process listens on, if there is one: it gets a part of the clients.
    pub(crate) fn taken(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp { taken, .. } => *taken,
            #[cfg(unix)]
            Listener::Unix { .. } => None,
            Listener::Within(_) => None,
        }
    }

    /// The TCP port, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Listener::Tcp { port, .. } => Some(*port),
            #[cfg(unix)]
            Listener::Unix { .. } => None,
            Listener::Within(listener) => Some(listener.port()),
        }
    }

    /// The first TCP address, if there is one.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp { sockets, .. } => sockets.first()?.local_addr().ok(),
            #[cfg(unix)]
            Listener::Unix { .. } => None,
            Listener::Within(_) => None,
        }
    }

    /// The socket file, if it is one.
    pub(crate) fn socket(&self) -> Option<String> {
        match self {
            Listener::Tcp { .. } | Listener::Within(_) => None,
            #[cfg(unix)]
            Listener::Unix { path, .. } => Some(path.clone()),
        }
    }

    /// The address that clients use, or the socket file, for people.
    pub(crate) fn address(&self) -> String {
        match self {
            Listener::Tcp { sockets, port, .. } => match sockets.first().map(TcpListener::local_addr) {
                Some(Ok(address)) if address.ip().is_unspecified() => format!("*:{port}"),
                Some(Ok(address)) => address.to_string(),
                _ => format!("localhost:{port}"),
            },
            #[cfg(unix)]
            Listener::Unix { path, .. } => path.clone(),
            Listener::Within(listener) => format!("port {} of this program", listener.port()),
        }
    }

    /// The line that names the local address.
    #[cfg(feature = "cli")]
    pub(crate) fn notice(&self, session_id: &str) -> String {
        match self {
            Listener::Tcp { port, .. } => official::port_opened(*port, session_id),
            #[cfg(unix)]
            Listener::Unix { path, .. } => official::unix_socket_opened(path, session_id),
            Listener::Within(listener) => official::port_opened(listener.port(), session_id),
        }
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// As the system's `accept`: out of descriptors, or a connection that was gone before it was taken.
    pub(crate) async fn accept(&self) -> io::Result<LocalStream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<LocalStream>> {
        match self {
            Listener::Tcp { sockets, .. } => poll_accept_any(sockets, cx).map_ok(LocalStream::Tcp),
            #[cfg(unix)]
            Listener::Unix { socket, .. } => {
                socket.poll_accept(cx).map_ok(|(stream, _)| LocalStream::Unix(stream))
            }
            Listener::Within(listener) => listener.poll_accept(cx).map_ok(LocalStream::Memory),
        }
    }

    /// Listens on a socket file that only the user can open.
    ///
    /// # Errors
    /// As [`Listener::bind`]; a path that is empty or contains NUL would be an abstract socket, open to every user.
    #[cfg(unix)]
    pub(crate) fn bind_file(path: &str) -> Result<Listener, ListenError> {
        if path.is_empty() || path.contains('\0') {
            return Err(ListenError::Path(crate::printable::beginning(path)));
        }
        let (socket, file) = unix::bind(Path::new(path))
            .map_err(|error| ListenError::Bind(format!("unix {path}"), error_text(&error)))?;
        Ok(Listener::Unix { socket, _file: file, path: path.to_owned() })
    }

    #[cfg(not(unix))]
    pub(crate) fn bind_file(path: &str) -> Result<Listener, ListenError> {
        Err(ListenError::Bind(format!("unix {path}"), NO_UNIX_SOCKETS.into()))
    }
}

/// The addresses to listen on, by what the name has given. `localhost` is known without (minimal containers have an
/// empty hosts file).
fn addresses(
    host: Option<&str>,
    port: u16,
    looked_up: io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, ListenError> {
    let mut addresses: Vec<SocketAddr> = match (looked_up, host) {
        (Ok(found), _) => found,
        (Err(_), None) => Vec::new(),
        (Err(error), Some(host)) => {
            return Err(ListenError::Resolve(host.to_owned(), error.to_string()));
        }
    };
    if addresses.is_empty() && host.is_none() {
        addresses = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    }
    // The official plugin prefers IPv4, and clients that know one address use 127.0.0.1.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    Ok(addresses)
}

/// Windows knows them, but neither its runtime libraries nor its clients do.
#[cfg(not(unix))]
const NO_UNIX_SOCKETS: &str = "UNIX sockets are not supported on Windows, use a localPortNumber";

/// Free ports that are tried until one is free on all addresses.
const FREE_PORT_ATTEMPTS: usize = 8;

/// Reason that there is no listener, in the official plugin's form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ListenError {
    #[error("listen {0}: bind: {1}")]
    Bind(String, String),
    #[cfg(unix)]
    #[error("listen unix {0:?}: the path is empty or contains NUL")]
    Path(String),
    #[error("listen tcp: address {0}: invalid port")]
    Port(String),
    #[error("listen tcp: lookup {0}: {1}")]
    Resolve(String, String),
}

impl ListenError {
    fn bind(address: SocketAddr, error: &io::Error) -> ListenError {
        ListenError::Bind(format!("tcp {address}"), error_text(error))
    }

    /// Returns whether another socket has the address.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, ListenError::Bind(_, text) if is_in_use(text))
    }

    /// A line about the process that has the port, where the system reports it.
    pub(crate) fn owner(&self) -> Option<String> {
        let ListenError::Bind(address, _) = self else { return None };
        let port = address.strip_prefix("tcp ")?.rsplit_once(':')?.1.parse().ok()?;
        if !self.is_in_use() {
            return None;
        }
        Some(sentences::port_taken(port, &process::port_owner(port)?))
    }

    /// A hint for the user, which is not part of the text that callers parse.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            ListenError::Bind(_, text) => advice(text),
            _ => None,
        }
    }
}

/// The next connection of several sockets.
pub(crate) fn poll_accept_any(sockets: &[TcpListener], cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
    for socket in sockets {
        if let Poll::Ready(accepted) = socket.poll_accept(cx) {
            return Poll::Ready(accepted.map(|(stream, _)| {
                // Some systems refuse that for a client that has already left; the connection will notice that itself.
                let _ = stream.set_nodelay(true);
                stream
            }));
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::port::listen::MemoryPorts;

    fn texts(host: Option<&str>, found: io::Result<&[&str]>) -> Result<Vec<String>, ListenError> {
        let found = found.map(|found| found.iter().map(|text| text.parse().unwrap()).collect());
        addresses(host, 80, found).map(|addresses| addresses.iter().map(ToString::to_string).collect())
    }

    #[cfg(windows)]
    #[test]
    fn socket_files_are_refused_on_windows() {
        let error = Listener::bind_file(r"C:\Users\a\db.sock").unwrap_err().to_string();
        assert!(error.contains("use a localPortNumber"), "{error}");
    }

    #[test]
    fn localhost_is_known_where_the_hosts_file_is_empty() {
        let both = ["127.0.0.1:80", "[::1]:80"];
        assert_eq!(texts(None, Err(io::ErrorKind::NotFound.into())).unwrap(), both);
        assert_eq!(texts(None, Ok(&[])).unwrap(), both);
        assert_eq!(texts(None, Ok(&["127.0.0.1:80"])).unwrap(), ["127.0.0.1:80"], "as the hosts file has it");
    }

    #[tokio::test]
    async fn a_port_of_the_process_is_listened_on_like_those_of_the_machine() {
        let ports = MemoryPorts::default();
        let within = Ports::Within(Arc::new(ports.clone()));
        let listener = Listener::bind_port(&within, 0, None).await.unwrap();
        let port = listener.port().unwrap();
        let error = Listener::bind_loopback(&within, port).unwrap_err().to_string();
        assert_eq!(error, format!("listen tcp 127.0.0.1:{port}: bind: address already in use"));
        let client = ports.connect(port).unwrap();
        let stream = listener.accept().await.unwrap();
        stream.shutdown().unwrap();
        client.hung_up().await;
    }

    /// It would get the clients that try that address first.
    #[tokio::test]
    async fn another_process_on_the_other_loopback_address_is_noticed() {
        let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
        let taken = other.local_addr().unwrap();
        let addresses = [(Ipv4Addr::LOCALHOST, taken.port()).into(), taken];
        assert_eq!(Listener::bind_all(&addresses).unwrap().taken(), Some(taken));
        let error = Listener::bind_loopback(&Ports::System, taken.port()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen tcp [::1]:{}: bind: address already in use", taken.port())
        );
        assert_eq!(
            Listener::bind_loopback(&Ports::System, 0).unwrap().taken(),
            None,
            "a free port is free on both"
        );
    }

    #[test]
    fn each_address_once_and_ipv4_first() {
        let found = ["[::1]:80", "127.0.0.1:80", "127.0.0.1:80"];
        assert_eq!(texts(None, Ok(&found)).unwrap(), ["127.0.0.1:80", "[::1]:80"]);
        let error = texts(Some("nowhere"), Err(io::Error::other("unknown"))).unwrap_err();
        assert_eq!(error.to_string(), "listen tcp: lookup nowhere: unknown");
        assert_eq!(texts(Some("nowhere"), Ok(&[])).unwrap(), [""; 0]);
    }
}
