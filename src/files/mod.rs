//! Files that the user's settings name: opened without waiting, since opening a pipe blocks and a device has no end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// More bytes than there can be sense in.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The system's words.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl FileError {
    /// Whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, FileError::Io(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }

    /// Whether the file is not ours to read.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, FileError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The content of a regular file of at most `most` bytes.
///
/// # Errors
/// See [`FileError`].
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    copy(path, most, &mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file of at most `most` bytes to its end.
///
/// # Errors
/// See [`FileError`].
pub(crate) fn copy(path: &Path, most: u64, to: &mut impl Write) -> Result<(), FileError> {
    // Checked before opening: opening a pipe would block.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    let size = io::copy(&mut File::open(path)?.take(most.saturating_add(1)), to)?;
    if size > most { Err(FileError::TooLarge(most)) } else { Ok(()) }
}

/// Opens a file to append to, readable by its owner only.
///
/// # Errors
/// As the system gives them; also for a pipe that nobody reads.
pub(crate) fn append_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A pipe that nobody reads is an error then; it would keep us waiting otherwise.
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    if file.metadata()?.is_file() {
        // The file may be an older one with wider rights.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(file)
}

/// Bytes of a file of certificates to trust. The largest systems' stores have a quarter of a megabyte.
pub(crate) const MAX_CERTIFICATES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read(&path, 4).unwrap_err().is_absent());
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        assert!(matches!(read(&path, 3), Err(FileError::TooLarge(3))));
        assert!(matches!(read(dir.path(), 4), Err(FileError::NotRegular)));
        assert!(read(&path.join("below"), 4).unwrap_err().is_absent());
        let denied = FileError::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(denied.is_denied() && !denied.is_absent());
    }
}
