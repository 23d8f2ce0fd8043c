//! Errors of the library.

use crate::aws::{AwsError, ErrorKind};
use crate::link::{GaveUp, OpenError, OpenFailure};
use crate::printable::one_line;
use crate::session::{EmbeddedError, End, StartError};

/// Reason that a session could not be started, or has ended.
///
/// No text holds a token, a secret key or a proxy's password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of the builder that cannot be used.
    #[error("{0}")]
    InvalidArgument(String),
    /// The credentials do not allow the call.
    #[error(transparent)]
    AccessDenied(AwsError),
    /// There are no credentials, or the service rejects them as expired or unknown.
    #[error(transparent)]
    Credentials(AwsError),
    /// The target's agent is not connected to the service, or not yet.
    #[error(transparent)]
    TargetNotConnected(AwsError),
    /// The service asks for fewer calls.
    #[error(transparent)]
    Throttled(AwsError),
    /// The service did not answer, or asked to try again later.
    #[error(transparent)]
    Unreachable(AwsError),
    /// The service refuses the request for any other reason.
    #[error(transparent)]
    Service(AwsError),
    /// Another socket has the address to listen on.
    #[error("{0}")]
    PortInUse(String),
    /// The address cannot be listened on for any other reason.
    #[error("{0}")]
    Listen(String),
    /// The connection to the service could not be opened because it was refused for good: by a proxy, the service or TLS.
    #[error("{0}")]
    Refused(String),
    /// The connection to the service could not be opened in time, or was lost and did not come back.
    #[error("{0}")]
    ConnectionLost(String),
    /// The session has ended at the service, with its reason.
    #[error("the session has ended: {0}")]
    SessionEnded(String),
    /// The account encrypts sessions, and KMS returned no data key for this one.
    #[error("{0}")]
    Encryption(String),
    /// The agent does not support the session.
    #[error("{0}")]
    Unsupported(String),
    /// Too many connections wait to be taken.
    #[error("too many connections are waiting for a session")]
    TooManyConnections,
    /// The command's output is longer than [`max_output`](crate::remote_command::CommandBuilder::max_output) allows.
    #[error("the command's output is longer than {0} bytes")]
    OutputTooLong(usize),
    /// It was closed here.
    #[error("closed")]
    Closed,
    /// An error of this library or of this machine: no thread, no descriptors, a bug.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns whether the same call may succeed later without any change by the user: the instance is starting, the network is
    /// down, the service is busy, the session has ended.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::TargetNotConnected(_)
            | Error::Throttled(_)
            | Error::Unreachable(_)
            | Error::ConnectionLost(_)
            | Error::SessionEnded(_)
            | Error::TooManyConnections => true,
            Error::InvalidArgument(_)
            | Error::AccessDenied(_)
            | Error::Credentials(_)
            | Error::Service(_)
            | Error::PortInUse(_)
            | Error::Listen(_)
            | Error::Refused(_)
            | Error::Encryption(_)
            | Error::Unsupported(_)
            | Error::OutputTooLong(_)
            | Error::Closed
            | Error::Internal(_) => false,
        }
    }
}

impl Error {
    /// The service has closed the session for this reason, which may be empty.
    pub(crate) fn ended(reason: &str) -> Error {
        let reason = reason.trim();
        let reason = if reason.is_empty() { CLOSED.to_owned() } else { one_line(reason) };
        Error::SessionEnded(reason)
    }
}

impl From<AwsError> for Error {
    fn from(error: AwsError) -> Error {
        match error.kind {
            ErrorKind::Denied => Error::AccessDenied(error),
            ErrorKind::NoCredentials
            | ErrorKind::UnreadableFile
            | ErrorKind::SignInNeeded
            | ErrorKind::UnsafeCache
            | ErrorKind::BadCredentials => Error::Credentials(error),
            ErrorKind::TargetNotConnected => Error::TargetNotConnected(error),
            ErrorKind::Throttled => Error::Throttled(error),
            ErrorKind::Unreachable => Error::Unreachable(error),
            ErrorKind::SessionGone => Error::SessionEnded(error.to_string()),
            ErrorKind::UnknownDocument | ErrorKind::Refused => Error::Service(error),
            ErrorKind::Internal => Error::Internal(error.to_string()),
        }
    }
}

