//! Where connections come from: the port of argv, further forwards, SOCKS clients.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::destination::Destination;
use super::listener::{AcceptPause, Listener};
use super::local_stream::LocalStream;
use super::pools::PoolId;
use super::socks_listener::SocksListener;

/// All listeners of a run.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    ports: Vec<Port>,
    socks: Option<SocksListener>,
    pause: AcceptPause,
}

#[derive(Debug)]
struct Port {
    pool: PoolId,
    listener: Listener,
    /// Its pool takes connections.
    is_wanted: bool,
}

/// What has come.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection for a pool.
    Port(PoolId, LocalStream),
    /// A SOCKS client's connection, which waits for the reply.
    Socks(Destination, LocalStream),
    /// None could be accepted; what to say of that, once.
    Failed(Option<String>),
}

impl Listeners {
    /// Adds a listener, whose connections are for `pool`.
    pub(super) fn add(&mut self, pool: PoolId, listener: Listener) {
        self.ports.push(Port { pool, listener, is_wanted: true });
    }

    /// Adds the SOCKS listener.
    pub(super) fn add_socks(&mut self, socks: SocksListener) {
        self.socks = Some(socks);
    }

    /// Says which pools take connections. Those of the others wait in their listeners.
    pub(super) fn set_wanted(&mut self, is_wanted: impl Fn(PoolId) -> bool) {
        self.ports.iter_mut().for_each(|port| port.is_wanted = is_wanted(port.pool));
    }

    /// What comes next. Cancel-safe.
    pub(super) async fn accept(&mut self) -> Accepted {
        loop {
            let Listeners { ports, socks, pause } = self;
            let may_accept = pause.is_over();
            let socks = async {
                match socks {
                    Some(socks) => socks.accept(may_accept).await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                accepted = poll_fn(|cx| poll_ports(ports, cx)), if may_accept => accepted,
                accepted = socks => {
                    accepted.map(|(stream, to)| Accepted::Socks(to, LocalStream::Tcp(stream)))
                }
                () = pause.wait() => continue,
            };
            return match accepted {
                Ok(accepted) => {
                    self.pause.handle_success();
                    accepted
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    Accepted::Failed(self.pause.handle_failure(&error))
                }
            };
        }
    }
}

fn poll_ports(ports: &[Port], cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
    for port in ports.iter().filter(|port| port.is_wanted) {
        if let Poll::Ready(accepted) = port.listener.poll_accept(cx) {
            return Poll::Ready(accepted.map(|stream| Accepted::Port(port.pool, stream)));
        }
    }
    Poll::Pending
}
