//! Calls to SSM and KMS, and signatures for the websocket.

use std::collections::VecDeque;
use std::sync::{self, Arc};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use super::api::{Api, StartSessionOutput};
use super::config::{self, AwsContext};
use super::credentials::{CachedCredentials, Sources};
use super::error::{AwsError, ErrorKind};
use super::retries::Retries;
use super::{credentials, endpoint, files, sign};
use crate::panics;
use crate::printable::is_printable;
use crate::protocol::{DATA_KEY_LENGTH, DataKey, DataKeyRequest};
use crate::secret::Secret;

/// The credentials that a client signs with, without their secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the access key.
    pub access_key: String,
    /// They have a session token.
    pub is_temporary: bool,
    /// When they expire; `None`: never, or unknown.
    pub expiry: Option<SystemTime>,
    /// The AWS CLI has left them in its cache.
    pub is_from_cli: bool,
}

impl Identity {
    /// The access key's id, shortened: it is not a secret, but a part is enough to recognize it.
    pub(crate) fn shortened_key(&self) -> String {
        let id: Vec<char> = self.access_key.chars().collect();
        match (id.first_chunk::<4>(), id.last_chunk::<4>()) {
            (Some(first), Some(last)) if id.len() > 8 => {
                format!("{}...{}", String::from_iter(first), String::from_iter(last))
            }
            _ => self.access_key.clone(),
        }
    }
}

/// One caller's way to AWS.
#[derive(Debug)]
pub struct Client {
    context: AwsContext,
    loaded: OnceCell<LoadedConfig>,
    cached: Mutex<Option<CachedCredentials>>,
    notes: Notes,
    /// Makes the calls of sessions in place of the SDK.
    api: Option<Arc<dyn Api>>,
}

#[derive(Debug)]
struct LoadedConfig {
    config: SdkConfig,
    retries: Retries,
}

/// Small things that calls leave behind.
#[derive(Debug, Default)]
struct Notes(sync::Mutex<NotesInner>);

#[derive(Debug, Default)]
struct NotesInner {
    /// A setting that cannot be used.
    warning: Option<String>,
    /// The access key that the service has rejected last: a copy of it in a cache is not used again.
    rejected: Option<String>,
    /// The newest of the sessions that this client has started and not ended.
    started: VecDeque<String>,
}

impl Notes {
    fn lock(&self) -> sync::MutexGuard<'_, NotesInner> {
        self.0.lock().unwrap_or_else(sync::PoisonError::into_inner)
    }
}

impl Client {
    /// Creates a client. Nothing is read or sent before the first call.
    pub fn new(context: AwsContext) -> Client {
        let (loaded, cached) = (OnceCell::new(), Mutex::new(None));
        Client { context, loaded, cached, notes: Notes::default(), api: None }
    }

    /// A client that makes the calls of sessions by `api`. It has no credentials, signs nothing, and reads neither files
    /// nor the environment.
    pub fn with_api(api: Arc<dyn Api>) -> Client {
        Client { api: Some(api), ..Client::new(AwsContext::default()) }
    }

    /// Takes the warning about the user's retry settings, which is there after the first call that reads them.
    pub fn take_warning(&self) -> Option<String> {
        self.notes.lock().warning.take()
    }

    /// Ids of the newest sessions that [`Client::start`] has started and [`Client::terminate`] has not ended. The agent
    /// may have ended them.
    pub fn started(&self) -> Vec<String> {
        self.notes.lock().started.iter().cloned().collect()
    }

    /// The same for another target of the same account, with the credentials found so far.
    pub fn for_target(self, target: &str) -> Client {
        let context = AwsContext { target: Some(target.to_owned()), ..self.context };
        Client { context, ..self }
    }

    /// The headers that sign the opening of `url` as it will be asked for.
    ///
    /// # Errors
    /// Mostly that there are no credentials. It takes seven seconds at most to know that.
    pub async fn sign(&self, url: &Url) -> Result<HeaderMap, AwsError> {
        const CALL: &str = "signing the connection";
        if self.api.is_some() {
            return Ok(HeaderMap::new());
        }
        contained(CALL, async {
            let (loaded, found) = self.ready(CALL, SIGNING_LOOK_UP).await?;
            let region = loaded.config.region().map(|region| region.as_ref()).unwrap_or_default();
            sign::headers(url, region, &found.credentials, SystemTime::now())
                .map_err(|reason| AwsError::new(CALL, ErrorKind::Refused, reason))
        })
        .await
    }

