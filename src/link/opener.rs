//! One attempt to get a websocket: a new token where one is needed, the signature, the connection.
//!
//! ```text
//! first     sign + dial ─▶ upgrade             (SSM_PLUGIN_SKIP_CLIENT_CONFIGURE: dial ─▶ upgrade)
//! again     ResumeSession ─▶ sign + dial ─▶ upgrade
//!               └─ refused: the old token and URL are tried as long as there is time
//! ```
//!
//! Credentials are looked up while names are resolved and TCP, proxy and TLS are set up (dial): only the upgrade request
//! carries the signature.
//!
//! With a presigned URL, or without access to AWS: the same token and URL each time, unsigned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::error::{OpenError, OpenFailure};
use super::network::Network;
use super::network_changes::Subscription;
use super::refusal;
use super::stream_url::{self, StreamUrlError};
use super::websocket::{self, Dial, Socket};
use crate::aws::{self, AwsError, ErrorKind};
use crate::secret::Secret;

/// The session to connect to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The session's id, for ResumeSession.
    pub session_id: String,
    /// A checked stream URL, see [`Network::stream_url`].
    pub url: Url,
    /// The token that the opening frame presents.
    pub token: Arc<Secret>,
    /// Network settings: stream hosts, proxy, trust.
    pub network: Arc<Network>,
    /// Signs the opening and gets new tokens; `None` opens unsigned, always with the same token.
    pub aws: Option<Arc<aws::Client>>,
    /// True if credentials are looked up to sign the opening with the first token. Later ones are signed in any
    /// case.
    pub sign_first: bool,
}

/// The outcome of an attempt.
pub(super) struct AttemptOutcome {
    /// For the next one.
    pub opener: Opener,
    pub outcome: Result<Socket, OpenFailure>,
    /// A problem that did not decide the outcome, but that the user may want to know of.
    pub warning: Option<String>,
}

pub(super) type Opening = Pin<Box<dyn Future<Output = AttemptOutcome> + Send>>;

/// Makes attempts, and knows the newest token and URL.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    target: Target,
    /// When a token arrived that has not been presented yet; `None` for the first token.
    unused: Option<Instant>,
    /// The warning about unreadable or expired credentials has been given; it is given once.
    unreadable_is_reported: bool,
}

impl Opener {
    pub(super) fn new(target: Target) -> Opener {
        Opener { target, unused: None, unreadable_is_reported: false }
    }

    /// Subscribes to changes of the machine's network.
    pub(super) fn network_changes(&self) -> Subscription {
        self.target.network.changes()
    }

    /// The token that the websocket of the last attempt is to be opened with. It counts as used from here on.
    pub(super) fn take_token(&mut self) -> Arc<Secret> {
        self.unused = None;
        Arc::clone(&self.target.token)
    }

    /// Starts an attempt; `again` if the session's first token has been used. It ends before `open_by`.
    pub(super) fn open(mut self, again: bool, open_by: Option<Instant>) -> Opening {
        Box::pin(async move {
            let refusal = if again { Box::pin(self.resume()).await.err() } else { None };
            if let Some(Refusal::Aws(AwsError { kind: ErrorKind::SessionGone, .. })) = &refusal {
                return AttemptOutcome {
                    opener: self,
                    outcome: Err(OpenFailure::SessionGone),
                    warning: None,
                };
            }
            let dial = Dial { url: self.target.url.clone(), network: Arc::clone(&self.target.network) };
            let mut unsigned = None;
            let signature = Box::pin(async {
                self.sign(again, refusal.as_ref()).await.unwrap_or_else(|error| {
                    tracing::info!(%error, "opening without a signature");
                    unsigned = Some(error);
                    HeaderMap::new()
                })
            });
            let outcome = websocket::open(dial, signature, open_by).await;
            let warning = self.warning(refusal.as_ref(), unsigned.as_ref());
            let outcome = match outcome {
                Ok(socket) => Ok(socket),
                Err(error) => Err(Box::pin(self.explained(error, unsigned, again)).await),
            };
            AttemptOutcome { opener: self, outcome, warning }
        })
    }

