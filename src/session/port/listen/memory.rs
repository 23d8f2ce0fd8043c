//! Ports of the process alone: what a program that embeds forwarding connects to without a socket.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::session::port::local::MemoryStream;

/// The ports that listeners are bound to.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ports {
    /// Those of this machine.
    #[default]
    System,
    /// Others, such as [`MemoryPorts`].
    Within(Arc<dyn PortSpace>),
}

/// Ports without sockets.
pub(crate) trait PortSpace: fmt::Debug + Send + Sync {
    /// Binds a port until the listener is dropped; 0 is any free one.
    ///
    /// # Errors
    /// When the port is taken.
    fn bind(&self, port: u16) -> io::Result<Box<dyn StreamListener>>;
}

/// A listener without a socket.
pub(crate) trait StreamListener: fmt::Debug + Send + Sync {
    /// The port.
    fn port(&self) -> u16;

    /// The next connection. One task at a time may wait.
    ///
    /// # Errors
    /// When none can be accepted now; the connections wait.
    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<MemoryStream>>;
}

/// The ports of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryPorts(Arc<Mutex<BTreeMap<u16, Backlog>>>);

/// Connections that wait to be accepted.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<MemoryStream>,
    waker: Option<Waker>,
}

/// A bound port; free again when this is dropped.
#[derive(Debug)]
struct MemoryListener {
    ports: MemoryPorts,
    port: u16,
}

impl MemoryPorts {
    /// Connects to a port.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing listens there, `WouldBlock` when too many connections wait.
    pub(crate) fn connect(&self, port: u16) -> io::Result<MemoryStream> {
        let mut bound = self.lock();
        let backlog = bound.get_mut(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
        if backlog.waiting.len() >= BACKLOG {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (near, far) = MemoryStream::pair();
        backlog.waiting.push_back(near);
        backlog.waker.take().into_iter().for_each(Waker::wake);
        Ok(far)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Backlog>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortSpace for MemoryPorts {
    fn bind(&self, port: u16) -> io::Result<Box<dyn StreamListener>> {
        let mut bound = self.lock();
        let free = || (FIRST_FREE..=u16::MAX).find(|port| !bound.contains_key(port));
        let port = if port == 0 { free().ok_or(io::ErrorKind::AddrInUse)? } else { port };
        if bound.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        bound.insert(port, Backlog::default());
        Ok(Box::new(MemoryListener { ports: self.clone(), port }))
    }
}

impl StreamListener for MemoryListener {
    fn port(&self) -> u16 {
        self.port
    }

    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<MemoryStream>> {
        let mut bound = self.ports.lock();
        let Some(backlog) = bound.get_mut(&self.port) else { return Poll::Pending };
        match backlog.waiting.pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => {
                backlog.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let backlog = self.ports.lock().remove(&self.port);
        for stream in backlog.into_iter().flat_map(|backlog| backlog.waiting) {
            stream.reset();
        }
    }
}

/// The first port for listeners that want any: IANA's range of dynamic ports.
const FIRST_FREE: u16 = 49_152;
/// Connections that wait to be accepted, as many as the standard library's listeners have.
const BACKLOG: usize = 128;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn more_connections_than_wait_are_refused() {
        let ports = MemoryPorts::default();
        let listener = ports.bind(80).unwrap();
        let waiting: Vec<_> = (0..BACKLOG).map(|_| ports.connect(80).unwrap()).collect();
        assert_eq!(ports.connect(80).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let cx = Context::from_waker(Waker::noop());
        assert!(listener.poll_accept(&cx).is_ready());
        assert!(ports.connect(80).is_ok(), "one has been taken");
        drop((listener, waiting));
        assert_eq!(ports.connect(80).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_port_takes_connections_until_it_is_dropped() {
        let ports = MemoryPorts::default();
        assert!(ports.connect(80).is_err());
        let listener = ports.bind(80).unwrap();
        assert!(ports.bind(80).is_err() && ports.bind(0).unwrap().port() >= FIRST_FREE);
        let (client, other) = (ports.connect(80).unwrap(), ports.connect(80).unwrap());
        let served = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        served.try_write(b"hello").unwrap();
        client.readable().await.unwrap();
        drop(listener);
        other.hung_up().await;
        assert!(ports.connect(80).is_err());
    }
}
