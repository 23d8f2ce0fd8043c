//! Credentials: their source, and whether they can be had.

use std::time::SystemTime;

use aws_config::profile::ProfileSet;
use aws_smithy_types::date_time::{DateTime, Format};

use super::identity::{CONFIG_FILE, Identity};
use super::network::Route;
use super::options::Options;
use super::report::{Check, Status};
use crate::aws::{self, AwsContext, Client, ErrorKind};
use crate::link;
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
        proxy: link::https_proxy(&route.network, &url),
        ..AwsContext::default()
    };
    let client = Client::new(context);
    let signed = client.sign(&url).await;
    let used = match signed {
        Ok(_) => client.identity().await,
        Err(error) => Err(error),
    };
    match (used, client.take_warning()) {
        (Ok(used), Some(warning)) => Check::warning(NAME, format!("{source}{}; {warning}", described(&used)))
            .advice("set retry_mode = standard and max_attempts to a number, or remove both"),
        (Ok(used), None) => Check::ok(NAME, format!("{source}{}", described(&used))),
        (Err(error), _) => {
            let check = Check::failure(NAME, format!("{source}; {error}"));
            check.advice(match error.kind {
                ErrorKind::NoCredentials if source.contains("SSO") => {
                    format!("aws sso login --profile {}", identity.profile)
                }
                ErrorKind::NoCredentials => {
                    "run aws configure or aws sso login, or give this machine a role".to_owned()
                }
                ErrorKind::SignInNeeded => {
                    format!(
                        "run aws sts get-caller-identity --profile {}, which asks for the code",
                        identity.profile
                    )
                }
                _ => "try aws sts get-caller-identity with the same settings".to_owned(),
            })
        }
    }
}

/// The credentials that were found, to follow their source: the key's id, and when they expire.
fn described(used: &aws::Identity) -> String {
    let cache = if used.is_from_cli { ", from the AWS CLI's cache" } else { "" };
    let kind = if used.is_temporary { "temporary" } else { "long-lived" };
    let expiry = used.expiry.map(|expiry| {
        let minutes = expiry.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 60;
        let time = DateTime::from(expiry).fmt(Format::DateTime).unwrap_or_default();
        format!(", expires in {minutes} min ({time})")
    });
    let expiry = expiry.unwrap_or_default();
    format!("{cache}; {kind} access key {}{expiry}", shortened(&used.access_key))
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

/// An access key's id, shortened: it is not a secret, but a part is enough to recognize it.
fn shortened(id: &str) -> String {
    let id: Vec<char> = id.chars().collect();
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
        assert_eq!(shortened("AKIAIOSFODNN7EXAMPLE"), "AKIA...MPLE");
        assert_eq!(shortened("sim"), "sim");
        assert_eq!(shortened(""), "");
    }
}
