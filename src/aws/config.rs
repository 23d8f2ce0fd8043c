//! Region, endpoint and HTTP client for the SDK's clients.

use std::path::PathBuf;

use aws_config::profile::ProfileSet;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::os_shim_internal::{Env, Fs};

use super::retries::Retries;
use super::route::{Route, http_client};
use super::{endpoint, files};
use crate::panics;

/// AWS settings of the caller.
#[derive(Clone, Debug, Default)]
pub struct AwsContext {
    /// The session's region. Empty: the environment's or the profile's.
    pub region: String,
    /// The profile, `None` for the default.
    pub profile: Option<String>,
    /// The endpoint of the service that made the session: of SSM, or of ECS.
    pub endpoint: Option<String>,
    /// The session's target, as the request has it.
    pub target: Option<String>,
    /// The way of calls.
    pub route: Route,
    /// The credentials to sign with. With these, the environment and the AWS CLI's files are not read, and the region above
    /// counts alone.
    pub credentials: Option<SharedCredentialsProvider>,
}

/// The file of certificates to trust that the selected profile names. The SDK for Rust does not read it, nor
/// `AWS_CA_BUNDLE`, which comes before it.
pub fn ca_bundle(files: &ProfileSet) -> Option<PathBuf> {
    files.get("ca_bundle").map(str::trim).filter(|path| !path.is_empty()).map(files::expanded)
}

/// Reads the profile files for [`ca_bundle`].
pub async fn read_ca_bundle(profile: Option<&str>) -> Option<PathBuf> {
    profiles(profile).await.ok().as_ref().and_then(ca_bundle)
}

/// Reads the SDK's configuration, whose files must have been looked at ([`files::check`]). Nothing is waited for.
pub(super) async fn load(context: &AwsContext) -> SdkConfig {
    let http = http_client(context.route.clone());
    if context.credentials.is_some() {
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard())
            .region(Region::new(context.region.clone()));
        config.set_endpoint_url(endpoint::for_all(context.endpoint.as_deref()));
        return config.build();
    }
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .no_credentials()
        // The loader would read the user's, and panics on what it cannot read.
        .retry_config(RetryConfig::standard())
        .region(region(context).await);
    if let Some(profile) = &context.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// The user's retry settings.
pub(super) async fn retries(context: &AwsContext) -> Retries {
    if context.credentials.is_some() {
        return Retries::default();
    }
    let profiles = read_profiles(context.profile.as_deref()).await.ok();
    Retries::read(|name| std::env::var_os(name), profiles.as_ref())
}

/// Returns whether the environment names an endpoint that SSM would use, where it counts.
pub(super) fn has_endpoint_for_ssm(context: &AwsContext) -> bool {
    context.credentials.is_none()
        && ["AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The caller's, or that of the environment or the profile. Not the metadata service's: the caller knew one.
async fn region(context: &AwsContext) -> Option<Region> {
    match named_region(Some(context.region.clone())) {
        Some(region) => Some(Region::new(region)),
        None => {
            // Looked at already by who loads.
            let files = read_profiles(context.profile.as_deref()).await.ok()?;
            files.get("region").map(|region| Region::new(region.to_owned()))
        }
    }
}

/// The profiles of the user's files, `profile` selected in them.
///
/// # Errors
/// What is wrong with the files: their text, or that one cannot be read without waiting for it.
pub async fn profiles(profile: Option<&str>) -> Result<ProfileSet, String> {
    files::check().await?;
    panics::contain(read_profiles(profile)).await.unwrap_or_else(|panic| Err(panic.to_string()))
}

/// Returns the names of the configured profiles in order, at most [`MAX_PROFILES`].
pub fn profile_names(files: &ProfileSet) -> Vec<&str> {
    let mut names: Vec<&str> = files.profiles().collect();
    names.sort_unstable();
    names.truncate(MAX_PROFILES);
    names
}

/// Returns the profile that is named on the command line, or else by the environment.
pub fn profile_name(named: Option<String>) -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    named.or_else(|| variable("AWS_PROFILE")).or_else(|| variable("AWS_DEFAULT_PROFILE"))
}

/// Returns the region of the calls that this process makes: the one that is `named` on the command line, or else by the
/// environment or the selected profile.
pub fn region_in_effect(named: Option<String>, files: Option<&ProfileSet>) -> Option<String> {
    named_region(named)
        .or_else(|| files?.get("region").filter(|region| !region.is_empty()).map(str::to_owned))
}

/// The region that is `named` on the command line, or else by the environment.
pub fn named_region(named: Option<String>) -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = named.filter(|region| !region.is_empty());
    named.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"))
}

/// As [`profiles`], of files that were checked.
pub(super) async fn read_profiles(profile: Option<&str>) -> Result<ProfileSet, String> {
    let name = profile.map(|name| name.to_owned().into());
    let loaded = aws_config::profile::load(&Fs::real(), &Env::real(), &Default::default(), name).await;
    loaded
        .inspect_err(|error| tracing::warn!(%error, "cannot read the profiles"))
        .map_err(|error| error.to_string())
}

const MAX_PROFILES: usize = 20;
