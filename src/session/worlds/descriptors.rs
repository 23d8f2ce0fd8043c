//! Descriptors of the machine, which may all be in use for a while: then no connection is accepted or made.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use crate::session::port::{MemoryPorts, MemoryStream, PortSpace, StreamListener};

/// The descriptors; shared by all that needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Descriptors(Arc<AtomicBool>);

impl Descriptors {
    /// Takes away all that are free, or returns them.
    pub(super) fn exhaust(&self, are_exhausted: bool) {
        self.0.store(are_exhausted, Ordering::Relaxed);
    }

    /// Takes one.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(super) fn take(&self) -> io::Result<()> {
        let are_exhausted = self.0.load(Ordering::Relaxed);
        if are_exhausted { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(()) }
    }
}

/// Ports whose listeners need a descriptor for each connection.
#[derive(Debug)]
pub(super) struct ScarcePorts {
    pub ports: MemoryPorts,
    pub descriptors: Descriptors,
}

impl PortSpace for ScarcePorts {
    fn bind(&self, port: u16) -> io::Result<Box<dyn StreamListener>> {
        let (listener, descriptors) = (self.ports.bind(port)?, self.descriptors.clone());
        Ok(Box::new(ScarceListener { listener, next: Mutex::default(), descriptors }))
    }
}

#[derive(Debug)]
struct ScarceListener {
    listener: Box<dyn StreamListener>,
    /// A connection for which there was no descriptor.
    next: Mutex<Option<MemoryStream>>,
    descriptors: Descriptors,
}

impl StreamListener for ScarceListener {
    fn port(&self) -> u16 {
        self.listener.port()
    }

    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<MemoryStream>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match next.take() {
            Some(stream) => stream,
            None => ready!(self.listener.poll_accept(cx))?,
        };
        if let Err(error) = self.descriptors.take() {
            *next = Some(stream);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(stream))
    }
}

impl Drop for ScarceListener {
    fn drop(&mut self) {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        next.into_iter().for_each(|stream| stream.reset());
    }
}
