//! Checks of the files that the SDK reads, before it does: the profiles, and those that its credential providers open.
//!
//! The SDK reads them on the runtime's only thread: a file that blocks (a pipe, a file system that has gone) would stop
//! signals, deadlines and open connections with it, and one without an end would take all memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::profile::ProfileSet;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::time::Instant;

use crate::blocking;
use crate::files;

/// Reads the profile files once, elsewhere.
///
/// # Errors
/// Which one must not be read and why. Those that are absent or not allowed to be read are not among them: the SDK
/// takes them for empty.
pub(super) async fn check() -> Result<(), String> {
    let deadline = Instant::now() + LOOK;
    for file in FILES {
        let origin = std::env::var(file.0).map_or_else(|_| String::new(), |_| from(file.0));
        check_one(&NamedFile { path: path_of(file), origin }, MAX_SIZE, deadline).await?;
    }
    Ok(())
}

/// A file with a token that a credential provider opens.
#[derive(Debug, PartialEq)]
pub(super) struct NamedFile {
    path: PathBuf,
    /// The setting that names it, in brackets after a space, or empty.
    origin: String,
}

impl NamedFile {
    /// Reads the file once, elsewhere.
    ///
    /// # Errors
    /// As [`check`]; the SDK reports a file that is absent.
    pub(super) async fn check(&self) -> Result<(), String> {
        check_one(self, MAX_TOKEN, Instant::now() + LOOK).await
    }
}

/// The file that the SDK opens for the selected profile: the one of the profile that its chain of roles begins with
/// (`resolve_chain` in aws-config).
pub(super) fn of_profiles(profiles: &ProfileSet) -> Option<NamedFile> {
    let mut name = profiles.selected_profile();
    let mut is_source = false;
    // More steps are a circle, which the SDK reports.
    for _ in profiles.profiles() {
        let profile = profiles.get_profile(name)?;
        let has = |key| profile.get(key).is_some();
        // Keys come before a role in a profile that others name as their source.
        if is_source && has("aws_access_key_id") && has("aws_secret_access_key") {
            return None;
        }
        let is_role = has("role_arn") && !has("web_identity_token_file");
        match profile.get("source_profile").filter(|source| is_role && *source != name) {
            Some(source) => (name, is_source) = (source, true),
            None => return of_profile(name, |key| profile.get(key)),
        }
    }
    None
}

/// The file that the SDK opens for the environment's web identity.
pub(super) fn of_web_identity() -> Option<NamedFile> {
    std::env::var("AWS_ROLE_ARN").ok()?;
    of_variable("AWS_WEB_IDENTITY_TOKEN_FILE")
}

/// The file that the SDK opens for a container's credentials.
pub(super) fn of_container() -> Option<NamedFile> {
    of_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
}

/// Returns the path of one of the [`FILES`].
pub(super) fn path_of((variable, usual): (&str, &str)) -> PathBuf {
    std::env::var(variable).map_or_else(|_| expanded(usual), |path| expanded(&path))
}

/// With the home directory for `~`.
pub(super) fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// The file for a profile without a source, in the SDK's order of its kinds.
fn of_profile<'a>(name: &str, get: impl Fn(&str) -> Option<&'a str>) -> Option<NamedFile> {
    if let Some(source) = get("credential_source") {
        return of_container().filter(|_| source.eq_ignore_ascii_case("EcsContainer"));
    }
    if let Some(path) = get("web_identity_token_file") {
        let origin = from(&format!("web_identity_token_file in profile {name}"));
        return Some(NamedFile { path: path.into(), origin });
    }
    let path = if let Some(key) = get("sso_session").or_else(|| get("sso_start_url")) {
        expanded("~/.aws/sso/cache").join(json_name(&Sha1::digest(key)))
    } else {
        let key = get("login_session")?;
        let folder = std::env::var("AWS_LOGIN_CACHE_DIRECTORY");
        let folder = folder.map_or_else(|_| expanded("~/.aws/login/cache"), PathBuf::from);
        folder.join(json_name(&Sha256::digest(key.trim())))
    };
    Some(NamedFile { path, origin: String::new() })
}

fn of_variable(name: &str) -> Option<NamedFile> {
    Some(NamedFile { path: std::env::var(name).ok()?.into(), origin: from(name) })
}

fn from(setting: &str) -> String {
    format!(" (from {setting})")
}

fn json_name(digest: &[u8]) -> String {
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}.json")
}

async fn check_one(file: &NamedFile, most: u64, deadline: Instant) -> Result<(), String> {
    let failure = |reason: String| format!("{}{} cannot be read{reason}", file.path.display(), file.origin);
    let look = move |path: &Path| files::check(path, most).map_err(|error| format!(": {error}"));
    let looked = blocking::run("files", {
        let path = file.path.clone();
        move || look(&path)
    });
    match tokio::time::timeout_at(deadline, looked).await {
        Ok(Ok(seen)) => seen.map_err(failure),
        // Without a thread: waiting for a file costs less than having no credentials.
        Ok(Err(_)) => look(&file.path).map_err(failure),
        Err(_) => Err(failure(format!(" within {LOOK:?}"))),
    }
}

/// The profile files, as the SDK finds them: by the variable if it is set at all.
pub(super) const FILES: [(&str, &str); 2] =
    [("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")];
/// For both profile files, and for each other one. A healthy network file system answers within that, and a session's end waits no longer.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes; thousands of profiles.
const MAX_SIZE: u64 = 8 << 20;
/// Bytes; a token has a few thousand.
const MAX_TOKEN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
    use aws_types::os_shim_internal::{Env, Fs};

    use super::*;

    /// The profile whose token file is looked at, for these lines of `work`, `base` and `root`.
    async fn profile_of(work: &str, base: &str, root: &str) -> Option<String> {
        let text = format!("[profile work]\n{work}\n[profile base]\n{base}\n[profile root]\n{root}\n");
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, text).build();
        let (fs, env) = (Fs::real(), Env::from_slice(&[]));
        let profiles = aws_config::profile::load(&fs, &env, &files, Some("work".into())).await.unwrap();
        of_profiles(&profiles).map(|file| file.origin)
    }

    #[tokio::test]
    async fn files_of_a_chain_of_roles() {
        let token = "web_identity_token_file = t\nrole_arn = r";
        let [of_base, of_root, of_work] =
            ["base", "root", "work"].map(|source| format!("role_arn = r\nsource_profile = {source}"));
        let origin = |name: &str| Some(format!(" (from web_identity_token_file in profile {name})"));
        assert_eq!(profile_of(token, "", "").await, origin("work"));
        assert_eq!(profile_of(&of_base, token, "").await, origin("base"));
        assert_eq!(profile_of(&of_base, &of_root, token).await, origin("root"));
        let keys = "aws_access_key_id = k\naws_secret_access_key = s";
        assert_eq!(profile_of(&of_base, &format!("{keys}\n{token}"), "").await, None);
        assert_eq!(profile_of(&format!("{keys}\n{of_base}"), token, "").await, origin("base"));
        // Circles.
        assert_eq!(profile_of(&of_base, &of_work, "").await, None);
        assert_eq!(profile_of(&of_work, token, "").await, None);
        assert_eq!(profile_of("region = r", token, "").await, None);
    }
}