    /// Configuration and credentials for a call that is signed elsewhere.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub(super) async fn for_signing(
        &self,
        call: &'static str,
        wait: Duration,
    ) -> Result<(&SdkConfig, Credentials), AwsError> {
        let (loaded, found) = self.ready(call, wait).await?;
        Ok((&loaded.config, found.credentials))
    }

    /// The endpoint that the caller or the environment names for a service, by its own variable or that for all.
    pub(super) fn endpoint_for(&self, variable: &str) -> Option<String> {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let caller = self.context.endpoint.clone();
        caller.or_else(|| named(variable)).or_else(|| named("AWS_ENDPOINT_URL"))
    }

    /// The credentials that the next call is signed with.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn identity(&self) -> Result<Identity, AwsError> {
        const CALL: &str = "looking up credentials";
        contained(CALL, async {
            let (_, CachedCredentials { credentials, is_from_cli, .. }) =
                self.ready(CALL, SIGNING_LOOK_UP).await?;
            Ok(Identity {
                access_key: credentials.access_key_id().to_owned(),
                is_temporary: credentials.session_token().is_some(),
                expiry: credentials.expiry(),
                is_from_cli,
            })
        })
        .await
    }

    /// A new token and a new stream URL for a session.
    ///
    /// # Errors
    /// See [`AwsError`]; [`ErrorKind::SessionGone`] also when the service returns no token, which is how it reports that
    /// the session has timed out.
    pub async fn resume(&self, session_id: &str) -> Result<StartSessionOutput, AwsError> {
        const CALL: &str = "ssm:ResumeSession";
        if let Some(api) = &self.api {
            return api.resume(session_id).await;
        }
        let answer = contained(CALL, async {
            let (ssm, key) = self.ssm(CALL, RESUME_TIMEOUT).await?;
            let answer = ssm.resume_session().session_id(session_id).send();
            self.answer(CALL, &key, Box::pin(answer).await).await
        })
        .await?;
        let token = answer.token_value.filter(|token| !token.is_empty());
        let token =
            token.ok_or_else(|| AwsError::new(CALL, ErrorKind::SessionGone, "the session has timed out"))?;
        Ok(StartSessionOutput {
            session_id: session_id.to_owned(),
            stream_url: answer.stream_url.unwrap_or_default(),
            token: Secret::new(token),
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn terminate(&self, session_id: &str) -> Result<(), AwsError> {
        const CALL: &str = "ssm:TerminateSession";
        self.notes.lock().started.retain(|id| id != session_id);
        if let Some(api) = &self.api {
            return api.terminate(session_id).await;
        }
        contained(CALL, async {
            let (ssm, key) = self.ssm(CALL, TERMINATE_TIMEOUT).await?;
            let answer = ssm.terminate_session().session_id(session_id).send();
            self.answer(CALL, &key, Box::pin(answer).await).await.map(drop)
        })
        .await
    }

    /// Starts an additional session with the request of the first, as the AWS CLI made it.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn start(&self, request: &Value) -> Result<StartSessionOutput, AwsError> {
        const CALL: &str = "ssm:StartSession";
        let opened = match &self.api {
            Some(api) => api.start(request).await?,
            None => contained(CALL, self.start_uncontained(CALL, request)).await?,
        };
        let started = &mut self.notes.lock().started;
        started.truncate(MAX_STARTED - 1);
        started.push_front(opened.session_id.clone());
        Ok(opened)
    }

    async fn start_uncontained(
        &self,
        call: &'static str,
        request: &Value,
    ) -> Result<StartSessionOutput, AwsError> {
        let text = |name: &str| request.get(name).and_then(Value::as_str).map(str::to_owned);
        let (ssm, key) = self.ssm(call, START_TIMEOUT).await?;
        let mut start = ssm
            .start_session()
            .set_target(text("Target"))
            .set_document_name(text("DocumentName"))
            .set_reason(text("Reason"));
        let parameters = request.get("Parameters").and_then(Value::as_object);
        for (name, values) in parameters.into_iter().flatten() {
            let values = values.as_array().into_iter().flatten();
            let values = values.filter_map(|value| value.as_str().map(str::to_owned)).collect();
            start = start.parameters(name, values);
        }
        let answer = self.answer(call, &key, Box::pin(start.send()).await).await?;
        match (answer.session_id, answer.stream_url, answer.token_value) {
            (Some(session_id), ..) if !is_printable(&session_id) => {
                Err(AwsError::new(call, ErrorKind::Refused, "the session's id contains control characters"))
            }
            (Some(session_id), Some(stream_url), Some(token)) => {
                Ok(StartSessionOutput { session_id, stream_url, token: Secret::new(token) })
            }
            _ => Err(AwsError::new(call, ErrorKind::Refused, "the response is incomplete")),
        }
    }

    /// A data key for a session's encryption. The agent can decrypt it only with exactly this context.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn data_key(&self, session_id: &str, request: &DataKeyRequest) -> Result<DataKey, AwsError> {
        const CALL: &str = "kms:GenerateDataKey";
        if let Some(api) = &self.api {
            return api.data_key(session_id, request).await;
        }
        contained(CALL, self.data_key_uncontained(CALL, session_id, request)).await
    }

    async fn data_key_uncontained(
        &self,
        call: &'static str,
        session_id: &str,
        request: &DataKeyRequest,
    ) -> Result<DataKey, AwsError> {
        let refused = |reason: String| AwsError::new(call, ErrorKind::Refused, reason);
        let Some(target) = self.context.target.as_deref() else {
            return Err(refused("the caller did not name the session's target".into()));
        };
        let (loaded, found) = self.ready(call, CALL_LOOK_UP).await?;
        let key = found.credentials.access_key_id().to_owned();
        let kms = aws_sdk_kms::config::Builder::from(&loaded.config)
            .credentials_provider(found.credentials)
            .retry_config(loaded.retries.over(RetryConfig::standard()))
            .timeout_config(timeouts(KMS_TIMEOUT))
            .build();
        let mut generate = aws_sdk_kms::Client::from_conf(kms)
            .generate_data_key()
            .key_id(&request.key_id)
            .number_of_bytes(DATA_KEY_LENGTH as i32)
            .encryption_context("aws:ssm:SessionId", session_id)
            .encryption_context("aws:ssm:TargetId", target);
        if let Some(challenge) = &request.challenge {
            generate = generate.encryption_context("aws:ssm:RandomChallenge", challenge);
        }
        let answer = self.answer(call, &key, Box::pin(generate.send()).await).await?;
        let mut given = answer.plaintext.map(|blob| Zeroizing::new(blob.into_inner())).unwrap_or_default();
        let mut plaintext = Zeroizing::new([0; DATA_KEY_LENGTH]);
        if given.len() != plaintext.len() {
            return Err(refused(format!("the key has {} bytes instead of {DATA_KEY_LENGTH}", given.len())));
        }
        plaintext.copy_from_slice(&given);
        given.zeroize();
        let ciphertext = answer.ciphertext_blob.map(|blob| blob.into_inner()).unwrap_or_default();
        Ok(DataKey { plaintext, ciphertext })
    }

    /// The SDK's configuration for a single attempt at a call, with the access key that it signs with.
    pub(super) async fn config(
        &self,
        call: &'static str,
        wait: Duration,
    ) -> Result<(SdkConfig, String), AwsError> {
        let (loaded, CachedCredentials { credentials, .. }) = self.ready(call, CALL_LOOK_UP).await?;
        let key = credentials.access_key_id().to_owned();
        let config = loaded.config.to_builder();
        let config = config
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(wait))
            .build();
        Ok((config, key))
    }

    /// The profile that the caller named.
    pub(super) fn profile(&self) -> Option<&str> {
        self.context.profile.as_deref()
    }

    /// A client for SSM, with the access key that it signs with.
    pub(super) async fn ssm(
        &self,
        call: &'static str,
        wait: Duration,
    ) -> Result<(aws_sdk_ssm::Client, String), AwsError> {
        let (loaded, CachedCredentials { credentials, .. }) = self.ready(call, CALL_LOOK_UP).await?;
        let key = credentials.access_key_id().to_owned();
        let AwsContext { endpoint, target, .. } = &self.context;
        let endpoint = endpoint::for_ssm(
            endpoint.as_deref(),
            target.as_deref(),
            config::has_endpoint_for_ssm(&self.context),
        );
        let mut config = aws_sdk_ssm::config::Builder::from(&loaded.config)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(wait));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok((aws_sdk_ssm::Client::from_conf(config.build()), key))
    }

    async fn ready(
        &self,
        call: &'static str,
        wait: Duration,
    ) -> Result<(&LoadedConfig, CachedCredentials), AwsError> {
        if self.api.is_some() {
            return Err(AwsError::new(
                call,
                ErrorKind::NoCredentials,
                "the program's own client has no credentials",
            ));
        }
        let is_fresh = |cached: &&CachedCredentials| cached.is_fresh(SystemTime::now());
        let own = self.context.credentials.as_ref();
        if own.is_none() && self.cached.lock().await.as_ref().filter(is_fresh).is_none() {
            // Each time: the files are read again below, and may have been fixed since. Not under the lock: an
            // opening that is given up is no longer polled, and its session still has to be ended.
            files::check().await.map_err(|reason| AwsError::new(call, ErrorKind::UnreadableFile, reason))?;
        }
        let loaded =
            self.loaded.get_or_init(|| Box::pin(LoadedConfig::new(&self.context, &self.notes))).await;
        let mut cached = self.cached.lock().await;
        if let Some(fresh) = cached.as_ref().filter(is_fresh) {
            return Ok((loaded, fresh.clone()));
        }
        if let Some(own) = own {
            let found = credentials::load_own(call, own, wait).await?;
            *cached = Some(found.clone());
            return Ok((loaded, found));
        }
        let sources = Sources {
            config: &loaded.config,
            retries: &loaded.retries,
            profile: self.context.profile.as_deref(),
            rejected: self.notes.lock().rejected.clone(),
        };
        // The SDK's futures take a hundred kilobytes: on the stack, each of ours around them would hold a copy.
        let found = Box::pin(credentials::load(call, sources, wait)).await?;
        *cached = Some(found.clone());
        Ok((loaded, found))
    }

    /// An answer, or why there is none. Credentials that the service does not take are not used again.
    pub(super) async fn answer<T, E>(
        &self,
        call: &'static str,
        access_key: &str,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => AwsError::sdk(call, &error),
        };
        if error.kind == ErrorKind::BadCredentials {
            *self.cached.lock().await = None;
            self.notes.lock().rejected = Some(access_key.to_owned());
        }
        Err(error)
    }
}

