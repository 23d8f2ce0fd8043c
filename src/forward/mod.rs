//! A forwarded port inside another program, without the `session-manager-plugin` program and without the AWS CLI.
//!
//! ```no_run
//! use session_manager_plugin::forward::Forward;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let forward = Forward::builder("i-0123456789abcdef0")
//!     .from_env()
//!     .to("db.internal", 5432)
//!     .listen("127.0.0.1:0")
//!     .restart(true)
//!     .start()
//!     .await?;
//! println!("the database is at {:?}", forward.local_addr());
//! tokio::signal::ctrl_c().await?;
//! forward.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! A connection needs no socket on this machine, and so no free port and no rule about who may connect to it:
//!
//! ```no_run
//! # use session_manager_plugin::forward::Forward;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! # async fn example(forward: &Forward) -> Result<(), Box<dyn std::error::Error>> {
//! let mut stream = forward.connect().await?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where it runs
//!
//! Each [`Forward`] has a thread with a runtime, on which its sessions, listener and connections are served: as many as the program
//! wants, beside any runtime or none. All types here are [`Send`], and their futures complete in every runtime.
//! [`Forward::shutdown`] ends the sessions at the service and joins the thread. Dropping a [`Forward`] does the same in the
//! background; a program that ends right then leaves the sessions to the service's timeout.
//!
//! # What it leaves alone
//!
//! It prints nothing, installs no handler of signals or panics, and changes neither the environment nor a limit of the process.
//! Diagnostics are [`tracing`] events. It opens files and reads the environment when [`from_env`](ForwardBuilder::from_env) or
//! [`profile`](ForwardBuilder::profile) is called; otherwise only for the system's CA certificates (`SSL_CERT_FILE`,
//! `SSL_CERT_DIR`), name resolution, and the name of the execution environment in the AWS SDK's user agent (`AWS_EXECUTION_ENV`).
//!
//! # Agents
//!
//! Agents after 3.0.196.0 forward several connections in one session; older ones are refused with
//! [`Error::Unsupported`].

mod builder;
mod event;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{broadcast, oneshot, watch};

pub use aws_credential_types::Credentials;
pub use aws_credential_types::provider::ProvideCredentials;

pub use self::builder::ForwardBuilder;
pub use self::event::{Event, Events};
pub use self::stream::ForwardStream;
pub use crate::embedding::Error;
use crate::embedding::{Stop, Worker};
use crate::panics;
use crate::session::{Door, EmbeddedPort, end_started};

/// A forwarded port, with the sessions behind it.
#[derive(Debug)]
pub struct Forward {
    worker: Worker,
    address: Option<SocketAddr>,
    door: Door,
    events: broadcast::WeakSender<Event>,
    /// For the first caller of [`Forward::events`], from the beginning.
    first: Mutex<Option<broadcast::Receiver<Event>>>,
    over: watch::Receiver<Option<Error>>,
}

impl Forward {
    /// Arguments of a port that leads through an instance: `i-…`, `mi-…` or `ecs:…`.
    pub fn builder(target: impl Into<String>) -> ForwardBuilder {
        ForwardBuilder::new(target.into())
    }

    /// Returns the address that it listens on; `None` without [`ForwardBuilder::listen`].
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Returns the events: to the first caller those since the start, to others those from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let later = || self.events.upgrade().map(|events| events.subscribe());
        Events { receiver: first.or_else(later) }
    }

    /// Connects to the destination. Returns at once: bytes wait for the session, and a destination that cannot be reached ends
    /// the stream.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`], or the reason that the port is closed.
    #[expect(clippy::unused_async, reason = "a later version may wait for room")]
    pub async fn connect(&self) -> Result<ForwardStream, Error> {
        self.door.connect().map(ForwardStream).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::TooManyConnections,
            _ => self.over.borrow().clone().unwrap_or(Error::Closed),
        })
    }

    /// Waits until the port has closed by itself, and returns the reason: without [`restart`](ForwardBuilder::restart) the end of
    /// its session. Cancel-safe.
    pub async fn closed(&self) -> Error {
        let mut over = self.over.clone();
        match over.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Error::Closed),
            Err(_) => Error::Internal(PANICKED.to_owned()),
        }
    }

    /// Closes the port and its connections, ends the sessions at the service and joins the thread. Takes up to about two seconds where
    /// the service does not answer.
    pub async fn shutdown(self) {
        self.worker.stop().await;
    }
}

impl ForwardBuilder {
    /// Listens, starts a session and waits until it can take connections.
    ///
    /// A future that is dropped before leaves nothing behind: the session is ended.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left open.
    pub async fn start(self) -> Result<Forward, Error> {
        let (events, first) = broadcast::channel(MAX_EVENTS);
        let weak = events.downgrade();
        let (ended, over) = watch::channel(None);
        let (opened, ready) = oneshot::channel();
        let mut worker = Worker::start(move |stop| serve(self, stop, opened, events, ended))?;
        match ready.await {
            Ok(Ok((address, door))) => {
                Ok(Forward { worker, address, door, events: weak, first: Mutex::new(Some(first)), over })
            }
            Ok(Err(error)) => {
                worker.join().await;
                Err(error)
            }
            Err(_) => Err(Error::Internal(PANICKED.to_owned())),
        }
    }
}

/// Address and entrance of a port that is ready.
type Opened = Result<(Option<SocketAddr>, Door), Error>;

/// Runs a port from its start to its end.
async fn serve(
    builder: ForwardBuilder,
    stop: Stop,
    opened: oneshot::Sender<Opened>,
    events: broadcast::Sender<Event>,
    over: watch::Sender<Option<Error>>,
) {
    let mut stop = pin!(async { drop(stop.await) });
    let (config, starter) = match builder.prepare().await {
        Ok(prepared) => prepared,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let access = starter.access();
    let run = async {
        match EmbeddedPort::start(&config, starter, &mut stop).await {
            Ok(Some(port)) => {
                let _ = opened.send(Ok((port.address(), port.door())));
                let report = |status| _ = Event::of(status).map(|event| events.send(event));
                port.run(report, stop).await.map_or(Error::Closed, Error::from)
            }
            Ok(None) => Error::Closed,
            Err(error) => {
                let _ = opened.send(Err(error.into()));
                Error::Closed
            }
        }
    };
    let end = match panics::contain(run).await {
        Ok(end) => end,
        Err(_) => {
            end_started(&access).await;
            Error::Internal(PANICKED.to_owned())
        }
    };
    over.send_replace(Some(end));
}

/// Events that wait to be taken.
const MAX_EVENTS: usize = 256;
const PANICKED: &str = "internal error: the session's thread has panicked";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_that_are_not_taken_are_counted() {
        let (sender, receiver) = broadcast::channel(MAX_EVENTS);
        let mut events = Events { receiver: Some(receiver) };
        for connection in 0..MAX_EVENTS as u64 + 3 {
            sender.send(Event::ConnectionOpened { connection, from: String::new() }).unwrap();
        }
        assert_eq!(events.next().await, Some(Event::Missed { count: 3 }));
        assert_eq!(events.next().await, Some(Event::ConnectionOpened { connection: 3, from: String::new() }));
        drop(sender);
        for _ in 1..MAX_EVENTS {
            assert!(events.next().await.is_some());
        }
        assert_eq!(events.next().await, None);
    }
}
