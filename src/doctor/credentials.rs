//! Credentials: their source, and a test of them.

use std::time::SystemTime;

use aws_config::profile::ProfileSet;

use super::identity::{CONFIG_FILE, Identity};
use super::network::Route;
use super::options::Options;
use super::report::{Check, Status, time};
use crate::aws::{self, AwsContext, AwsError, Client, ErrorKind};
use crate::link;
use crate::settings::Settings;

/// Looks credentials up as a session would, and tests them. Reports their source, never the secret.
pub(super) async fn check(
    options: &Options,
    settings: &Settings,
    identity: &Identity,
    route: &Route,
    client: Option<&Client>,
) -> Check {
    let mut check = look_up(options, identity, route, client).await;
    if settings.skip_client_configure {
        check.found += "\nSSM_PLUGIN_SKIP_CLIENT_CONFIGURE is set: credentials are used only to resume, end and \
                        encrypt sessions, not to open the first connection";
        if check.status == Status::Failure {
            check.status = Status::Warning;
        }
    }
    check
}

/// A client for the user's region and profile, with the network of the route; `None` without a URL to sign for.
pub(super) fn client(identity: &Identity, route: &Route) -> Option<Client> {
    route.for_signing()?;
    Some(Client::new(AwsContext {
        region: identity.region.clone().unwrap_or_default(),
        profile: identity.profile_from.map(|_| identity.profile.clone()),
        route: link::route(&route.network),
        ..AwsContext::default()
    }))
}

async fn look_up(options: &Options, identity: &Identity, route: &Route, client: Option<&Client>) -> Check {
    let files = match &identity.files {
        Ok(files) => files,
        Err(reason) => {
            return Check::failure(NAME, format!("cannot read the profiles: {reason}"))
                .advice(format!("correct {CONFIG_FILE} or {CREDENTIALS_FILE}"));
        }
    };
    if let Some(from) = identity.profile_from
        && files.get_profile(&identity.profile).is_none()
    {
        let known = aws::profile_names(files);
        return Check::failure(
            NAME,
            format!("{from} names a profile that does not exist: {}", identity.profile),
        )
        .advice(if known.is_empty() {
            "no profiles are configured; run aws configure".to_owned()
        } else {
            format!("available profiles: {}", known.join(", "))
        });
    }
    let source = source(options, identity, files);
    if let Err(reason) = route.usable() {
        return Check::skipped(NAME, format!("{source}; not tested, {reason}"));
    }
    let Some(client) = client else {
        return Check::skipped(NAME, format!("{source}; cannot be tested without a region"));
    };
    let signed = match route.for_signing() {
        Some(url) => client.sign(&url).await.map(drop),
        None => Ok(()),
    };
    let used = match signed {
        Ok(()) => client.identity().await,
        Err(error) => Err(error),
    };
    let used = match used {
        Ok(used) => used,
        Err(error) if source == NO_SOURCE => {
            return not_found(identity, &source, &error, NO_CREDENTIALS.to_owned());
        }
        Err(error) => return not_found(identity, &source, &error, format!("{source}; {error}")),
    };
    let found = format!("{source}{}", described(&used));
    let check = match client.take_warning() {
        Some(warning) => {
            Check::warning(NAME, format!("{found}; {warning}")).advice("correct or remove that setting")
        }
        None => tested(client, &found).await,
    };
    let check = check
        .field("source", source)
        .field("access_key", used.shortened_key())
        .field("temporary", used.is_temporary);
    match used.expiry {
        Some(expiry) => check.field("expires", time(expiry)),
        None => check,
    }
}

/// Tests credentials: finding them does not mean that the service accepts them.
async fn tested(client: &Client, found: &str) -> Check {
    match client.caller().await {
        Ok(caller) => Check::ok(NAME, format!("{found}; {}", caller.arn))
            .field("account", caller.account)
            .field("arn", caller.arn),
        Err(error) => match error.kind {
            // The service has recognized them.
            ErrorKind::Denied => Check::ok(
                NAME,
                format!("{found}; sts:GetCallerIdentity is not allowed, but sessions do not need it"),
            ),
            ErrorKind::BadCredentials => Check::failure(NAME, format!("{found}; {error}")).advice(format!(
                "sign in again, or set valid keys; run {} to test the credentials with the AWS CLI",
                client.check_command()
            )),
            _ => Check::warning(NAME, format!("{found}; cannot be tested: {error}")).advice(format!(
                "sessions do not use STS, so ignore this if they work; otherwise, run {} to test the credentials with the AWS CLI",
                client.check_command()
            )),
        },
    }
}

fn not_found(identity: &Identity, source: &str, error: &AwsError, found: String) -> Check {
    Check::failure(NAME, found).advice(match error.kind {
        ErrorKind::NoCredentials if source.contains("SSO") => {
            format!("run aws sso login --profile {}", identity.profile)
        }
        ErrorKind::NoCredentials if source.contains("aws login") => {
            format!("run aws login --profile {}", identity.profile)
        }
        ErrorKind::NoCredentials if source.contains("credential_process") => {
            format!("run the credential_process command of profile {} to see why it fails", identity.profile)
        }
        ErrorKind::NoCredentials if source == NO_SOURCE => {
            "select a profile with --profile, run aws configure or aws configure sso, or attach a role to this machine"
                .to_owned()
        }
        // The AWS CLI would use the file and ask for nothing.
        ErrorKind::UnsafeCache => format!(
            "delete that file, then run aws sts get-caller-identity --profile {}, which asks for the MFA code",
            identity.profile
        ),
        ErrorKind::SignInNeeded => {
            format!(
                "run aws sts get-caller-identity --profile {}, which asks for the MFA code",
                identity.profile
            )
        }
        _ => "run aws sts get-caller-identity with the same settings, and compare the error".to_owned(),
    })
}

/// The credentials that were found, to follow their source: the key's id, and when they expire.
fn described(used: &aws::Identity) -> String {
    let cache = if used.is_from_cli { ", from the AWS CLI's cache" } else { "" };
    let kind = if used.is_temporary { "temporary" } else { "long-lived" };
    let expiry = used.expiry.map(|expiry| {
        let minutes = expiry.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 60;
        format!(", expires in {minutes} min ({})", time(expiry))
    });
    let expiry = expiry.unwrap_or_default();
    format!("{cache}; {kind} access key {}{expiry}", used.shortened_key())
}

/// The first source of the credential chain that is configured.
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
    NO_SOURCE.to_owned()
}

const NAME: &str = "credentials";
const NO_SOURCE: &str =
    "no keys and no profile with credentials, so the instance metadata service would be used";
const NO_CREDENTIALS: &str = "no credentials found (environment, profile, instance metadata)";
const CREDENTIALS_FILE: &str =
    if cfg!(windows) { r"%USERPROFILE%\.aws\credentials" } else { "~/.aws/credentials" };
/// In the order in which the SDK looks at a profile.
const PROFILE_KEYS: [(&str, &str); 7] = [
    ("role_arn", "a role"),
    ("web_identity_token_file", "a web identity"),
    ("sso_session", "SSO"),
    ("sso_start_url", "SSO"),
    ("login_session", "aws login"),
    ("credential_process", "credential_process"),
    ("aws_access_key_id", "access keys"),
];
const ENVIRONMENT: [(&str, &str); 3] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity from the environment"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "the container's role"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "the container's role"),
];
