//! Takes connections, and hands each to the gateway or to the HTTP endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::service::Service;
use crate::stream::Stream;
use crate::{api, control, gateway, identity};

/// Serves until dropped.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let (http, incoming) = mpsc::channel(BACKLOG);
    let Ok(addr) = listener.local_addr() else { return };
    let app: Router = control::routes()
        .merge(identity::routes())
        .fallback(any(api::handle))
        .with_state(Arc::clone(&service));
    tokio::spawn(async move { axum::serve(Incoming { addr, incoming }, app).await });
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let (service, tls, http) = (Arc::clone(&service), tls.clone(), http.clone());
                tokio::spawn(async move {
                    match timeout(FIRST_BYTES, sort(&service, tcp, tls)).await {
                        Ok(Ok(Sorted::DataChannel(stream))) => gateway::serve(service, stream).await,
                        Ok(Ok(Sorted::Http(stream))) => drop(http.send((stream, peer)).await),
                        Ok(Ok(Sorted::Refused)) | Err(_) => {}
                        Ok(Err(error)) => debug!(%error, "connection failed"),
                    }
                });
            }
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

enum Sorted {
    DataChannel(Stream),
    Http(Stream),
    Refused,
}

async fn sort(service: &Service, tcp: TcpStream, tls: Option<TlsAcceptor>) -> std::io::Result<Sorted> {
    tcp.set_nodelay(true)?;
    let mut stream = match tls {
        Some(tls) => Stream::tls(tls.accept(tcp).await?),
        None => Stream::plain(tcp),
    };
    // The test that drives the simulator reaches it during an outage, too.
    let control = stream.starts_with(b"GET /sim/").await? || stream.starts_with(b"POST /sim/").await?;
    if service.in_outage() && !control {
        stream.reset();
        return Ok(Sorted::Refused);
    }
    let data_channel = format!("GET {}", gateway::DATA_CHANNEL);
    if stream.starts_with(data_channel.as_bytes()).await? {
        return Ok(Sorted::DataChannel(stream));
    }
    Ok(Sorted::Http(stream))
}

/// Connections for axum.
struct Incoming {
    addr: SocketAddr,
    incoming: mpsc::Receiver<(Stream, SocketAddr)>,
}

impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        match self.incoming.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// Connections waiting for the HTTP server.
const BACKLOG: usize = 64;

/// From the connection to the first bytes of a request, TLS included.
const FIRST_BYTES: Duration = Duration::from_secs(10);
