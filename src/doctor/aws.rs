//! Whose credentials, for which region.

use aws_config::profile::ProfileSet;

use super::network::Way;
use super::{Check, Options};
use crate::aws::{AwsContext, Client, HttpsProxy, Trouble};
use crate::secret::Secret;
use crate::settings::Settings;

/// What environment and profile say.
#[derive(Debug)]
pub(super) struct Place {
    pub region: Option<String>,
    region_from: String,
    profile: String,
    /// Where the profile's name comes from; `None`: nobody named one.
    profile_from: Option<&'static str>,
    files: Result<ProfileSet, String>,
    pub ca_bundle: Option<std::path::PathBuf>,
}

pub(super) async fn place(options: &Options) -> Place {
    let named = match &options.profile {
        Some(profile) => Some((profile.clone(), "--profile")),
        None => first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]),
    };
    let (profile, profile_from) = match named {
        Some((profile, from)) => (profile, Some(from)),
        None => ("default".to_owned(), None),
    };
    let name = profile_from.map(|_| profile.as_str());
    let files = crate::aws::profiles(name).await;
    let (region, region_from) = region_of(options, files.as_ref().ok(), &profile);
    let ca_bundle = match &files {
        Ok(_) => crate::aws::ca_bundle(name).await,
        // Would wait for the same file again.
        Err(_) => None,
    };
    Place { region, region_from, profile, profile_from, files, ca_bundle }
}

fn region_of(options: &Options, files: Option<&ProfileSet>, profile: &str) -> (Option<String>, String) {
    if let Some(region) = &options.region {
        return (Some(region.clone()), "--region".to_owned());
    }
    if let Some((region, name)) = first(&[CLI_2_ONLY, BOTH_CLIS]) {
        return (Some(region), name.to_owned());
    }
    let region = files.and_then(|files| files.get("region")).filter(|region| !region.is_empty());
    (region.map(str::to_owned), format!("profile {profile}"))
}

pub(super) fn region(place: &Place, options: &Options, cli: &Check) -> Check {
    const NAME: &str = "region";
    let is_cli_1 = cli.found.contains("aws-cli/1.");
    match &place.region {
        Some(region) if !is_region(region) => {
            Check::failure(NAME, format!("{region:?} from {} is no region", place.region_from))
                .advice("regions look like eu-west-1")
        }
        Some(region) if is_cli_1 && place.region_from == CLI_2_ONLY && first(&[BOTH_CLIS]).is_none() => {
            Check::warning(NAME, format!("{region}, from {CLI_2_ONLY}, which the AWS CLI 1 does not read"))
                .advice(format!("set {BOTH_CLIS} as well"))
        }
        Some(region) => Check::ok(NAME, format!("{region}, from {}", place.region_from)),
        None if options.url.is_some() => Check::skipped(NAME, "none; the URL is given"),
        None => Check::failure(NAME, "none: neither the environment nor the profile names one")
            .advice("set AWS_DEFAULT_REGION, or region in ~/.aws/config"),
    }
}