    /// The failure with the reason for a refusal, as far as AWS tells it: for signed requests by a call to STS.
    async fn explained(&self, error: OpenError, unsigned: Option<AwsError>, again: bool) -> OpenFailure {
        let OpenError::Status { status: 401 | 403, reason, .. } = &error else {
            return OpenFailure::Websocket(error);
        };
        if reason.as_deref().is_some_and(refusal::is_about_url) {
            return OpenFailure::StaleUrl(error);
        }
        if let Some(unsigned) = unsigned {
            return OpenFailure::Unsigned { error, unsigned };
        }
        let Some(aws) = self.aws().filter(|_| self.target.sign_first && !again) else {
            return OpenFailure::Websocket(error);
        };
        let check = aws.check_command();
        let explanation = match reason {
            Some(_) => match aws.identity().await {
                Ok(identity) => format!(
                    "the request was signed with the access key {}; run {check} to check the credentials",
                    identity.shortened_key()
                ),
                Err(_) => format!("run {check} to check the credentials"),
            },
            None => match tokio::time::timeout(EXPLANATION_TIMEOUT, aws.caller()).await {
                Ok(Ok(caller)) => format!(
                    "the request was signed by {}; check that this identity belongs to the session's account ({check} shows the current one)",
                    caller.arn
                ),
                Ok(Err(error)) if error.kind == ErrorKind::BadCredentials => {
                    format!("{error}; run {check} to check the credentials")
                }
                Ok(Err(_)) | Err(_) => format!("run {check} to check the credentials"),
            },
        };
        OpenFailure::Credentials { error, explanation }
    }

    /// A line for the user about what did not work, apart from the outcome.
    fn warning(&mut self, refusal: Option<&Refusal>, unsigned: Option<&AwsError>) -> Option<String> {
        match (refusal, unsigned) {
            (Some(refusal), _) => refusal.is_news().then(|| refusal.to_string()),
            // Users without credentials know it; users with a broken file, or whose sign-in has expired, do not expect
            // to go unsigned.
            (None, Some(error))
                if matches!(
                    error.kind,
                    ErrorKind::UnreadableFile
                        | ErrorKind::SignInNeeded
                        | ErrorKind::UnsafeCache
                        | ErrorKind::Internal
                ) =>
            {
                let is_news = !std::mem::replace(&mut self.unreadable_is_reported, true);
                is_news.then(|| format!("{error}; opening without a signature"))
            }
            _ => None,
        }
        .or_else(|| self.target.aws.as_ref()?.take_warning())
    }

    /// Gets a new token and URL, unless there are some that a failed dial has left.
    async fn resume(&mut self) -> Result<(), Refusal> {
        let Some(aws) = self.aws() else { return Ok(()) };
        if self.unused.is_some_and(|since| since.elapsed() < TOKEN_LIFE) {
            return Ok(());
        }
        let opened = match aws.resume(&self.target.session_id).await {
            // The kept credentials may be old: this call looks for new ones.
            Err(error) if error.kind == ErrorKind::BadCredentials => {
                aws.resume(&self.target.session_id).await
            }
            opened => opened,
        };
        let opened = opened.map_err(|error| {
            tracing::info!(%error, "no new token");
            Refusal::Aws(error)
        })?;
        // An answer without a URL leaves the old one.
        if !opened.stream_url.is_empty() {
            self.target.url = self.target.network.stream_url(&opened.stream_url).map_err(Refusal::Url)?;
        }
        self.target.token = Arc::new(opened.token);
        self.unused = Some(Instant::now());
        Ok(())
    }

    async fn sign(&self, again: bool, refusal: Option<&Refusal>) -> Result<HeaderMap, AwsError> {
        match (self.aws(), refusal) {
            (None, _) => Ok(HeaderMap::new()),
            (Some(_), _) if !again && !self.target.sign_first => Ok(HeaderMap::new()),
            // Looking again now would find none either.
            (Some(_), Some(Refusal::Aws(error)))
                if matches!(
                    error.kind,
                    ErrorKind::NoCredentials
                        | ErrorKind::UnreadableFile
                        | ErrorKind::SignInNeeded
                        | ErrorKind::UnsafeCache
                ) =>
            {
                Err(error.clone())
            }
            (Some(aws), _) => aws.sign(&self.target.url).await,
        }
    }

    fn aws(&self) -> Option<&aws::Client> {
        self.target.aws.as_deref().filter(|_| !stream_url::is_presigned(&self.target.url))
    }
}

/// Reason that there is no new token.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot get a new token for the session, retrying with the current one: {0}")]
    Aws(AwsError),
    #[error("cannot resume the session at the URL that the service returned: {0}")]
    Url(StreamUrlError),
}

impl Refusal {
    /// Returns whether the connection's own failure does not say it already.
    fn is_news(&self) -> bool {
        !matches!(self, Refusal::Aws(AwsError { kind: ErrorKind::Unreachable | ErrorKind::Throttled, .. }))
    }
}

/// The failure is reported without an explanation when STS takes longer to answer.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Time that an unused token is assumed to stay valid.
const TOKEN_LIFE: Duration = Duration::from_secs(30);
