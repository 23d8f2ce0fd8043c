//! Start of additional sessions: StartSession with a request, up to a link that opens when it is polled for events.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};

use super::access::Access;
use super::live::LiveSession;
use crate::aws::{self, AwsError, ErrorKind};
use crate::link::stream_url::StreamUrlError;
use crate::link::{self, Link, Network};

/// The start of one session.
pub(super) type Starting = Pin<Box<dyn Future<Output = Result<LiveSession, StartError>> + Send>>;

/// Starts sessions as the first was started: with the caller's request, credentials and network.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    pub aws: Arc<aws::Client>,
    pub network: Arc<Network>,
    pub config: link::Config,
    pub request: Arc<Value>,
}

impl Starter {
    /// The way to AWS of its sessions.
    pub(crate) fn access(&self) -> Access {
        Access { network: Arc::clone(&self.network), aws: Arc::clone(&self.aws) }
    }

    /// The same with another request.
    pub(super) fn with(&self, request: Value) -> Starter {
        Starter { request: Arc::new(request), ..self.clone() }
    }

    /// Starts a port session.
    pub(super) fn start(&self) -> Starting {
        let Starter { aws, network, config, request } = self.clone();
        Box::pin(async move {
            let opened = match aws.start(&request).await {
                // The cached credentials may have expired: this call looks for new ones.
                Err(error) if error.kind == ErrorKind::BadCredentials => aws.start(&request).await?,
                opened => opened?,
            };
            let url = network.stream_url(&opened.stream_url)?;
            let (id, token) = (opened.session_id, Arc::new(opened.token));
            let session_id = id.clone();
            let target = link::Target {
                session_id,
                url,
                token,
                network,
                aws: Some(Arc::clone(&aws)),
                sign_first: true,
            };
            Ok(LiveSession::new(id, Link::new(config, target), aws))
        })
    }
}

/// The request for a session.
pub(crate) fn request(
    target: &str,
    document: Option<&str>,
    parameters: Option<Value>,
    reason: Option<&str>,
) -> Value {
    let mut request = json!({ "Target": target });
    let fields = [
        ("DocumentName", document.map(Value::from)),
        ("Parameters", parameters),
        ("Reason", reason.map(Value::from)),
    ];
    for (name, value) in fields {
        value.into_iter().for_each(|value| request[name] = value);
    }
    request
}

/// Reason that a session was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// StartSession failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Its answer names an address that may not be opened.
    #[error(transparent)]
    Url(#[from] StreamUrlError),
}

impl StartError {
    /// Returns whether another attempt may succeed without a change: the instance is still starting, the network is down.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            StartError::Aws(error) => {
                use ErrorKind::{TargetNotConnected, Throttled, Unreachable};
                matches!(error.kind, Unreachable | Throttled | TargetNotConnected)
            }
            StartError::Url(_) => false,
        }
    }

    /// Returns whether the target's agent is not connected to the service.
    pub(super) fn is_not_connected(&self) -> bool {
        matches!(self, StartError::Aws(error) if error.kind == ErrorKind::TargetNotConnected)
    }

    /// Returns advice on a cause for which no other attempt is made.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            StartError::Aws(error) => match error.kind {
                ErrorKind::NoCredentials => Some("sign in, for example with aws sso login, then try again"),
                ErrorKind::BadCredentials => {
                    Some("sign in again, for example with aws sso login, then retry")
                }
                ErrorKind::Denied => {
                    Some("ask your administrator to allow ssm:StartSession on this target and document")
                }
                ErrorKind::TargetNotConnected => Some(
                    "check the target, the region and the profile, or use --wait to wait until it is connected",
                ),
                _ => None,
            },
            StartError::Url(_) => None,
        }
    }
}