impl From<EmbeddedError> for Error {
    fn from(error: EmbeddedError) -> Error {
        match error {
            EmbeddedError::Listen(error) if error.is_in_use() => Error::PortInUse(error.to_string()),
            EmbeddedError::Listen(error) => Error::Listen(error.to_string()),
            EmbeddedError::Start(StartError::Aws(error)) => error.into(),
            EmbeddedError::Start(error @ StartError::Url(_)) => Error::Refused(error.to_string()),
            EmbeddedError::GaveUp(reason) => reason.into(),
            EmbeddedError::Closed(reason) => Error::ended(&reason),
            EmbeddedError::Failed(reason) => Error::ConnectionLost(reason),
            EmbeddedError::Key(_) => Error::Encryption(error.to_string()),
            EmbeddedError::Unsupported(reason) => Error::Unsupported(reason.to_owned()),
        }
    }
}

impl From<GaveUp> for Error {
    fn from(reason: GaveUp) -> Error {
        let text = reason.to_string();
        match reason {
            GaveUp::SessionGone | GaveUp::Open(OpenFailure::SessionGone) => Error::SessionEnded(text),
            GaveUp::Open(OpenFailure::Unsigned { unsigned, .. }) => Error::Credentials(unsigned),
            GaveUp::Open(OpenFailure::Websocket(OpenError::Tls { .. } | OpenError::Trust(_))) => {
                Error::Refused(text)
            }
            GaveUp::Open(failure) if failure.is_permanent() => Error::Refused(text),
            GaveUp::Open(_) | GaveUp::OpenTimeout { .. } | GaveUp::Reconnect { .. } => {
                Error::ConnectionLost(text)
            }
        }
    }
}

impl From<End> for Error {
    fn from(end: End) -> Error {
        match end {
            End::Closed(reason) => Error::ended(&reason),
            End::TimedOut => Error::SessionEnded("it has timed out".to_owned()),
            End::NotStarted(reason) | End::Failed(reason) => Error::ConnectionLost(reason),
            End::Finished | End::ReaderGone | End::Interrupted | End::Terminated => Error::Closed,
        }
    }
}

const CLOSED: &str = "closed by the service";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_errors_and_retries() {
        let of = |kind| Error::from(AwsError::new("ssm:StartSession", kind, "a reason"));
        assert!(
            matches!(of(ErrorKind::Denied), Error::AccessDenied(_)) && !of(ErrorKind::Denied).is_retryable()
        );
        assert!(of(ErrorKind::TargetNotConnected).is_retryable() && of(ErrorKind::Throttled).is_retryable());
        assert!(of(ErrorKind::Unreachable).is_retryable() && !of(ErrorKind::BadCredentials).is_retryable());
        assert_eq!(of(ErrorKind::Denied).to_string(), "ssm:StartSession failed: a reason");
        let ended = Error::from(End::Closed("idle\r\nfor too long\n".to_owned()));
        assert!(ended.is_retryable() && !ended.to_string().contains('\n'), "{ended}");
        assert_eq!(
            Error::from(End::Closed(String::new())).to_string(),
            "the session has ended: closed by the service"
        );
        let lost = GaveUp::OpenTimeout {
            host: "h".into(),
            timeout: std::time::Duration::from_secs(1),
            reason: "r".into(),
        };
        assert!(Error::from(lost).is_retryable());
        let refused = OpenError::Status { host: "h".into(), status: 407, reason: None };
        assert!(!Error::from(GaveUp::Open(refused.into())).is_retryable());
    }
}