impl LoadedConfig {
    async fn new(context: &AwsContext, notes: &Notes) -> LoadedConfig {
        let config = config::load(context).await;
        let retries = config::retries(context).await;
        notes.lock().warning.clone_from(&retries.warning);
        LoadedConfig { config, retries }
    }
}

/// Runs a call. A panic in it, mostly the SDK's about a setting, is its error.
pub(super) async fn contained<T>(
    call: &'static str,
    work: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    match panics::contain(work).await {
        Ok(result) => result,
        Err(panic) => Err(AwsError::new(call, ErrorKind::Internal, panic)),
    }
}

fn timeouts(whole: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(whole).build()
}

/// The opening does not wait longer: without a signature it may still succeed. Long enough for a credential process
/// or a call to SSO; the metadata service, which people on laptops do not have, is asked for a second at most.
pub(super) const SIGNING_LOOK_UP: Duration = Duration::from_secs(5);
/// For calls that cannot do without credentials.
const CALL_LOOK_UP: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt; a lost connection has its own backoff.
const RESUME_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that the end of a run waits for it (`session::shutdown`).
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(4);
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The agent waits 15 seconds for the answer that needs the key.
const KMS_TIMEOUT: Duration = Duration::from_secs(12);
/// Sessions of one client: a port's lanes, to 32 destinations.
const MAX_STARTED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_the_call_only() {
        let error = contained::<()>("ssm:Call", async { panic!("a secret") }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        let text = error.to_string();
        assert!(text.starts_with("ssm:Call failed: internal error") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn keys_are_shortened() {
        for (id, shortened) in [("AKIAIOSFODNN7EXAMPLE", "AKIA...MPLE"), ("sim", "sim"), ("", "")] {
            let identity =
                Identity { access_key: id.to_owned(), is_temporary: false, expiry: None, is_from_cli: false };
            assert_eq!(identity.shortened_key(), shortened);
        }
    }
}
