//! Events of a forwarded port.

use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::output::Status;

/// A change of state. Texts are for people, on one line, and may change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A session has started.
    #[non_exhaustive]
    SessionStarted {
        /// Id of the session.
        session: String,
    },
    /// A session has ended; the port stays open.
    #[non_exhaustive]
    SessionEnded {
        /// Id of the session.
        session: String,
        /// The service's reason.
        reason: String,
    },
    /// The connection to the service was lost, and is being opened again.
    #[non_exhaustive]
    Lost {
        /// The system's or the service's reason.
        reason: String,
    },
    /// The connection to the service is back.
    Resumed,
    /// The service has paused the session, usually because the agent is not connected.
    Paused,
    /// The agent is connected again.
    Unpaused,
    /// A connection was accepted.
    #[non_exhaustive]
    ConnectionOpened {
        /// Number of the connection, from 1.
        connection: u64,
        /// Address of the client, for people.
        from: String,
    },
    /// A connection is over.
    #[non_exhaustive]
    ConnectionClosed {
        /// Number of the connection.
        connection: u64,
        /// Time that it was open.
        duration: Duration,
        /// Bytes from the client to the remote.
        sent: u64,
        /// Bytes from the remote to the client.
        received: u64,
    },
    /// The agent could not reach the destination.
    DestinationRefused,
    /// A client has not read for several seconds and blocks its session.
    ReaderStalled,
    /// A failure that does not end the port, such as a session that could not be started.
    #[non_exhaustive]
    Failure {
        /// The failure.
        text: String,
    },
    /// Any other message.
    #[non_exhaustive]
    Message {
        /// The message.
        text: String,
    },
    /// Events were dropped because nothing has taken them.
    #[non_exhaustive]
    Missed {
        /// Number of events.
        count: u64,
    },
}

/// The events of a [`Forward`](super::Forward), oldest first. At most 256 wait to be taken; of more, the oldest are dropped.
#[derive(Debug)]
pub struct Events {
    pub(super) receiver: Option<Receiver<Event>>,
}

impl Events {
    /// Returns the next event; `None` after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Event {
    /// The event for an embedding program; `None` for one of the program's own.
    pub(super) fn of(status: Status) -> Option<Event> {
        Some(match status {
            Status::SessionStarted { session, .. } => Event::SessionStarted { session },
            Status::SessionEnded { session, reason, .. } => Event::SessionEnded { session, reason },
            Status::Lost { reason, .. } => Event::Lost { reason },
            Status::Resumed { .. } => Event::Resumed,
            Status::Paused { .. } => Event::Paused,
            Status::Unpaused { .. } => Event::Unpaused,
            Status::ConnectionOpened { connection, from, .. } => Event::ConnectionOpened { connection, from },
            Status::ConnectionClosed { connection, seconds, sent, received } => Event::ConnectionClosed {
                connection,
                duration: Duration::from_secs_f64(seconds),
                sent,
                received,
            },
            Status::DestinationRefused { .. } => Event::DestinationRefused,
            Status::ReaderStalled { .. } => Event::ReaderStalled,
            Status::Failure { text } => Event::Failure { text },
            Status::Message { text, .. } => Event::Message { text },
            Status::Opening { .. }
            | Status::Ready { .. }
            | Status::SessionsReady { .. }
            | Status::Log { .. }
            | Status::End { .. } => return None,
        })
    }
}
