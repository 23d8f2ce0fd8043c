//! Errors of a link: why a websocket does not open, and why there is no connection any more.

use std::io;
use std::time::Duration;

use super::proxy::ProxyError;
use super::tcp::ConnectError;
use super::tls::{self, TrustError};
use crate::aws::AwsError;

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
        /// The stream URL's host.
        host: String,
        /// The time given.
        timeout: Duration,
        /// The last attempt's error.
        reason: String,
    },
    /// A lost connection did not come back in time.
    #[error("no connection for {timeout:?}, last: {reason}")]
    Reconnect {
        /// The time given.
        timeout: Duration,
        /// The last attempt's error.
        reason: String,
    },
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// The websocket did not open.
    #[error("{0}")]
    Websocket(#[from] OpenError),
    /// The websocket did not open, probably because the request was unsigned.
    #[error("{error}; the request was not signed: {unsigned}")]
    Unsigned {
        /// The refusal.
        error: OpenError,
        /// Why it was not signed.
        unsigned: AwsError,
    },
    /// ResumeSession says that the session is over.
    #[error("the session has timed out")]
    SessionGone,
}

impl OpenFailure {
    /// Whether trying again soon is pointless.
    pub fn is_permanent(&self) -> bool {
        match self {
            OpenFailure::Websocket(error) | OpenFailure::Unsigned { error, .. } => error.is_permanent(),
            OpenFailure::SessionGone => true,
        }
    }
}

/// Why a websocket could not be opened. No text holds the URL's query, the token or a proxy's password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name has no address, or nothing answers there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The proxy refused or failed.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// No trusted certificates could be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The TLS handshake failed.
    #[error("cannot open TLS to {host}: {}", tls::explain(source))]
    Tls {
        /// The host's name.
        host: String,
        /// The TLS library's words.
        source: io::Error,
    },
    /// One attempt took too long.
    #[error("{host} did not open a websocket within {timeout:?}")]
    TimedOut {
        /// The host's name, and the proxy on the way to it.
        host: String,
        /// The time given.
        timeout: Duration,
    },
    /// The server answered the upgrade with something else.
    #[error("{host} refused the connection with status {status}")]
    Status {
        /// The host's name.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The upgrade failed otherwise.
    #[error("{host} did not open a websocket: {reason}")]
    Upgrade {
        /// The host's name.
        host: String,
        /// The websocket library's words.
        reason: String,
    },
}

impl OpenError {
    /// Whether trying again soon is pointless.
    pub fn is_permanent(&self) -> bool {
        match self {
            OpenError::Status { status, .. } => (400..500).contains(status) && !matches!(status, 408 | 429),
            OpenError::Tls { source, .. } => tls::is_permanent(source),
            OpenError::Proxy(error) => error.is_permanent(),
            OpenError::Trust(_) => true,
            OpenError::Connect(_) | OpenError::TimedOut { .. } | OpenError::Upgrade { .. } => false,
        }
    }
}
