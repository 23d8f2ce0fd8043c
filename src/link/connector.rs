//! Connections of another's making, in place of TCP and proxies.

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that can carry a websocket.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for S {}

/// A connection on its way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send>>;

/// Connects to hosts in a way of its own: through a tunnel that the embedding program has already, or within one process.
///
/// TLS, where the URL asks for it, and the websocket are set up on what it returns. Proxies of the environment are not
/// asked, and the machine's network is not watched: [`Network::report_change`](super::Network::report_change) reports its
/// changes.
pub trait Connector: fmt::Debug + Send + Sync {
    /// Connects to a port of a host. The caller bounds the time.
    fn connect(&self, host: &str, port: u16) -> Connecting;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt as _;
    use serde_json::Value;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio_tungstenite::WebSocketStream;
    use url::Url;

    use super::*;
    use crate::aws::{Api, AwsError, Call, Client, ErrorKind, StartSessionOutput};
    use crate::link::{Config, Link, LinkEvent, Network, StreamHosts, Target};
    use crate::protocol::{DataKey, DataKeyRequest};
    use crate::secret::Secret;

    /// Hands the other ends of connections to the test.
    #[derive(Debug)]
    struct Memory(mpsc::UnboundedSender<DuplexStream>);

    impl Connector for Memory {
        fn connect(&self, _host: &str, _port: u16) -> Connecting {
            let (near, far) = tokio::io::duplex(1 << 16);
            self.0.send(far).unwrap();
            Box::pin(async { Ok(Box::new(near) as Box<dyn Transport>) })
        }
    }

    #[derive(Debug)]
    struct Broker;

    impl Api for Broker {
        fn start(&self, _request: &Value) -> Call<'_, StartSessionOutput> {
            Box::pin(async { Err(AwsError::new("start", ErrorKind::Refused, "not here")) })
        }
        fn resume(&self, session_id: &str) -> Call<'_, StartSessionOutput> {
            let session_id = session_id.to_owned();
            let token = Secret::new("second".to_owned());
            Box::pin(async { Ok(StartSessionOutput { session_id, stream_url: String::new(), token }) })
        }
        fn terminate(&self, _session_id: &str) -> Call<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn data_key(&self, _session_id: &str, _request: &DataKeyRequest) -> Call<'_, DataKey> {
            Box::pin(async { Err(AwsError::new("key", ErrorKind::Refused, "not here")) })
        }
    }

    /// The websocket that the link opens next, and the token that it presents.
    async fn accept(
        far: &mut mpsc::UnboundedReceiver<DuplexStream>,
    ) -> (WebSocketStream<DuplexStream>, String) {
        let mut socket = tokio_tungstenite::accept_async(far.recv().await.unwrap()).await.unwrap();
        let opening = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let opening: Value = serde_json::from_str(&opening).unwrap();
        (socket, opening["TokenValue"].as_str().unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_opens_and_resumes_by_a_programs_own_connector_and_api() {
        let (sender, mut far) = mpsc::unbounded_channel();
        let network = Network::new(StreamHosts::default(), None).with_connector(Arc::new(Memory(sender)));
        let target = Target {
            session_id: "s".to_owned(),
            url: Url::parse("ws://127.0.0.1/v1/data-channel/s").unwrap(),
            token: Arc::new(Secret::new("first".to_owned())),
            network: Arc::new(network),
            aws: Some(Arc::new(Client::with_api(Arc::new(Broker)))),
            sign_first: true,
        };
        let mut link = Link::new(Config::default(), target);
        let service = async {
            let (socket, token) = accept(&mut far).await;
            assert_eq!(token, "first");
            drop(socket);
            assert_eq!(accept(&mut far).await.1, "second");
        };
        let program = async {
            loop {
                let event = link.next(true).await;
                assert!(!matches!(event, LinkEvent::GaveUp(_)), "{event:?}");
            }
        };
        tokio::select! {
            () = service => {}
            () = program => {}
        }
    }
}
