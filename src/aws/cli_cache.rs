//! Credentials that the AWS CLI has left in its cache, `~/.aws/cli/cache`, for roles and (CLI 2) IAM Identity Center.
//!
//! The CLI has just used them to start the session. Taking them saves the calls to STS or SSO, and is the only way to
//! sign for a role that needs an MFA code. A file's name is the SHA-1 of JSON that holds what the credentials were made
//! from (PROTOCOL.md section 7; botocore's `CachedCredentialFetcher` and its subclasses). The files are never written.

use std::fs::Metadata;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileSet;
use aws_credential_types::Credentials;
use aws_smithy_types::date_time::{DateTime, Format};
use serde::{Deserialize, Deserializer};
use sha1::{Digest as _, Sha1};
use zeroize::Zeroizing;

use crate::blocking;
use crate::files;
use crate::secret::Secret;

/// The outcome of a look into the cache.
#[derive(Debug)]
pub(super) enum Found {
    /// Valid for [`MIN_LIFE`] at least.
    Credentials(Credentials),
    /// New ones need an MFA code, which only the CLI asks for. The reason, with what to do.
    SignInNeeded(String),
    /// As above, and the cache is not used because other users have access to it.
    Unsafe(String),
    /// The profile is of another kind, or the SDK can get new ones.
    Nothing,
}

/// Looks for the credentials of the selected profile; `rejected` is an access key that is not taken.
pub(super) async fn look_up(profiles: &ProfileSet, rejected: Option<&str>, now: SystemTime) -> Found {
    let name = profiles.selected_profile();
    let Some(key) = key(profiles) else { return Found::Nothing };
    let rejected = rejected.map(str::to_owned);
    let place = file(&key).unwrap_or_default();
    let read = blocking::run("files", move || {
        let path = file(&key).ok_or_else(|| Unusable::Stale("there is no home directory".to_owned()))?;
        match read(&path, now)? {
            found if rejected.is_some_and(|rejected| found.access_key_id() == rejected) => {
                Err(Unusable::Stale("the service has rejected its credentials".to_owned()))
            }
            found => Ok(found),
        }
    });
    let unusable = match read.await {
        Ok(Ok(credentials)) => return Found::Credentials(credentials),
        Ok(Err(unusable)) => unusable,
        Err(error) => Unusable::Stale(error.to_string()),
    };
    tracing::debug!(%unusable, "the AWS CLI's cache is not used");
    let Some(mfa) = mfa_profile(profiles) else { return Found::Nothing };
    let through =
        if mfa == name { String::new() } else { format!(" (because of mfa_serial in profile {mfa})") };
    let needed = format!("profile {name} needs an MFA code{through}");
    match unusable {
        Unusable::Stale(_) => Found::SignInNeeded(format!("{needed}; {SIGN_IN}")),
        Unusable::Unsafe(reason) => Found::Unsafe(format!(
            "{needed}; the credentials that the AWS CLI has cached in {} are not used: {reason}",
            place.display()
        )),
    }
}

/// Reason that a file of the cache is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    /// Absent, expired, rejected or not credentials: the CLI makes another.
    #[error("{0}")]
    Stale(String),
    /// Another user may have written or read it: the CLI uses it all the same.
    #[error("{0}")]
    Unsafe(String),
}

/// Path of the file with this key. Its folder is fixed: no variable of the CLI changes it.
fn file(key: &str) -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".aws/cli/cache").join(format!("{key}.json")))
}

/// The profile in the selected one's chain of roles that needs an MFA code.
fn mfa_profile(profiles: &ProfileSet) -> Option<&str> {
    let mut name = profiles.selected_profile();
    for _ in 0..MAX_CHAIN {
        let profile = profiles.get_profile(name)?;
        // Keys come before a role in a profile that others name as their source.
        let is_source_with_keys =
            name != profiles.selected_profile() && profile.get("aws_access_key_id").is_some();
        if profile.get("role_arn").is_none()
            || profile.get("web_identity_token_file").is_some()
            || is_source_with_keys
        {
            return None;
        }
        if profile.get("mfa_serial").is_some() {
            return Some(name);
        }
        name = profile.get("source_profile").filter(|source| *source != name)?;
    }
    None
}

