//! What a link is told, and what it tells.

use std::time::Duration;

use super::OpenFailure;
use crate::protocol::{self, Event};

/// What a link needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The limits of the data channel.
    pub channel: protocol::Config,
    /// How long the first opening may take in all, attempts included.
    pub open_timeout: Duration,
    /// How long to try to get a lost connection back.
    pub reconnect_timeout: Duration,
    /// Time between websocket pings. A ping without any answer until the next is due means a dead socket.
    pub ping_interval: Duration,
}

/// What a link tells its session.
#[derive(Debug)]
pub enum LinkEvent {
    /// From the data channel.
    Channel(Event),
    /// There is room for input again, after [`Link::wants_input`](super::Link::wants_input) had said no.
    WantsInput,
    /// The connection is lost and is being opened again; why.
    Lost(String),
    /// The connection is back.
    Resumed,
    /// What stands in the way of getting it back as it should be. It is tried further.
    Trouble(String),
    /// There will be no connection (any more). Nothing follows.
    GaveUp(GaveUp),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum GaveUp {
    /// The first opening failed.
    #[error("{0}")]
    Open(OpenFailure),
    /// The session is over at the service: it was idle too long, or away too long.
    #[error("the session has timed out")]
    SessionGone,
    /// The first opening took too long.
    #[error("{host} did not open a websocket within {timeout:?}, last: {reason}")]
    OpenTimeout {
        /// The host asked.
        host: String,
        /// The time given.
        timeout: Duration,
        /// What the last attempt met.
        reason: String,
    },
    /// A lost connection did not come back in time.
    #[error("no connection for {timeout:?}, last: {reason}")]
    Reconnect {
        /// The time given.
        timeout: Duration,
        /// What the last attempt met.
        reason: String,
    },
}
