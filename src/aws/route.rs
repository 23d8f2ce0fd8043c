//! HTTP for the SDK by the way of the websocket: the same proxy rules, resolver and trust, read once for both.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::{Request, Uri};
use hyper_util::client::legacy::connect::{self, CaptureConnection, Connected, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;
use url::Url;

use super::body_limit::limited;

/// A connection to a server, with TLS if its URL is an `https` one.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

type Failure = Box<dyn Error + Send + Sync>;
type Connecting<C> = Pin<Box<dyn Future<Output = Result<C, Failure>> + Send>>;

/// Connects to the host of an `http` or `https` URL.
#[derive(Clone)]
pub struct Route(Arc<dyn Fn(Url) -> Connecting<Box<dyn Connection>> + Send + Sync>);

impl Route {
    pub(crate) fn new<F>(connect: impl Fn(Url) -> F + Send + Sync + 'static) -> Route
    where
        F: Future<Output = Result<Box<dyn Connection>, Failure>> + Send + 'static,
    {
        Route(Arc::new(move |url| Box::pin(connect(url))))
    }
}

impl Default for Route {
    /// Leads nowhere.
    fn default() -> Route {
        Route::new(async |_| Err("calls to AWS have no network".into()))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Route")
    }
}

/// Returns the SDK's HTTP client for a route. The many clients that the SDK makes share its connections.
pub(super) fn http_client(route: Route) -> SharedHttpClient {
    let pools = Mutex::new(HashMap::new());
    http_client_fn(move |settings, _| {
        let limit = settings.connect_timeout();
        let mut pools = pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(limit).or_insert_with(|| pool(Dialer { route: route.clone(), limit }));
        SharedHttpConnector::new(RoutedConnector {
            pool: pool.clone(),
            read_timeout: settings.read_timeout(),
        })
    })
}

fn pool(dialer: Dialer) -> Client<Dialer, SdkBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .http1_max_buf_size(HEAD_BUFFER)
        .build(dialer)
}

/// Sends requests by a route.
#[derive(Debug)]
struct RoutedConnector {
    pool: Client<Dialer, SdkBody>,
    read_timeout: Option<Duration>,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (pool, limit) = (self.pool.clone(), self.read_timeout);
        HttpConnectorFuture::new(async move {
            let mut request =
                request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let captured = capture_connection(&mut request);
            if let Some(wanted) = request.extensions().get::<CaptureSmithyConnection>() {
                wanted.set_connection_retriever(move || metadata(&captured));
            }
            within(limit, exchange(&pool, request)).await.map_err(ConnectorError::io)
        })
    }
}

/// Sends one request and returns the response, whose body is read from the connection later.
async fn exchange(
    pool: &Client<Dialer, SdkBody>,
    request: Request<SdkBody>,
) -> Result<HttpResponse, Failure> {
    let response = pool.request(request).await.map_err(cause)?;
    let response = response.map(|body| limited(SdkBody::from_body_1_x(body)));
    Ok(HttpResponse::try_from(response)?)
}

/// The route's own error, where there is no connection.
fn cause(error: legacy::Error) -> Failure {
    match error.source() {
        Some(source) if error.is_connect() => source.to_string().into(),
        _ => error.into(),
    }
}

/// A handle by which the SDK makes its next attempt at a call on another connection.
fn metadata(captured: &CaptureConnection) -> Option<ConnectionMetadata> {
    captured.connection_metadata().as_ref()?;
    let captured = captured.clone();
    let poison = move || {
        if let Some(connected) = captured.connection_metadata().as_ref() {
            connected.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
}

/// Opens the connections of a pool.
#[derive(Clone)]
struct Dialer {
    route: Route,
    limit: Option<Duration>,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Dialer { route, limit } = self.clone();
        Box::pin(async move {
            let url = Url::parse(&server.to_string())?;
            within(limit, (route.0)(url)).await.map(TokioIo::new)
        })
    }
}

impl connect::Connection for Box<dyn Connection> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into())),
        None => work.await,
    }
}

/// Time for which an idle connection is kept, for calls that follow one another. A later call may come because the path has
/// gone dead, and the connection with it.
const IDLE_CONNECTION: Duration = Duration::from_secs(2);
/// Bytes that an HTTP connection reads ahead. A peer that repeats interim responses (`HTTP/1.1 100`) keeps the runtime busy for
/// as long as reading 128 times this takes; hyper's own maximum would be 25 times as much.
pub(crate) const HEAD_BUFFER: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server's URL, and the connections that it has accepted.
    async fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    while client.read(&mut request).await.is_ok_and(|length| length > 0) {
                        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        (url, accepted)
    }

    fn connector(route: Route, limit: Option<Duration>) -> RoutedConnector {
        RoutedConnector { pool: pool(Dialer { route, limit }), read_timeout: None }
    }

    fn direct() -> Route {
        Route::new(async |url: Url| {
            let address = url.socket_addrs(|| None)?[0];
            Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn Connection>)
        })
    }

    #[tokio::test]
    async fn calls_share_a_connection_until_it_is_given_up() {
        let (url, accepted) = server().await;
        let connector = connector(direct(), None);
        let call = async || {
            let captured = CaptureSmithyConnection::new();
            let mut request = HttpRequest::get(&url).unwrap();
            request.add_extension(captured.clone());
            let answer = connector.call(request).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
            captured
        };
        call().await;
        let captured = call().await;
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        captured.get().expect("a connection").poison();
        call().await;
        assert_eq!(accepted.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_there_is_no_connection() {
        let call = async |route: Route| {
            let request = HttpRequest::get("https://ssm.example/").unwrap();
            let error = connector(route, Some(Duration::from_secs(5))).call(request).await.unwrap_err();
            format!("{error}: {}", error.source().expect("a reason"))
        };
        assert_eq!(call(Route::default()).await, "io error: calls to AWS have no network");
        let silent = Route::new(|_| std::future::pending());
        assert_eq!(call(silent).await, "io error: no answer within 5s");
    }
}