/// The key of the selected profile's credentials, `None` for a profile that the CLI keeps none for.
fn key(profiles: &ProfileSet) -> Option<String> {
    let profile = profiles.get_profile(profiles.selected_profile())?;
    let json = if let Some(role) = profile.get("role_arn") {
        if profile.get("web_identity_token_file").is_some() {
            return None;
        }
        let text = |name, key| Some((name, python_json(profile.get(key)?)));
        let duration = profile.get("duration_seconds").and_then(python_int);
        let session = profile.get("role_session_name").filter(|name| !name.is_empty());
        let members = [
            duration.map(|seconds| ("DurationSeconds", seconds.to_string())),
            text("ExternalId", "external_id"),
            Some(("RoleArn", python_json(role))),
            session.map(|name| ("RoleSessionName", python_json(name))),
            text("SerialNumber", "mfa_serial"),
        ];
        let members = members.into_iter().flatten().map(|(name, value)| format!("\"{name}\": {value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
    } else {
        let (account, role) = (profile.get("sso_account_id")?, profile.get("sso_role_name")?);
        let (name, value) = match profile.get("sso_session") {
            Some(session) => ("sessionName", session),
            None => ("startUrl", profile.get("sso_start_url")?),
        };
        let (account, role, value) = (python_json(account), python_json(role), python_json(value));
        format!("{{\"accountId\":{account},\"roleName\":{role},\"{name}\":{value}}}")
    };
    Some(Sha1::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A string as Python's `json.dumps` writes it: ASCII only.
fn python_json(text: &str) -> String {
    let mut json = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='~' => json.push(char),
            _ => json.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    json.push('"');
    json
}

/// An integer as Python's `int` reads it; the CLI leaves out what is not one.
fn python_int(text: &str) -> Option<i64> {
    text.trim().replace('_', "").parse().ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    credentials: Kept,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    access_key_id: String,
    #[serde(deserialize_with = "secret")]
    secret_access_key: Secret,
    #[serde(deserialize_with = "secret")]
    session_token: Secret,
    expiration: String,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Reads the credentials in a file that is this user's alone.
fn read(path: &Path, now: SystemTime) -> Result<Credentials, Unusable> {
    let stale = |reason: &str| Unusable::Stale(reason.to_owned());
    let failed = |error: io::Error| Unusable::Stale(error.to_string());
    let file = files::open_regular(path).map_err(|error| Unusable::Stale(error.to_string()))?;
    check_owner(&file.metadata().map_err(failed)?).map_err(Unusable::Unsafe)?;
    let mut json = Zeroizing::new(Vec::new());
    file.take(MAX_FILE).read_to_end(&mut json).map_err(failed)?;
    // serde's error may repeat what it has read.
    let Entry { credentials } =
        serde_json::from_slice(&json).map_err(|_| stale("it does not hold credentials"))?;
    let expiry = expiration(&credentials.expiration).ok_or_else(|| stale("its expiration is not a time"))?;
    if expiry < now + MIN_LIFE {
        return Err(stale("its credentials have expired, or will soon"));
    }
    Ok(Credentials::new(
        credentials.access_key_id,
        credentials.secret_access_key.expose(),
        Some(credentials.session_token.expose().to_owned()),
        Some(expiry),
        "AwsCliCache",
    ))
}

/// The CLI makes its files for their owner alone. One that others can write may hold their credentials.
#[cfg(unix)]
fn check_owner(metadata: &Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("the file belongs to another user".to_owned());
    }
    match metadata.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!("other users can read or write the file (mode {:o})", metadata.mode() & 0o777)),
    }
}

/// The user's profile folder is private on Windows.
#[cfg(not(unix))]
fn check_owner(_: &Metadata) -> Result<(), String> {
    Ok(())
}

/// A time as botocore writes it: `2026-01-31T23:59:59UTC` for roles, with `Z` for SSO.
fn expiration(text: &str) -> Option<SystemTime> {
    let text = match text.strip_suffix("UTC") {
        Some(time) => format!("{time}Z"),
        None => text.to_owned(),
    };
    DateTime::from_str(&text, Format::DateTimeWithOffset).ok()?.try_into().ok()
}

/// Less than the 15 minutes at which the CLI makes new ones, so what it has just used is taken.
pub(super) const MIN_LIFE: Duration = Duration::from_secs(5 * 60);
const SIGN_IN: &str = "run aws sts get-caller-identity with this profile to sign in again; the next attempt uses the new credentials";
/// Bytes. A session token has about a thousand.
const MAX_FILE: u64 = 64 << 10;
/// Roles that are assumed through roles; more is a circle.
const MAX_CHAIN: usize = 16;

#[cfg(test)]
mod tests {
    use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
    use aws_types::os_shim_internal::{Env, Fs};

    use super::*;

    async fn profiles(text: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, text).build();
        let name = Some("work".into());
        aws_config::profile::load(&Fs::real(), &Env::from_slice(&[]), &files, name).await.unwrap()
    }

    async fn key_of(keys: &str) -> Option<String> {
        key(&profiles(&format!("[profile work]\n{keys}")).await)
    }

    /// The keys are those that botocore's fetchers make (AWS CLI 1.46.3, and 2.9 where it has the kind).
    #[tokio::test]
    async fn keys_are_botocore_s() {
        let role = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n";
        for (keys, expected) in KEYS {
            let keys = keys.replace("ROLE", role);
            assert_eq!(key_of(&keys).await.as_deref(), Some(expected), "{keys}");
        }
        assert_eq!(key_of("region = eu-west-1\n").await, None);
        assert_eq!(key_of(&format!("{role}web_identity_token_file = x\n")).await, None);
    }

    #[tokio::test]
    async fn profiles_that_need_a_code() {
        let role = "role_arn = r\nsource_profile = base\n";
        for (text, expected) in [
            (format!("[profile work]\n{role}mfa_serial = m\n"), Some("work")),
            (format!("[profile work]\n{role}[profile base]\n{role}mfa_serial = m\n"), Some("base")),
            (
                format!(
                    "[profile work]\n{role}[profile base]\n{role}mfa_serial = m\naws_access_key_id = k\n"
                ),
                None,
            ),
            (format!("[profile work]\n{role}[profile base]\nmfa_serial = m\n"), None),
            ("[profile work]\nmfa_serial = m\n".to_owned(), None),
            // Circles.
            (format!("[profile work]\n{role}[profile base]\nrole_arn = r\nsource_profile = work\n"), None),
        ] {
            assert_eq!(mfa_profile(&profiles(&text).await), expected, "{text}");
        }
    }

    fn written(dir: &Path, expiration: &str, mode: u32) -> PathBuf {
        let path = dir.join("file.json");
        let json = format!(
            r#"{{"Credentials": {{"AccessKeyId": "ASIA", "SecretAccessKey": "s", "SessionToken": "t",
                "Expiration": "{expiration}"}}, "AssumedRoleUser": {{"Arn": "a"}}}}"#
        );
        std::fs::write(&path, json).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let _ = mode;
        path
    }

    #[test]
    fn files_that_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        // 2026-01-31T23:59:59Z
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_903_999);
        let now = end - MIN_LIFE;
        for expiration in ["2026-01-31T23:59:59UTC", "2026-01-31T23:59:59Z", "2026-01-31T23:59:59+00:00"] {
            let path = written(dir.path(), expiration, 0o600);
            let found = read(&path, now).unwrap();
            assert_eq!((found.access_key_id(), found.session_token()), ("ASIA", Some("t")));
            assert_eq!(found.expiry(), Some(end), "{expiration}");
            assert!(read(&path, now + Duration::from_secs(1)).is_err());
        }
        assert!(read(&written(dir.path(), "soon", 0o600), now).is_err());
        assert!(read(&dir.path().join("absent"), now).is_err());
        assert!(read(dir.path(), now).is_err());
        let nonsense = dir.path().join("nonsense");
        std::fs::write(&nonsense, r#"{"Credentials": "a secret"}"#).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&nonsense, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&nonsense, now).unwrap_err().to_string(), "it does not hold credentials");
    }

    #[cfg(unix)]
    #[test]
    fn files_that_others_can_read_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o666] {
            let path = written(dir.path(), "2026-01-31T23:59:59Z", mode);
            let reason = read(&path, SystemTime::UNIX_EPOCH).unwrap_err();
            let expected = format!("other users can read or write the file (mode {mode:o})");
            assert!(matches!(reason, Unusable::Unsafe(reason) if reason == expected));
        }
    }

    const KEYS: [(&str, &str); 8] = [
        ("ROLE", "6dc9e6e1e186b9f293814df3266de783142c48a2"),
        ("ROLEmfa_serial = arn:aws:iam::123456789012:mfa/me\n", "9a50c81ee065c24cf36f0972df6e9b7719455d8c"),
        (
            "ROLEmfa_serial = m\nexternal_id = id\nduration_seconds = 3_600\nrole_session_name = name\n",
            "fd8340f6e258391fd4b61db7090c7c8698b2ade8",
        ),
        ("ROLErole_session_name =\nduration_seconds = long\n", "6dc9e6e1e186b9f293814df3266de783142c48a2"),
        ("ROLEexternal_id = \"\\ ä😀/\n", "74a0d570ea583a7c31f03d89a41185a016ad07a3"),
        (
            "sso_session = corp\nsso_account_id = 012345678901\nsso_role_name = role\nsso_start_url = x\n",
            "abdaf0f0bbe3f7be09f6ad6f762ac3c567b64bc6",
        ),
        (
            "sso_start_url = https://sim.awsapps.com/start\nsso_account_id = 012345678901\nsso_role_name = role\n",
            "2bb30dc313f825213273670037d08ea1c38c7c16",
        ),
        (
            "sso_start_url = é\nsso_account_id = 1\nsso_role_name = r\n",
            "657cf075f401fb0e195b8a3baa42b65b82601406",
        ),
    ];
}