/// Whether there are credentials, asked for as a session would ask. Says whose, never the secret.
pub(super) async fn credentials(options: &Options, settings: &Settings, place: &Place, way: &Way) -> Check {
    const NAME: &str = "credentials";
    if settings.skip_client_configure {
        return Check::skipped(NAME, "SSM_PLUGIN_SKIP_CLIENT_CONFIGURE is set: none are looked for");
    }
    let files = match &place.files {
        Ok(files) => files,
        Err(reason) => {
            return Check::failure(NAME, format!("the profiles cannot be read: {reason}"))
                .advice("mend ~/.aws/config and ~/.aws/credentials");
        }
    };
    if let Some(from) = place.profile_from
        && files.get_profile(&place.profile).is_none()
    {
        let mut known: Vec<&str> = files.profiles().collect();
        known.sort_unstable();
        known.truncate(MAX_PROFILES);
        return Check::failure(NAME, format!("there is no profile {:?}, which {from} names", place.profile))
            .advice(format!(
                "profiles are: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ));
    }
    let source = source(options, place, files);
    let Some(url) = way.for_signing() else {
        return Check::skipped(NAME, format!("{source}; no region to try them in"));
    };
    let proxy = way.network.proxy();
    let context = AwsContext {
        region: place.region.clone().unwrap_or_default(),
        profile: place.profile_from.map(|_| place.profile.clone()),
        ca_bundle: way.network.ca_bundle().cloned(),
        proxy: proxy
            .https()
            .map(|url| HttpsProxy { url: Secret::new(url.to_owned()), except: proxy.no_proxy(443) }),
        ..AwsContext::default()
    };
    match Client::new(context).sign(&url).await {
        Ok(headers) => {
            let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
            let kind = if headers.contains_key("x-amz-security-token") { "temporary" } else { "long-lived" };
            let key = authorization.map(key_of).unwrap_or_default();
            Check::ok(NAME, format!("{source}; {kind} access key {key}"))
        }
        Err(error) => {
            let check = Check::failure(NAME, format!("{source}; {error}"));
            check.advice(match error.trouble {
                Trouble::NoCredentials if source.contains("SSO") => {
                    format!("aws sso login --profile {}", place.profile)
                }
                Trouble::NoCredentials => {
                    "aws configure, or aws sso login, or a role for this machine".to_owned()
                }
                _ => "try aws sts get-caller-identity with the same settings".to_owned(),
            })
        }
    }
}

/// Where the chain will look first that has something.
fn source(options: &Options, place: &Place, files: &ProfileSet) -> String {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if options.profile.is_none() && is_set("AWS_ACCESS_KEY_ID") {
        return "AWS_ACCESS_KEY_ID in the environment".to_owned();
    }
    let profile = &place.profile;
    let has = |key: &str| files.get(key).is_some();
    for (key, kind) in PROFILE_KEYS {
        if has(key) {
            return format!("profile {profile} ({kind})");
        }
    }
    for (name, kind) in ENVIRONMENT {
        if is_set(name) {
            return kind.to_owned();
        }
    }
    "neither keys nor a profile with credentials: the metadata service is left".to_owned()
}

/// The access key's id in an `Authorization` header, shortened. It is no secret, but nobody needs the whole.
fn key_of(authorization: &str) -> String {
    let id = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
    let id: Vec<char> = id.chars().take_while(char::is_ascii_alphanumeric).collect();
    match (id.first_chunk::<4>(), id.last_chunk::<4>()) {
        (Some(first), Some(last)) if id.len() > 8 => {
            format!("{}...{}", String::from_iter(first), String::from_iter(last))
        }
        _ => String::from_iter(id),
    }
}

fn first(names: &[&'static str]) -> Option<(String, &'static str)> {
    names.iter().find_map(|name| {
        let value = std::env::var(name).ok()?.trim().to_owned();
        (!value.is_empty()).then_some((value, *name))
    })
}

/// Whether it may stand in a host's name.
fn is_region(region: &str) -> bool {
    region.len() <= 40
        && region.contains('-')
        && region.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-')
}

const CLI_2_ONLY: &str = "AWS_REGION";
const BOTH_CLIS: &str = "AWS_DEFAULT_REGION";
/// In the order in which the SDK looks at a profile.
const PROFILE_KEYS: [(&str, &str); 7] = [
    ("role_arn", "a role"),
    ("web_identity_token_file", "a web identity"),
    ("sso_session", "SSO"),
    ("sso_start_url", "SSO"),
    ("login_session", "aws login"),
    ("credential_process", "a process"),
    ("aws_access_key_id", "keys"),
];
const ENVIRONMENT: [(&str, &str); 3] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity of the environment"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "the container's role"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "the container's role"),
];
/// Profiles that are listed.
const MAX_PROFILES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shortened() {
        let header = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20251009/eu-west-1/x, Signature=0";
        assert_eq!(key_of(header), "AKIA...MPLE");
        assert_eq!(key_of("Credential=sim/2025"), "sim");
        assert_eq!(key_of(""), "");
    }

    #[test]
    fn regions() {
        assert!(is_region("eu-west-1") && is_region("us-gov-east-1") && is_region("sim-1"));
        for region in ["", "eu west", "EU-WEST-1", "eu-west-1.evil.example", "world"] {
            assert!(!is_region(region), "{region}");
        }
    }
}
