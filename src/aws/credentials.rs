//! The lookup of credentials, and those that are kept.

use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_types::error::display::DisplayErrorContext;

use super::cli_cache::{self, Found};
use super::error::{AwsError, ErrorKind};
use super::files::{self, NamedFile};
use super::retries::Retries;
use super::{config, process_input};

/// Source of credentials.
pub(super) struct Sources<'a> {
    pub config: &'a SdkConfig,
    pub retries: &'a Retries,
    /// The caller's profile.
    pub profile: Option<&'a str>,
    /// An access key of the AWS CLI's cache that the service has rejected.
    pub rejected: Option<String>,
}

/// Looks the credentials up anew: files, environment, caches and processes are read again, so that a login made since
/// counts. The profile files must have been checked.
///
/// # Errors
/// That there are none, that the lookup took longer than `wait`, or that only the AWS CLI can get new ones.
pub(super) async fn load(
    call: &'static str,
    sources: Sources<'_>,
    wait: Duration,
) -> Result<CachedCredentials, AwsError> {
    let found =
        |credentials, is_from_cli| CachedCredentials { credentials, is_from_cli, since: Instant::now() };
    let look = async {
        // The first of the default chain, without the clients that the rest of it makes.
        if named(sources.profile).is_none()
            && let Ok(credentials) = EnvironmentVariableCredentialsProvider::new().provide_credentials().await
        {
            return Ok(found(credentials, false));
        }
        // A file that cannot be parsed is reported by the SDK.
        let profiles = config::read_profiles(sources.profile).await.ok();
        if let Some(profiles) = &profiles {
            match cli_cache::look_up(profiles, sources.rejected.as_deref(), SystemTime::now()).await {
                Found::Credentials(credentials) => return Ok(found(credentials, true)),
                Found::SignInNeeded(reason) => {
                    return Err(AwsError::new(call, ErrorKind::SignInNeeded, reason));
                }
                Found::Unsafe(reason) => return Err(AwsError::new(call, ErrorKind::UnsafeCache, reason)),
                Found::Nothing => {}
            }
        }
        Ok(found(ask(call, chain(&sources, profiles.as_ref())).await?, false))
    };
    match tokio::time::timeout(wait, look).await {
        Ok(found) => {
            let found = found?;
            check_access_key(call, &found.credentials)?;
            Ok(found)
        }
        Err(_) => Err(AwsError::credentials(call, &CredentialsError::provider_timed_out(wait))),
    }
}

/// Asks the embedding program's own provider.
///
/// # Errors
/// As [`load`].
pub(super) async fn load_own(
    call: &'static str,
    provider: &SharedCredentialsProvider,
    wait: Duration,
) -> Result<CachedCredentials, AwsError> {
    let credentials = match tokio::time::timeout(wait, provider.provide_credentials()).await {
        Ok(credentials) => credentials,
        Err(_) => Err(CredentialsError::provider_timed_out(wait)),
    };
    let credentials = credentials.map_err(|error| AwsError::credentials(call, &error))?;
    check_access_key(call, &credentials)?;
    Ok(CachedCredentials { credentials, is_from_cli: false, since: Instant::now() })
}

/// Credentials, and when they were looked up.
#[derive(Clone, Debug)]
pub(super) struct CachedCredentials {
    pub credentials: Credentials,
    /// They are those that the AWS CLI has left in its cache.
    pub is_from_cli: bool,
    pub since: Instant,
}

impl CachedCredentials {
    /// Returns whether they may be used without looking again. Those without an end are kept for one attempt
    /// only: looking them up is cheap, and only that shows a change.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        match self.credentials.expiry() {
            Some(expiry) => expiry > now + REFRESH_AHEAD,
            None => self.since.elapsed() < KEPT_WITHOUT_END,
        }
    }
}

