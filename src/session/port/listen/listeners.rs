//! Sources of connections: the port of argv, additional forwards, SOCKS clients.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::accept_pause::AcceptPause;
use super::accepted::Accepted;
use super::listener::Listener;
use super::socks::SocksListener;
use crate::process::PeerOwner;
use crate::session::port::core::DestinationId;

/// All listeners of a run.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ports: Vec<Port>,
    socks: Option<SocksListener>,
    /// Another SOCKS client may be accepted.
    is_socks_wanted: bool,
    pause: AcceptPause,
}

#[derive(Debug)]
struct Port {
    destination: DestinationId,
    listener: Listener,
    /// Only this user's clients may come.
    is_guarded: bool,
    /// Its destination takes connections.
    is_wanted: bool,
}

impl Listeners {
    /// Adds a listener, whose connections are for `destination`. On loopback, and if it `is_guarded`, only this user's clients and
    /// root's are accepted.
    pub(crate) fn add(&mut self, destination: DestinationId, listener: Listener, is_guarded: bool) {
        // Who listens on the network means to have strangers as clients.
        let is_guarded = is_guarded && listener.is_loopback();
        self.ports.push(Port { destination, listener, is_guarded, is_wanted: true });
    }

    /// Adds the SOCKS listener.
    pub(crate) fn add_socks(&mut self, socks: SocksListener) {
        self.socks = Some(socks);
    }

    /// Says which destinations take connections, and whether SOCKS clients may come. The others wait in their listeners.
    pub(crate) fn set_wanted(&mut self, is_wanted: impl Fn(DestinationId) -> bool, is_socks_wanted: bool) {
        self.is_socks_wanted = is_socks_wanted;
        self.ports.iter_mut().for_each(|port| port.is_wanted = is_wanted(port.destination));
    }

    /// Returns the next connection. Cancel-safe.
    pub(crate) async fn accept(&mut self) -> Accepted {
        loop {
            let Listeners { ports, socks, is_socks_wanted, pause } = self;
            let may_accept = pause.is_over();
            let socks = async {
                match socks {
                    Some(socks) => socks.accept(may_accept && *is_socks_wanted).await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                accepted = poll_fn(|cx| poll_ports(ports, cx)), if may_accept => accepted,
                accepted = socks => accepted,
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
            return Poll::Ready(accepted.map(|stream| match port.is_guarded.then(|| stream.owner()) {
                Some(PeerOwner::Other(stranger)) => {
                    stream.reset();
                    Accepted::Stranger(stranger)
                }
                _ => Accepted::Port(port.destination, stream),
            }));
        }
    }
    Poll::Pending
}
