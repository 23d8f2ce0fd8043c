//! Credentials: their source, and whether they can be had.

use aws_config::profile::ProfileSet;

use super::identity::{CONFIG_FILE, Identity};
use super::network::Route;
use super::options::Options;
use super::report::{Check, Status};
use crate::aws::{AwsContext, Client, ErrorKind};
use crate::settings::Settings;

/// Whether there are credentials, looked up as a session would. Names their source, never the secret.
pub(super) async fn check(
    options: &Options,
    settings: &Settings,
    identity: &Identity,
    route: &Route,
) -> Check {
    let mut check = look_up(options, identity, route).await;
    if settings.skip_client_configure {
        check.found += "\nSSM_PLUGIN_SKIP_CLIENT_CONFIGURE is set: credentials are used to resume, end and \
                        encrypt sessions, not to open the first connection";
        if check.status == Status::Failure {
            check.status = Status::Warning;
        }
    }
    check
}

async fn look_up(options: &Options, identity: &Identity, route: &Route) -> Check {
    const NAME: &str = "credentials";
    let files = match &identity.files {
        Ok(files) => files,
        Err(reason) => {
            return Check::failure(NAME, format!("cannot read the profiles: {reason}"))
                .advice(format!("fix {CONFIG_FILE} and {CREDENTIALS_FILE}"));
        }
    };
    if let Some(from) = identity.profile_from
        && files.get_profile(&identity.profile).is_none()
    {
        let mut known: Vec<&str> = files.profiles().collect();
        known.sort_unstable();
        known.truncate(MAX_PROFILES);
        return Check::failure(
            NAME,
            format!("there is no profile {:?}, which {from} names", identity.profile),
        )
        .advice(format!(
            "profiles are: {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ));
    }
    let source = source(options, identity, files);
    let Some(url) = route.for_signing() else {
        return Check::skipped(NAME, format!("{source}; no region to try them in"));
    };
    let context = AwsContext {
        region: identity.region.clone().unwrap_or_default(),
        profile: identity.profile_from.map(|_| identity.profile.clone()),
        ca_bundle: route.network.ca_bundle().cloned(),
        proxy: route.network.https_proxy(&url),
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
            check.advice(match error.kind {
                ErrorKind::NoCredentials if source.contains("SSO") => {
                    format!("aws sso login --profile {}", identity.profile)
                }
                ErrorKind::NoCredentials => {
                    "run aws configure or aws sso login, or give this machine a role".to_owned()
                }
                _ => "try aws sts get-caller-identity with the same settings".to_owned(),
            })
        }
    }
}

/// The first source of the credential chain that has something.
fn source(options: &Options, identity: &Identity, files: &ProfileSet) -> String {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if options.profile.is_none() && is_set("AWS_ACCESS_KEY_ID") {
        return "AWS_ACCESS_KEY_ID in the environment".to_owned();
    }
    let profile = &identity.profile;
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
    "neither keys nor a profile with credentials; only the metadata service remains".to_owned()
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

const CREDENTIALS_FILE: &str =
    if cfg!(windows) { r"%USERPROFILE%\.aws\credentials" } else { "~/.aws/credentials" };
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
}
