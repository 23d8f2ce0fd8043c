//! `ssh --push-key`: a public key for EC2 Instance Connect, from a file, from the running ssh agent, or made for this run.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::identity::Identity;
#[cfg(unix)]
use super::ssh_agent;
use crate::files;

/// A key to push.
#[derive(Debug)]
pub(super) enum Key {
    /// A public key in the form of `authorized_keys`, whose private key ssh has.
    Known(String),
    /// A pair that only this process has.
    Made(Identity),
}

impl Key {
    /// Returns the public key in the form of `authorized_keys`.
    pub(super) fn public_line(&self) -> String {
        match self {
            Key::Known(line) => line.clone(),
            Key::Made(identity) => identity.public_line(),
        }
    }
}

/// Returns the key to push: of `file`, of the ssh agent's first identity, or of the usual files, in this order; else a new
/// one, if it `may_be_made`.
///
/// # Errors
/// When there is none, or the file does not hold one.
pub(super) async fn find(file: Option<&str>, may_be_made: bool) -> Result<Key, Failure> {
    if let Some(file) = file {
        return from_file(file).map(Key::Known);
    }
    if let Some(line) = known().await? {
        return Ok(Key::Known(line));
    }
    if may_be_made {
        return Identity::generate().map(Key::Made);
    }
    let advice = if cfg!(windows) {
        "create one with ssh-keygen -t ed25519"
    } else {
        "create one with ssh-keygen -t ed25519; or, for a temporary key, replace this target's Host block in \
         ~/.ssh/config with the output of session-manager-plugin ssh-config --push-key PATTERN... (add the --profile and \
         --region of the old block)"
    };
    Err(Failure::new(
        "no key to push: there is no ed25519 or RSA key in the ssh agent, and no id_ed25519.pub or id_rsa.pub in ~/.ssh",
    )
    .with_advice(advice))
}

/// Returns a path in which `~/` is the home folder.
pub(super) fn in_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg_attr(windows, expect(clippy::unused_async, reason = "the same interface as on UNIX"))]
async fn known() -> Result<Option<String>, Failure> {
    #[cfg(unix)]
    if let Some(key) = ssh_agent::first_key(&KINDS).await {
        return Ok(Some(key));
    }
    let home = std::env::home_dir().unwrap_or_default();
    for name in USUAL {
        let path = home.join(".ssh").join(name);
        if path.is_file() {
            return read(&path).map(Some);
        }
    }
    Ok(None)
}

/// A public key's file, or the private one next to it.
fn from_file(file: &str) -> Result<String, Failure> {
    let path = in_home(file);
    if path.extension().is_some_and(|extension| extension == "pub") {
        return read(&path);
    }
    let mut public = path.into_os_string();
    public.push(".pub");
    read(Path::new(&public))
}

fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |reason: String| Failure::new(format!("--push-key: {}: {reason}", path.display()));
    let bytes = files::read(path, MAX_SIZE).map_err(|error| cannot(error.to_string()))?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let key = text.trim();
    let is_key = KINDS.iter().any(|kind| key.starts_with(&format!("{kind} "))) && key.lines().count() == 1;
    if is_key { Ok(key.to_owned()) } else { Err(cannot("not an ed25519 or RSA public key".to_owned())) }
}

/// The kinds of keys that EC2 Instance Connect accepts.
const KINDS: [&str; 2] = ["ssh-ed25519", "ssh-rsa"];
const USUAL: [&str; 2] = ["id_ed25519.pub", "id_rsa.pub"];
/// Bytes; an RSA key of 16,384 bits has 3,000.
const MAX_SIZE: u64 = 64 << 10;
