//! Errors of a link: why a websocket does not open, and why there is no connection any more.

use std::io;
use std::time::Duration;

use super::proxy::ProxyError;
use super::tcp::ConnectError;
use super::tls::{self, TrustError};
use crate::aws::AwsError;

/// Reason that there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum GaveUp {
    /// The first opening failed.
    #[error(transparent)]
    Open(#[from] OpenFailure),
    /// The session is over at the service: it was idle too long, or away too long.
    #[error("the session has timed out")]
    SessionGone,
    /// The first opening took too long.
    #[error("no websocket to {host} after {} (last error: {reason})", seconds(*timeout))]
    OpenTimeout {
        /// The stream URL's host.
        host: String,
        /// The time given.
        timeout: Duration,
        /// The last attempt's error.
        reason: String,
    },
    /// A lost connection did not come back in time.
    #[error("no connection for {} (last error: {reason})", seconds(*timeout))]
    Reconnect {
        /// The time given.
        timeout: Duration,
        /// The last attempt's error.
        reason: String,
    },
}

/// Reason that an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// The websocket did not open.
    #[error(transparent)]
    Websocket(#[from] OpenError),
    /// The service refuses the credentials that the request was signed with.
    #[error("{error}; {explanation}")]
    Credentials {
        /// The refusal.
        error: OpenError,
        /// The service's opinion of the credentials, and the command that checks them.
        explanation: String,
    },
    /// The websocket did not open, probably because the request was unsigned.
    #[error("{error}; the request was not signed: {unsigned}")]
    Unsigned {
        /// The refusal.
        error: OpenError,
        /// Reason that it was not signed.
        unsigned: AwsError,
    },
    /// The service no longer accepts the stream URL, whatever the credentials.
    #[error("{0}; start a new session: this one may have been resumed elsewhere")]
    StaleUrl(OpenError),
    /// ResumeSession says that the session is over.
    #[error("the session has timed out")]
    SessionGone,
}

impl OpenFailure {
    /// The reason in a sentence that has named the websocket to `host` already.
    pub(super) fn brief(&self, host: &str) -> String {
        match self {
            OpenFailure::Websocket(OpenError::TimedOut { host: whole, timeout }) => {
                let proxy = whole.strip_prefix(host).unwrap_or_default();
                format!("no answer within {}{proxy}", seconds(*timeout))
            }
            _ => self.to_string(),
        }
    }

    /// Returns whether trying again soon is pointless.
    pub fn is_permanent(&self) -> bool {
        match self {
            OpenFailure::Websocket(error)
            | OpenFailure::StaleUrl(error)
            | OpenFailure::Credentials { error, .. }
            | OpenFailure::Unsigned { error, .. } => error.is_permanent(),
            OpenFailure::SessionGone => true,
        }
    }
}

/// Reason that a websocket could not be opened. No text holds the URL's query, the token or a proxy's password.
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
    #[error("cannot open TLS to {host}: {}", tls::explain(error))]
    Tls {
        /// The host's name.
        host: String,
        /// The TLS library's error message.
        error: io::Error,
    },
    /// One attempt took too long.
    #[error("{host} did not open a websocket within {}", seconds(*timeout))]
    TimedOut {
        /// The host's name, and the proxy on the way to it.
        host: String,
        /// The time given.
        timeout: Duration,
    },
    /// The server answered the upgrade with something else.
    #[error("{host} refused the connection with status {status}{}", after_colon(reason.as_deref()))]
    Status {
        /// The host's name.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The reason in the server's response, on one line.
        reason: Option<String>,
    },
    /// The upgrade failed otherwise.
    #[error("{host} did not open a websocket: {reason}")]
    Upgrade {
        /// The host's name.
        host: String,
        /// The websocket library's error message.
        reason: String,
    },
}

impl OpenError {
    /// Returns whether trying again soon is pointless.
    pub fn is_permanent(&self) -> bool {
        match self {
            OpenError::Status { status, .. } => (400..500).contains(status) && !matches!(status, 408 | 429),
            OpenError::Tls { error, .. } => tls::is_permanent(error),
            OpenError::Proxy(error) => error.is_permanent(),
            OpenError::Trust(_) => true,
            OpenError::Connect(_) | OpenError::TimedOut { .. } | OpenError::Upgrade { .. } => false,
        }
    }
}

/// A duration in seconds, with a tenth where it matters.
fn seconds(duration: Duration) -> String {
    let tenths = (duration.as_secs_f64() * 10.0).round();
    format!("{} s", tenths / 10.0)
}

fn after_colon(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::ErrorKind;

    /// Every error of a link, with a cause where it has one.
    fn all() -> Vec<anyhow::Error> {
        let io = || io::Error::other("the cause");
        let host = || "host".to_owned();
        let connect = || ConnectError::Connect { host: host(), port: 443, error: io() };
        let status = || OpenError::Status { host: host(), status: 403, reason: Some("no such key".into()) };
        let timeout = Duration::from_secs(1);
        let trust = || TrustError::Library("the cause".into());
        let proxy_error = || ProxyError::Connect { proxy: "proxy".into(), error: connect() };
        let unsigned = AwsError::new("ssm:Call", ErrorKind::NoCredentials, "no credentials");
        let opens = vec![
            OpenError::Connect(ConnectError::Resolve { host: host(), error: io() }),
            OpenError::Connect(connect()),
            OpenError::Proxy(proxy_error()),
            OpenError::Proxy(ProxyError::Tls { proxy: "proxy".into(), error: io() }),
            OpenError::Proxy(ProxyError::Trust(trust())),
            OpenError::Trust(trust()),
            OpenError::Trust(TrustError::Unreadable { path: "/ca".into(), reason: "the cause".into() }),
            OpenError::Tls { host: host(), error: io() },
            OpenError::TimedOut { host: host(), timeout },
            status(),
            OpenError::Upgrade { host: host(), reason: "the cause".into() },
        ];
        let failures = vec![
            OpenFailure::Unsigned { error: status(), unsigned },
            OpenFailure::Credentials { error: status(), explanation: "check them".into() },
            OpenFailure::StaleUrl(status()),
            OpenFailure::SessionGone,
        ];
        let failures = failures.into_iter().chain(opens.into_iter().map(OpenFailure::from));
        failures
            .map(|failure| GaveUp::from(failure).into())
            .chain([
                anyhow::Error::from(status()),
                connect().into(),
                proxy_error().into(),
                trust().into(),
                GaveUp::OpenTimeout { host: host(), timeout, reason: "the cause".into() }.into(),
                GaveUp::Reconnect { timeout, reason: "the cause".into() }.into(),
                GaveUp::SessionGone.into(),
                crate::files::FileError::from(io()).into(),
                crate::ca_bundle::BundleError::from(crate::files::FileError::from(io())).into(),
            ])
            .collect()
    }

    #[test]
    fn no_error_repeats_its_cause() {
        for error in all() {
            let text = format!("{error:#}");
            assert_eq!(text, error.to_string(), "with its causes and without");
            for part in text.split([':', ';', '(']).map(str::trim) {
                let count = text.matches(part).count();
                assert!(
                    count == 1 || part.len() < "the cause".len(),
                    "{part:?} is there {count} times: {text}"
                );
            }
        }
    }
}
