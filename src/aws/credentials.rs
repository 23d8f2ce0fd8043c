//! Credentials and their cache.

use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

/// Looks the credentials up anew: files, environment, SSO cache and processes are read again, so that a login made
/// meanwhile counts.
pub(super) async fn look_up(
    config: &SdkConfig,
    provider_config: &ProviderConfig,
    profile: Option<&str>,
    wait: Duration,
) -> Result<Credentials, CredentialsError> {
    let look = async {
        // The first of the default chain, without the clients that the rest of it makes.
        if asked_for_by_name(profile).is_none()
            && let Ok(found) = EnvironmentVariableCredentialsProvider::new().provide_credentials().await
        {
            return Ok(found);
        }
        chain(config, provider_config, profile).await.provide_credentials().await
    };
    match tokio::time::timeout(wait, look).await {
        Ok(found) => found,
        Err(_) => Err(CredentialsError::provider_timed_out(wait)),
    }
}

/// Credentials, and when they were looked up.
#[derive(Debug)]
pub(super) struct CachedCredentials {
    pub credentials: Credentials,
    pub since: Instant,
}

impl CachedCredentials {
    /// Whether they may be used without looking again. Those without an end are kept for one attempt only: looking
    /// them up is cheap, and only that shows a change.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        match self.credentials.expiry() {
            Some(expiry) => expiry > now + REFRESH_AHEAD,
            None => self.since.elapsed() < KEPT_WITHOUT_END,
        }
    }
}

/// As the AWS CLI does it: a profile that was asked for by name comes before the environment's keys, one that is only
/// the environment's default comes after them.
async fn chain(
    config: &SdkConfig,
    provider_config: &ProviderConfig,
    profile: Option<&str>,
) -> SharedCredentialsProvider {
    // One attempt: a machine that is not an instance should not wait long for the metadata service.
    let imds = imds::Client::builder()
        .configure(provider_config)
        .max_attempts(1)
        .connect_timeout(IMDS_CONNECT_TIMEOUT)
        .read_timeout(IMDS_READ_TIMEOUT)
        .build();
    let Some(profile) = asked_for_by_name(profile) else {
        let mut chain = DefaultCredentialsChain::builder()
            .configure(provider_config.clone())
            .region(config.region().cloned())
            .imds_client(imds);
        if let Some(profile) = profile {
            chain = chain.profile_name(profile);
        }
        return SharedCredentialsProvider::new(chain.build().await);
    };
    let from_profile =
        ProfileFileCredentialsProvider::builder().configure(provider_config).profile_name(profile).build();
    let container = EcsCredentialsProvider::builder().configure(provider_config).build();
    let instance = ImdsCredentialsProvider::builder().configure(provider_config).imds_client(imds).build();
    SharedCredentialsProvider::new(
        CredentialsProviderChain::first_try("Profile", from_profile)
            .or_else("EcsContainer", container)
            .or_else("Ec2InstanceMetadata", instance),
    )
}

/// The profile, unless it is what the environment says anyway.
fn asked_for_by_name(profile: Option<&str>) -> Option<&str> {
    let says = |name: &str, profile: &str| std::env::var(name).is_ok_and(|value| value == profile);
    profile.filter(|profile| !says("AWS_PROFILE", profile) && !says("AWS_DEFAULT_PROFILE", profile))
}

/// How credential providers (STS, SSO) make their own calls.
pub(super) fn provider_config(config: &SdkConfig) -> ProviderConfig {
    let base = ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_use_fips(config.use_fips())
        .with_use_dual_stack(config.use_dual_stack())
        .with_retry_config(RetryConfig::standard().with_max_attempts(2));
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
            CachedCredentials { credentials, since }.is_fresh(now)
        };
        let long_ago = Instant::now().checked_sub(KEPT_WITHOUT_END).unwrap();
        assert!(kept(Some(REFRESH_AHEAD + Duration::from_secs(1)), long_ago));
        assert!(!kept(Some(REFRESH_AHEAD), Instant::now()));
        assert!(!kept(None, long_ago));
        assert!(kept(None, Instant::now()));
    }
}
