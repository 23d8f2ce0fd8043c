//! Region, endpoint, trust and proxy for the SDK's clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use aws_config::profile::ProfileSet;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_types::os_shim_internal::{Env, Fs};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;

use super::body_limit::limited;
use super::retries::Retries;
use super::route::{Route, RoutedConnector};
use super::{endpoint, files};
use crate::secret::Secret;
use crate::{ca_bundle, panics};

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
    /// A PEM file of certificates to trust instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// For `https` endpoints.
    pub proxy: Option<HttpsProxy>,
    /// The credentials to sign with. With these, the environment and the AWS CLI's files are not read, and the region above
    /// counts alone.
    pub credentials: Option<SharedCredentialsProvider>,
}

/// A proxy for `https` destinations.
#[derive(Clone, Debug)]
pub struct HttpsProxy {
    /// Its URL as the user wrote it; it may hold a password.
    pub url: Secret,
    /// The rules of `NO_PROXY`.
    pub except: String,
    /// The way through a proxy that the SDK's HTTP client does not speak to; it knows the rules.
    pub route: Option<Route>,
}

/// The file of certificates to trust that a profile names. The SDK for Rust does not read it, nor
/// `AWS_CA_BUNDLE`, which comes before it.
pub async fn ca_bundle(profile: Option<&str>) -> Option<PathBuf> {
    let path = profiles(profile).await.ok()?.get("ca_bundle")?.trim().to_owned();
    (!path.is_empty()).then(|| files::expanded(&path))
}

/// Reads the SDK's configuration, whose files must have been looked at ([`files::check`]). Nothing is waited for.
///
/// # Errors
/// When the certificates to trust cannot be read.
pub(super) async fn load(context: &AwsContext) -> anyhow::Result<SdkConfig> {
    let http = http_client(context)?;
    if context.credentials.is_some() {
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard())
            .region(Region::new(context.region.clone()));
        config.set_endpoint_url(endpoint::for_all(context.endpoint.as_deref()));
        return Ok(config.build());
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
    Ok(loader.load().await)
}

/// The SDK's HTTP client, with the caller's trust and proxy.
///
/// # Errors
/// When the certificates to trust cannot be read.
fn http_client(context: &AwsContext) -> anyhow::Result<SharedHttpClient> {
    let trust = match &context.ca_bundle {
        Some(path) => trust_store(path)?,
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build().context("cannot set up TLS")?;
    let route = context.proxy.as_ref().and_then(|proxy| proxy.route.clone());
    let proxy = match &context.proxy {
        Some(proxy) if route.is_none() => proxy_config(proxy)?,
        _ => ProxyConfig::disabled(),
    };
    let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = aws_smithy_http_client::Connector::builder()
            .proxy_config(proxy.clone())
            .pool_idle_timeout(IDLE_CONNECTION);
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
    });
    // The library's client would read the trust store whenever one of the many credential providers is made.
    Ok(http_client_fn(move |settings, components| {
        limited(match &route {
            Some(route) => SharedHttpConnector::new(RoutedConnector {
                route: route.clone(),
                plain: http.http_connector(settings, components),
                connect_timeout: settings.connect_timeout(),
                read_timeout: settings.read_timeout(),
            }),
            None => http.http_connector(settings, components),
        })
    }))
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
/// environment or the profile.
pub async fn region_in_effect(named: Option<String>, profile: Option<&str>) -> Option<String> {
    if let Some(region) = named_region(named) {
        return Some(region);
    }
    profiles(profile).await.ok()?.get("region").filter(|region| !region.is_empty()).map(str::to_owned)
}

fn named_region(named: Option<String>) -> Option<String> {
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

/// The certificates of the file, and no others. The SDK's client would panic on one it cannot read: such are left out
/// here.
fn trust_store(path: &Path) -> anyhow::Result<TrustStore> {
    let name = path.display();
    let certificates =
        ca_bundle::read(path).with_context(|| format!("cannot read the CA certificates in {name}"))?;
    let mut trust = TrustStore::empty();
    let mut usable = 0;
    for certificate in certificates {
        if rustls::RootCertStore::empty().add(certificate.clone()).is_ok() {
            usable += 1;
            trust.add_pem_certificate(pem(&certificate));
        }
    }
    anyhow::ensure!(usable > 0, "there is no CA certificate in {name}");
    Ok(trust)
}

/// Metadata services, which have `http` endpoints, are always reached directly.
fn proxy_config(proxy: &HttpsProxy) -> anyhow::Result<ProxyConfig> {
    let url = proxy.url.expose();
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    // The error would repeat the URL, and so its password.
    let config = ProxyConfig::https(url).map_err(|_| anyhow::anyhow!(UNUSABLE_PROXY))?;
    Ok(config.no_proxy(&proxy.except))
}

fn pem(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in BASE64_STANDARD.encode(certificate).as_bytes().chunks(PEM_LINE) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text.into_bytes()
}

const UNUSABLE_PROXY: &str =
    "calls to AWS need a proxy with an http:// or https:// URL, which neither HTTPS_PROXY nor ALL_PROXY has";
/// Characters in a line of PEM (RFC 7468).
/// Time for which an idle connection is kept, for calls that follow one another. A later call may come because the path has
/// gone dead, and the connection with it.
const IDLE_CONNECTION: Duration = Duration::from_secs(2);
const PEM_LINE: usize = 64;
const MAX_PROFILES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_checked_before_the_sdk_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let error = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            format!("{:#}", trust_store(&path).unwrap_err())
        };
        let unusable = error(b"no certificate");
        assert!(unusable.starts_with("cannot read the CA certificates in"), "{unusable}");
        let nonsense = pem(&CertificateDer::from([0x30, 3, 2, 1, 1].as_slice()));
        assert!(error(&nonsense).starts_with("there is no CA certificate in"));
        let missing = format!("{:#}", trust_store(&dir.path().join("absent")).unwrap_err());
        assert!(missing.starts_with("cannot read the CA certificates in"), "{missing}");
    }
}