/// A provider, and the file that it will open.
type Link = (&'static str, Option<NamedFile>, SharedCredentialsProvider);

/// Asks the providers in order, until one has credentials or fails.
async fn ask(call: &'static str, chain: Vec<Link>) -> Result<Credentials, AwsError> {
    for (name, file, provider) in chain {
        if let Some(file) = file {
            file.check().await.map_err(|reason| AwsError::new(call, ErrorKind::UnreadableFile, reason))?;
        }
        let outcome = provider.provide_credentials().await.inspect_err(
            |error| tracing::debug!(provider = name, error = %DisplayErrorContext(error), "no credentials"),
        );
        if !matches!(outcome, Err(CredentialsError::CredentialsNotLoaded(_))) {
            return outcome.map_err(|error| AwsError::credentials(call, &error));
        }
    }
    Err(AwsError::credentials(call, &CredentialsError::not_loaded_no_source()))
}

/// As the AWS CLI does it: a named profile comes before the environment's keys, one that is only the environment's
/// default comes after them. Made anew for each lookup, since the SDK's providers keep the profiles that they have read.
fn chain(sources: &Sources<'_>, profiles: Option<&ProfileSet>) -> Vec<Link> {
    let config = provider_config(sources);
    // One attempt: a machine that is not an instance should not wait long for the metadata service.
    let imds = imds::Client::builder()
        .configure(&config)
        .max_attempts(1)
        .connect_timeout(IMDS_CONNECT_TIMEOUT)
        .read_timeout(IMDS_READ_TIMEOUT)
        .build();
    let mut from_profile = ProfileFileCredentialsProvider::builder().configure(&config);
    if let Some(profile) = sources.profile {
        from_profile = from_profile.profile_name(profile);
    }
    if let Some(files) = process_input::profile_files() {
        from_profile = from_profile.profile_files(files);
    }
    let mut chain = vec![(
        "Profile",
        profiles.and_then(files::of_profiles),
        SharedCredentialsProvider::new(from_profile.build()),
    )];
    if named(sources.profile).is_none() {
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
        chain.push((
            "WebIdentityToken",
            files::of_web_identity(),
            SharedCredentialsProvider::new(web_identity),
        ));
    }
    let container = EcsCredentialsProvider::builder().configure(&config).build();
    let instance = ImdsCredentialsProvider::builder().configure(&config).imds_client(imds).build();
    chain.push(("EcsContainer", files::of_container(), SharedCredentialsProvider::new(container)));
    chain.push(("Ec2InstanceMetadata", None, SharedCredentialsProvider::new(instance)));
    chain
}

/// Checks that a signature can carry the access key: letters, digits and `_` (AWS's `accessKeyIdType`). A request that
/// is signed with anything else is refused where an unsigned one may not be.
fn check_access_key(call: &'static str, credentials: &Credentials) -> Result<(), AwsError> {
    let id = credentials.access_key_id();
    if !id.is_empty() && id.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Ok(());
    }
    Err(AwsError::new(
        call,
        ErrorKind::UnreadableFile,
        "the access key id is empty or contains characters other than letters, digits and _",
    ))
}

/// The profile, unless it is the environment's default.
fn named(profile: Option<&str>) -> Option<&str> {
    let is_set = |name: &str, profile: &str| std::env::var(name).is_ok_and(|value| value == profile);
    profile.filter(|profile| !is_set("AWS_PROFILE", profile) && !is_set("AWS_DEFAULT_PROFILE", profile))
}

/// Configuration of the calls that credential providers (STS, SSO) make.
fn provider_config(Sources { config, retries, .. }: &Sources<'_>) -> ProviderConfig {
    let base = ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_use_fips(config.use_fips())
        .with_use_dual_stack(config.use_dual_stack())
        .with_retry_config(retries.over(RetryConfig::standard().with_max_attempts(2)));
    match config.http_client() {
        Some(client) => base.with_http_client(client),
        None => base,
    }
}

/// Credentials are not used for calls so shortly before their end.
const REFRESH_AHEAD: Duration = Duration::from_secs(60);
const KEPT_WITHOUT_END: Duration = Duration::from_secs(5);
/// On an instance the metadata service answers at once.
const IMDS_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const IMDS_READ_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_kept_until_shortly_before_their_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let kept = |expiry: Option<Duration>, since: Instant| {
            let credentials = Credentials::new("a", "s", None, expiry.map(|left| now + left), "test");
            CachedCredentials { credentials, is_from_cli: false, since }.is_fresh(now)
        };
        let long_ago = Instant::now().checked_sub(KEPT_WITHOUT_END).unwrap();
        assert!(kept(Some(REFRESH_AHEAD + Duration::from_secs(1)), long_ago));
        assert!(!kept(Some(REFRESH_AHEAD), Instant::now()));
        assert!(!kept(None, long_ago));
        assert!(kept(None, Instant::now()));
    }
}
