//! A request to a service without a session, for `doctor`: same names, proxies and trust as a websocket.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use url::Url;

use super::error::OpenError;
use super::network::Network;
use super::websocket;
use crate::aws;

/// A server's response to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The HTTP status; 101 has opened a websocket.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// Sends a `GET` (`http:` and `https:`), or asks for a websocket (`ws:` and `wss:`), and closes the connection.
///
/// # Errors
/// What stands in the way, or that there was no answer within `limit`.
pub(crate) async fn ask(network: &Network, url: &Url, limit: Duration) -> Result<Answer, OpenError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let answer = async {
        let proxy = network.proxy().for_url(url)?;
        let stream = websocket::reach(network, url, proxy.as_ref()).await?;
        let broken = |error: &dyn std::error::Error| {
            let mut reason = error.to_string();
            if let Some(source) = error.source() {
                reason += &format!(": {source}");
            }
            OpenError::Upgrade { host: host.clone(), reason }
        };
        let request = request(url).map_err(|error| broken(&error))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(aws::HEAD_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // An error of the connection shows in the answer, too.
        let driver = async {
            let _ = connection.await;
            std::future::pending().await
        };
        let response = tokio::select! {
            response = sender.send_request(request) => response.map_err(|error| broken(&error))?,
            never = driver => never,
        };
        Ok(Answer { status: response.status(), headers: response.headers().clone() })
    };
    let timed_out = |_| Err(OpenError::TimedOut { host: host.clone(), timeout: limit });
    tokio::time::timeout(limit, answer).await.unwrap_or_else(timed_out)
}

fn request(url: &Url) -> Result<Request<String>, http::Error> {
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::get(path).header(header::HOST, host);
    if matches!(url.scheme(), "ws" | "wss") {
        request = request
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(
                header::SEC_WEBSOCKET_KEY,
                tokio_tungstenite::tungstenite::handshake::client::generate_key(),
            );
    }
    request.body(String::new())
}
