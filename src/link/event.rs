//! What a link is told, and what it tells.

use std::time::Duration;

use super::OpenFailure;
use crate::cli::COMPATIBLE_VERSION;
use crate::protocol::{self, Event, TerminalSize};
use crate::settings::Settings;

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

impl Default for Config {
    /// The program's own defaults, which stay under the service's limits.
    fn default() -> Config {
        Config::from_settings(&Settings::default())
    }
}

impl Config {
    pub(crate) fn from_settings(settings: &Settings) -> Config {
        Config {
            channel: protocol::Config {
                client_version: COMPATIBLE_VERSION.to_owned(),
                message_rate: settings.message_rate.unwrap_or(0),
                max_payload: settings.max_payload,
                max_window: settings.window,
                handshake_timeout: settings.handshake_timeout,
                initial_size: TerminalSize { cols: settings.columns, rows: settings.lines },
                give_up_after: GIVE_UP_AFTER,
            },
            open_timeout: settings.open_timeout,
            reconnect_timeout: settings.reconnect_timeout,
            ping_interval: settings.ping_interval,
        }
    }
}

/// The official plugin gives up after 3,000 resends at intervals of 100 ms.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

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
