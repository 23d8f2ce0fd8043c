//! Checks of the profile files before the SDK reads them.
//!
//! The SDK does that on the runtime's only thread: a file that blocks (a pipe, a file system that has gone) would stop
//! signals, deadlines and open connections with it, and one without an end would take all memory.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::blocking;
use crate::files::{self, FileError};

/// Reads the files once, elsewhere.
///
/// # Errors
/// Which one must not be read and why. Those that are absent or not allowed to be read are not among them: the SDK
/// takes them for empty.
pub(super) async fn check() -> Result<(), String> {
    let deadline = Instant::now() + LOOK;
    for file in FILES {
        let path = path_of(file);
        let origin = std::env::var(file.0).map_or_else(|_| String::new(), |_| format!(" (from {})", file.0));
        let failure = |reason: String| format!("{}{origin} {reason}", path.display());
        let look = blocking::run("files", {
            let path: PathBuf = path.clone();
            move || look_at(&path)
        });
        match tokio::time::timeout_at(deadline, look).await {
            Ok(Ok(seen)) => seen.map_err(failure)?,
            // Without a thread: waiting for a file costs less than having no credentials.
            Ok(Err(_)) => look_at(&path).map_err(failure)?,
            Err(_) => return Err(failure(format!("cannot be read within {LOOK:?}"))),
        }
    }
    Ok(())
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

fn look_at(path: &Path) -> Result<(), String> {
    if std::fs::metadata(path).is_ok_and(|data| data.is_dir() || is_null_device(&data)) {
        return Ok(());
    }
    // Read to its end: without its server, a network file system still answers `stat` from its cache.
    match files::copy(path, MAX_SIZE, &mut io::sink()) {
        Err(error @ (FileError::NotRegular | FileError::TooLarge(_))) => {
            Err(format!("cannot be read: {error}"))
        }
        Ok(()) | Err(FileError::Io(_)) => Ok(()),
    }
}

/// The usual name for no profiles at all.
#[cfg(unix)]
fn is_null_device(data: &Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    data.file_type().is_char_device()
        && std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == data.rdev())
}

#[cfg(not(unix))]
fn is_null_device(_: &Metadata) -> bool {
    false
}

/// The files, as the SDK finds them: by the variable if it is set at all.
pub(super) const FILES: [(&str, &str); 2] =
    [("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")];
/// For both files. A healthy network file system answers within that, and a session's end waits no longer.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes; thousands of profiles.
const MAX_SIZE: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        assert_eq!(look_at(&path), Ok(()));
        assert_eq!(look_at(dir.path()), Ok(()));
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_SIZE).unwrap();
        assert_eq!(look_at(&path), Ok(()));
        file.set_len(MAX_SIZE + 1).unwrap();
        assert_eq!(look_at(&path), Err(format!("cannot be read: it is larger than {MAX_SIZE} bytes")));
    }
}
