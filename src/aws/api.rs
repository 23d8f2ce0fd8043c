//! The calls of a session, made in another way than by the AWS SDK.

use std::fmt;
use std::pin::Pin;

use serde_json::Value;

use super::error::AwsError;
use crate::protocol::{DataKey, DataKeyRequest};
use crate::secret::Secret;

/// A session that may be opened.
#[derive(Debug)]
pub struct StartSessionOutput {
    /// Its id.
    pub session_id: String,
    /// Stream URL; not checked.
    pub stream_url: String,
    /// With what.
    pub token: Secret,
}

/// A call on its way.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, AwsError>> + Send + 'a>>;

/// Makes the calls of sessions for [`Client::with_api`](super::Client::with_api): through a broker that holds the
/// credentials, or within one process. Websockets are opened unsigned then; the token opens the session.
///
/// The error's [`ErrorKind`](super::ErrorKind) decides what happens next, as documented there. The implementation bounds
/// the time of its calls.
pub trait Api: fmt::Debug + Send + Sync {
    /// Starts a session: `ssm:StartSession` with this request.
    fn start(&self, request: &Value) -> Call<'_, StartSessionOutput>;

    /// Gets a new token and stream URL: `ssm:ResumeSession`.
    fn resume(&self, session_id: &str) -> Call<'_, StartSessionOutput>;

    /// Ends a session: `ssm:TerminateSession`.
    fn terminate(&self, session_id: &str) -> Call<'_, ()>;

    /// Gets a data key for an encrypted session: `kms:GenerateDataKey`.
    fn data_key(&self, session_id: &str, request: &DataKeyRequest) -> Call<'_, DataKey>;
}
