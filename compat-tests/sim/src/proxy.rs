//! A forward proxy that can be difficult: CONNECT and SOCKS5, with TLS, a password, or a refusal.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::background::Background;
use crate::head::read_head;
use crate::tls::certificates;

/// Behaviour of a proxy. The default opens every tunnel to the host it is asked for.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// Take TLS connections, with a certificate of an own authority for `localhost` and `127.0.0.1`.
    pub tls: bool,
    /// User and password to ask for: basic authentication, or SOCKS5's.
    pub auth: Option<(String, String)>,
    /// Answer every request with this status line, such as `503 Service Unavailable`.
    pub refuse: Option<String>,
    /// Destination of every tunnel, whatever host is requested: the proxy resolves names itself.
    pub to: Option<SocketAddr>,
}

/// One request for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRequest {
    /// `host:port` as asked for.
    pub to: String,
    /// True if it was opened.
    pub opened: bool,
}

/// A running proxy. Dropping it ends its connections.
pub struct Proxy {
    background: Background,
    shared: Arc<Shared>,
    ca_pem: Option<String>,
}

struct Shared {
    options: ProxyOptions,
    requests: Mutex<Vec<TunnelRequest>>,
    /// Tunnels with a lower number carry nothing any more.
    silent_below: watch::Sender<usize>,
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port or no certificate is available.
    pub fn start(options: ProxyOptions) -> anyhow::Result<Proxy> {
        let (ca_pem, acceptor) =
            if options.tls { Some(certificates(&["localhost", "127.0.0.1"])?) } else { None }.unzip();
        let shared =
            Arc::new(Shared { options, requests: Mutex::default(), silent_below: watch::Sender::new(0) });
        let state = Arc::clone(&shared);
        let background =
            Background::start("ssm-sim-proxy", move |listener| serve(listener, acceptor, state))?;
        Ok(Proxy { background, shared, ca_pem })
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.background.port()
    }

    /// The certificate authority in PEM form, when started with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The tunnels asked for so far.
    #[must_use]
    pub fn requests(&self) -> Vec<TunnelRequest> {
        self.shared.requests().clone()
    }

    /// Leaves the tunnels of now half open: their connections stay, and nothing comes through any more.
    pub fn silence(&self) {
        self.shared.silent_below.send_replace(self.requests().len());
    }
}

impl Shared {
    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<TunnelRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and gives its number.
    fn note(&self, to: &str, opened: bool) -> usize {
        let mut requests = self.requests();
        requests.push(TunnelRequest { to: to.to_owned(), opened });
        requests.len() - 1
    }

    async fn dial(&self, to: &str) -> std::io::Result<TcpStream> {
        let server = match self.options.to {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect(to).await?,
        };
        server.set_nodelay(true)?;
        Ok(server)
    }

    async fn carry<S>(&self, number: usize, mut client: S, mut server: TcpStream) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::select! {
            outcome = copy_bidirectional(&mut client, &mut server) => outcome.map(drop),
            () = self.silenced(number) => std::future::pending().await,
        }
    }

    async fn silenced(&self, number: usize) {
        let _ = self.silent_below.subscribe().wait_for(|below| *below > number).await;
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let outcome = match acceptor {
                Some(acceptor) => match acceptor.accept(tcp).await {
                    Ok(stream) => connect(stream, &shared).await,
                    Err(error) => Err(error),
                },
                None => {
                    let mut first = [0];
                    match tcp.peek(&mut first).await {
                        Ok(_) if first[0] == SOCKS5 => socks5(tcp, &shared).await,
                        Ok(_) => connect(tcp, &shared).await,
                        Err(error) => Err(error),
                    }
                }
            };
            if let Err(error) = outcome {
                debug!(%error, "connection through the proxy failed");
            }
        });
    }
}

async fn connect<S>(mut stream: S, shared: &Shared) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = read_head(&mut stream).await?;
    let mut words = head.split_whitespace();
    let (method, to) = (words.next(), words.next().unwrap_or_default());
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let expected =
        shared.options.auth.as_ref().map(|(user, password)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
    let refusal = if let Some(refuse) = &shared.options.refuse {
        Some(format!("{refuse}\r\n"))
    } else if expected.is_some() && authorization != expected {
        Some(
            "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"ssm-sim\"\r\n".to_owned(),
        )
    } else if method != Some("CONNECT") {
        Some("405 Method Not Allowed\r\n".to_owned())
    } else {
        None
    };
    if let Some(refusal) = refusal {
        shared.note(to, false);
        let answer = format!("HTTP/1.1 {refusal}Content-Length: 7\r\nConnection: close\r\n\r\nrefused");
        stream.write_all(answer.as_bytes()).await?;
        return stream.shutdown().await;
    }
    match shared.dial(to).await {
        Ok(server) => {
            let number = shared.note(to, true);
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            shared.carry(number, stream, server).await
        }
        Err(_) => {
            shared.note(to, false);
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await
        }
    }
}

/// RFC 1928 with the names and IPv4 addresses that clients here ask for, RFC 1929 for passwords.
async fn socks5(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let _version = stream.read_u8().await?;
    let methods = read_counted(&mut stream).await?;
    let method = if shared.options.auth.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        shared.note("", false);
        return stream.write_all(&[SOCKS5, 0xff]).await;
    }
    stream.write_all(&[SOCKS5, method]).await?;
    if let Some((user, password)) = &shared.options.auth {
        let _version = stream.read_u8().await?;
        let given = (read_counted(&mut stream).await?, read_counted(&mut stream).await?);
        let is_right = given.0 == user.as_bytes() && given.1 == password.as_bytes();
        stream.write_all(&[1, u8::from(!is_right)]).await?;
        if !is_right {
            shared.note("", false);
            return Ok(());
        }
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        _ => String::from_utf8_lossy(&read_counted(&mut stream).await?).into_owned(),
    };
    let to = format!("{host}:{}", stream.read_u16().await?);
    let server = if shared.options.refuse.is_some() { None } else { shared.dial(&to).await.ok() };
    let number = shared.note(&to, server.is_some());
    // 5: refused. The bound address that follows is not used.
    let status = if server.is_some() { 0 } else { 5 };
    stream.write_all(&[SOCKS5, status, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    match server {
        Some(server) => shared.carry(number, stream, server).await,
        None => Ok(()),
    }
}

async fn read_counted(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

const SOCKS5: u8 = 5;
