//! Opening one websocket: TCP or a proxy's tunnel, TLS, upgrade.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use url::Url;

use super::error::OpenError;
use super::host;
use super::network::Network;
use super::proxy::Proxy;
use super::refusal;
use super::stream::{Hop, MaybeTls, Stream};
use super::tcp::{self, ConnectError};
use super::tls;
use crate::protocol::message::MAX_FRAME;

/// An open websocket.
pub(super) type Socket = WebSocketStream<Stream>;

/// One websocket to open.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    /// URL from [`Network::stream_url`].
    pub url: Url,
    /// The way there.
    pub network: Arc<Network>,
}

/// Opens a websocket within [`ATTEMPT_TIMEOUT`], and a little before `open_by`, so that its error is known by then.
/// `signature` resolves to the headers that sign the upgrade request; it is awaited alongside everything that comes before
/// that request, and dropped if that fails.
///
/// # Errors
/// [`OpenError`] says what stood in the way.
pub(super) async fn open(
    request: Dial,
    signature: impl Future<Output = HeaderMap>,
    open_by: Option<Instant>,
) -> Result<Socket, OpenError> {
    let timeout =
        open_by.map_or(ATTEMPT_TIMEOUT, |by| attempt_timeout(by.saturating_duration_since(Instant::now())));
    let proxy = match request.network.connector() {
        Some(_) => None,
        None => request.network.proxy().for_url(&request.url)?,
    };
    let attempt = attempt(&request, signature, proxy.as_ref());
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
        let mut host = host(&request.url);
        if let Some(proxy) = &proxy {
            host += &format!(" (through proxy {proxy})");
        }
        Err(OpenError::TimedOut { host, timeout })
    })
}

/// Time for one attempt when this much is left for all of them; rounded to tenths of a second for the message.
fn attempt_timeout(left: Duration) -> Duration {
    let tenths = left.saturating_sub(ATTEMPT_RESERVE).as_millis() / 100;
    Duration::from_millis(tenths as u64 * 100).clamp(MIN_ATTEMPT, ATTEMPT_TIMEOUT)
}

async fn attempt(
    Dial { url, network }: &Dial,
    signature: impl Future<Output = HeaderMap>,
    proxy: Option<&Proxy>,
) -> Result<Socket, OpenError> {
    let host = host(url);
    let signature = async { Ok(signature.await) };
    let (headers, stream) = tokio::try_join!(signature, reach(network, url, proxy))?;
    let upgrade_error =
        |error: tungstenite::Error| OpenError::Upgrade { host: host.clone(), reason: reason(&error) };
    let mut upgrade = url.as_str().into_client_request().map_err(upgrade_error)?;
    upgrade.headers_mut().extend(headers);
    let is_signed = upgrade.headers().contains_key(http::header::AUTHORIZATION);
    log_path(url, proxy, &stream, is_signed);
    match tokio_tungstenite::client_async_with_config(upgrade, stream, Some(config())).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(refused(host, &response)),
        Err(error) => Err(upgrade_error(error)),
    }
}

/// A stream to the host that `url` names, through the proxy if there is one, with TLS if the scheme asks for it.
pub(super) async fn reach(network: &Network, url: &Url, proxy: Option<&Proxy>) -> Result<Stream, OpenError> {
    let host = host(url);
    let port = host::port(url);
    let hop = match (network.connector(), proxy) {
        (Some(connector), _) => {
            let connected = connector.connect(&host, port).await;
            let failed = |error| ConnectError::Connect { host: host.clone(), port, error };
            Hop::Other(connected.map_err(failed)?)
        }
        (None, Some(proxy)) => Hop::Tcp(proxy.connect(|| network.tls(), &host, port).await?),
        (None, None) => Hop::Tcp(MaybeTls::Plain(tcp::connect(&host, port).await?)),
    };
    if !matches!(url.scheme(), "wss" | "https") {
        return Ok(MaybeTls::Plain(hop));
    }
    match tls::connect(network.tls()?, &host, hop).await {
        Ok(stream) => Ok(MaybeTls::Tls(Box::new(stream))),
        Err(error) => Err(OpenError::Tls { host, error }),
    }
}

/// Logs the path to the service, before the upgrade.
fn log_path(url: &Url, proxy: Option<&Proxy>, stream: &Stream, is_signed: bool) {
    let address = stream.tcp().and_then(|tcp| tcp.peer_addr().ok());
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    let proxy = proxy.map_or_else(|| "none".to_owned(), ToString::to_string);
    let tls = stream.tls_version();
    tracing::debug!(host = host(url), address, proxy, tls, is_signed, "connected, asking for a websocket");
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// Returns the reason of an error, without tungstenite's "IO error: " in front of the system's.
pub(super) fn reason(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn refused(host: String, response: &Response<Option<Vec<u8>>>) -> OpenError {
    OpenError::Status { host, status: response.status().as_u16(), reason: refusal::reason(response) }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// One attempt; several fit into the time for opening.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// Part of the opening time that is left when an attempt is given up.
const ATTEMPT_RESERVE: Duration = Duration::from_millis(50);
/// When there is no time left at all, the caller gives the attempt up first.
const MIN_ATTEMPT: Duration = Duration::from_millis(100);
const READ_BUFFER: usize = 16 << 10;
/// Written out when this much has gathered, or when a burst ends; a flush for each message costs ten times the CPU.
const WRITE_BUFFER: usize = 32 << 10;
/// The library's default has no bound.
const MAX_WRITE_BUFFER: usize = MAX_FRAME + (256 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_before_the_time_for_all() {
        for (left, timeout) in
            [(999, 900), (1000, 900), (4_960, 4_900), (20_040, 19_900), (60_000, 20_000), (3, 100)]
        {
            assert_eq!(
                attempt_timeout(Duration::from_millis(left)),
                Duration::from_millis(timeout),
                "{left}"
            );
        }
    }
}
