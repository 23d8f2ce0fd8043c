//! Opening one websocket: address, TCP, TLS, upgrade.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http};
use url::Url;

use crate::protocol::message::MAX_FRAME;

/// An open websocket.
pub(super) type Socket = WebSocketStream<Stream>;

/// Why a websocket could not be opened. No text holds the URL's query or the token.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The host asked for.
        host: String,
        /// The resolver's words.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Host and port.
        host: String,
        /// The system's words.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("cannot open TLS to {host}: {source}")]
    Tls {
        /// The host's name.
        host: String,
        /// The TLS library's words.
        source: io::Error,
    },
    /// One attempt took too long.
    #[error("{host} did not open a websocket within {timeout:?}")]
    TimedOut {
        /// The host's name.
        host: String,
        /// The time given.
        timeout: Duration,
    },
    /// The server answered the upgrade with something else.
    #[error("{host} refused the connection with status {status}")]
    Status {
        /// The host's name.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The upgrade failed otherwise.
    #[error("{host} did not open a websocket: {reason}")]
    Upgrade {
        /// The host's name.
        host: String,
        /// The websocket library's words.
        reason: String,
    },
}

impl OpenError {
    /// Whether trying again soon cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            OpenError::Status { status, .. } => (400..500).contains(status) && !matches!(status, 408 | 429),
            // What rustls says about certificates comes as invalid data; a connection cut in the middle does not.
            OpenError::Tls { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            _ => false,
        }
    }
}

/// Opens the websocket that `url` names, within [`ATTEMPT_TIMEOUT`].
pub(super) async fn open(url: &Url, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Socket, OpenError> {
    tokio::time::timeout(ATTEMPT_TIMEOUT, dial(url, tls)).await.unwrap_or_else(|_| {
        let host = url.host_str().unwrap_or_default().to_owned();
        Err(OpenError::TimedOut { host, timeout: ATTEMPT_TIMEOUT })
    })
}

async fn dial(url: &Url, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Socket, OpenError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let upgrade_error = |reason: String| OpenError::Upgrade { host: host.clone(), reason };
    let tcp = connect(url).await?;
    let stream = match tls {
        Some(config) if url.scheme() == "wss" => {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = rustls::pki_types::ServerName::try_from(bare)
                .map_err(|_| upgrade_error("not a name a certificate can carry".into()))?;
            let stream = tokio_rustls::TlsConnector::from(config)
                .connect(name, tcp)
                .await
                .map_err(|source| OpenError::Tls { host: host.clone(), source })?;
            Stream::Tls(Box::new(stream))
        }
        None if url.scheme() == "ws" => Stream::Plain(tcp),
        _ => return Err(upgrade_error("no TLS configuration".into())),
    };
    let request = url.as_str().into_client_request().map_err(|error| upgrade_error(error.to_string()))?;
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(refused(host, response.status())),
        Err(error) => Err(upgrade_error(error.to_string())),
    }
}

fn refused(host: String, status: http::StatusCode) -> OpenError {
    OpenError::Status { host, status: status.as_u16() }
}

async fn connect(url: &Url) -> Result<TcpStream, OpenError> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|source| OpenError::Resolve { host: host.clone(), source })?
        .collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        let attempt = TcpStream::connect(address);
        let outcome = if is_last {
            attempt.await
        } else {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, attempt).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} does not answer", address.ip())))
            })
        };
        match outcome {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|source| OpenError::Connect { host, source })?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(OpenError::Connect { host: format!("{host}:{port}"), source: last })
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// A plain stream (loopback only) or one with TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// One attempt; several fit into the time for opening.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// An address that does not answer is given so long before the next one is tried.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(5);
const READ_BUFFER: usize = 64 << 10;
/// Written out when so much has gathered, or when a burst ends; a flush for each message costs ten times the CPU.
const WRITE_BUFFER: usize = 32 << 10;
/// The library's default has no bound.
const MAX_WRITE_BUFFER: usize = MAX_FRAME + (256 << 10);
