//! HTTP for the SDK through a way that its own client does not know: a SOCKS proxy.
//!
//! [`Route`] is what the websocket uses, so proxy rules, resolver and trust are the same. Each request has a connection to
//! itself: a session makes few, minutes apart.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::{HeaderValue, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

/// A connection to an `https` server, TLS included.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

type Failure = Box<dyn Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn Connection>, Failure>> + Send>>;

/// Connects to the host of an `https` URL.
#[derive(Clone)]
pub struct Route(Arc<dyn Fn(Url) -> Connecting + Send + Sync>);

impl Route {
    pub(crate) fn new<F>(connect: impl Fn(Url) -> F + Send + Sync + 'static) -> Route
    where
        F: Future<Output = Result<Box<dyn Connection>, Failure>> + Send + 'static,
    {
        Route(Arc::new(move |url| Box::pin(connect(url))))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Route")
    }
}

/// Sends `https` requests by a route, others by the SDK's own client.
#[derive(Debug)]
pub(super) struct RoutedConnector {
    pub route: Route,
    pub plain: SharedHttpConnector,
    pub connect_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if !request.uri().starts_with("https:") {
            return self.plain.call(request);
        }
        let (route, connect_timeout, read_timeout) =
            (self.route.clone(), self.connect_timeout, self.read_timeout);
        HttpConnectorFuture::new(async move {
            let url = Url::parse(request.uri()).map_err(|error| ConnectorError::user(error.into()))?;
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let connection = within(connect_timeout, (route.0)(url.clone())).await?;
            within(read_timeout, exchange(connection, in_origin_form(request, &url)?)).await
        })
    }
}

async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, ConnectorError> {
    let done = match limit {
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .map_err(|_| ConnectorError::timeout(format!("no answer within {limit:?}").into()))?,
        None => work.await,
    };
    done.map_err(ConnectorError::io)
}

/// Sends one request and returns the response, whose body is read from the connection later.
async fn exchange(
    connection: Box<dyn Connection>,
    request: Request<SdkBody>,
) -> Result<HttpResponse, Failure> {
    let (mut sender, driver) =
        http1::Builder::new().max_buf_size(HEAD_BUFFER).handshake(TokioIo::new(connection)).await?;
    // Ends with the response's body. An error of the connection shows there, too.
    tokio::spawn(driver);
    let response = sender.send_request(request).await?;
    Ok(HttpResponse::try_from(response.map(SdkBody::from_body_1_x))?)
}

/// The request as a server gets it: a path, and the host in its header.
fn in_origin_form(request: Request<SdkBody>, url: &Url) -> Result<Request<SdkBody>, ConnectorError> {
    let invalid = |error: http::Error| ConnectorError::user(error.into());
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let host = HeaderValue::try_from(host).map_err(|error| invalid(error.into()))?;
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|error: http::uri::InvalidUri| invalid(error.into()))?;
    parts.headers.entry(header::HOST).or_insert(host);
    Ok(Request::from_parts(parts, body))
}

/// Bytes that an HTTP connection reads ahead. A peer that repeats interim responses (`HTTP/1.1 100`) keeps the runtime busy for
/// as long as reading 128 times this takes; hyper's own maximum would be 25 times as much.
pub(crate) const HEAD_BUFFER: usize = 16 << 10;
