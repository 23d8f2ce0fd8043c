//! Files that the user's settings name: opened without waiting, since opening a pipe blocks and a device has no end, and
//! only where no other user can have exchanged them.

mod output;
#[cfg(unix)]
mod ownership;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Reason that a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// More bytes than there can be sense in.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The system's error, or the reason for not trusting the file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FileError {
    /// Returns whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, FileError::Io(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }

    /// Returns whether the file is not ours to read.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, FileError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Returns whether others could have written the file.
    pub(crate) fn is_untrusted(&self) -> bool {
        #[cfg(unix)]
        return matches!(self, FileError::Io(error)
            if error.get_ref().is_some_and(|inner| inner.is::<ownership::OwnershipError>()));
        #[cfg(not(unix))]
        false
    }
}

/// The content of a regular file of at most `most` bytes that only the user and root can have written (on UNIX:
/// elsewhere the folders of a user are closed to others by default).
///
/// # Errors
/// See [`FileError`].
pub(crate) fn read_trusted(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    #[cfg(unix)]
    {
        ownership::check_content(path, &file.metadata()?).map_err(io::Error::from)?;
        ownership::check_way(path)?;
    }
    copy_from(file, most, &mut bytes)?;
    Ok(bytes)
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
    copy_from(open_regular(path)?, most, to)
}

/// Checks that a library may open and read a file: a regular one of at most `most` bytes. It is read to its end, since
/// without its server a network file system still answers `stat` from its cache. A folder, the null device (the usual name
/// for no file at all) and what cannot be opened are left to the library, which reports them.
///
/// # Errors
/// [`FileError::NotRegular`], [`FileError::TooLarge`], and that reading would block.
pub(crate) fn check(path: &Path, most: u64) -> Result<(), FileError> {
    if std::fs::metadata(path).is_ok_and(|data| data.is_dir() || is_null_device(&data)) {
        return Ok(());
    }
    match copy(path, most, &mut io::sink()) {
        Err(FileError::Io(error)) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        checked => checked,
    }
}

/// Opens a regular file to read.
///
/// # Errors
/// See [`FileError`].
pub(crate) fn open_regular(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Checked before opening, which does something on some devices, and after it: the file may have been exchanged.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;
        // Opening a pipe would block.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    if std::fs::metadata(path)?.is_file() {
        let file = options.open(path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
    }
    Err(FileError::NotRegular)
}

fn copy_from(file: File, most: u64, to: &mut impl Write) -> Result<(), FileError> {
    let size = io::copy(&mut file.take(most.saturating_add(1)), to)?;
    if size > most { Err(FileError::TooLarge(most)) } else { Ok(()) }
}

#[cfg(unix)]
fn is_null_device(data: &Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    data.file_type().is_char_device()
        && std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == data.rdev())
}

#[cfg(not(unix))]
fn is_null_device(_: &Metadata) -> bool {
    false
}

/// Opens a file to append to, readable by its owner only. On UNIX it must not be a symbolic link, must belong to the
/// user or to root, and no other user can have put it, or a directory on the way to it, where it is.
///
/// # Errors
/// The system's error, or the reason for not trusting the file; also for a pipe without a reader, and for every name of
/// the place that stdout leads to.
#[cfg(unix)]
pub(crate) fn append_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};

    use rustix::fs::OFlags;
    // A pipe without a reader is an error with NONBLOCK; opening would wait for one otherwise.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if !is_device_or_stream(path) {
        ownership::check_way(path)?;
        flags |= OFlags::NOFOLLOW;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            io::Error::other("it is a symbolic link")
        }
        _ => error,
    })?;
    let found = file.metadata()?;
    output::check_is_elsewhere(&file)?;
    // A terminal keeps its owner when its user becomes another one.
    if !found.file_type().is_char_device() {
        ownership::check_target(path, &found)?;
    }
    if found.is_file() {
        // The file may be an older one with wider permissions.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Opens a file to append to.
///
/// # Errors
/// The system's error, or that it is the console.
#[cfg(not(unix))]
pub(crate) fn append_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    output::check_is_elsewhere(&file)?;
    Ok(file)
}

/// Returns `true` for names that the system itself gives devices and this process's descriptors. Some of them are links
/// (`/dev/stderr`).
#[cfg(unix)]
fn is_device_or_stream(path: &Path) -> bool {
    ["/dev", "/dev/fd", "/proc/self/fd"].iter().any(|directory| path.parent() == Some(Path::new(directory)))
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

    #[test]
    fn what_libraries_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(check(&path, 4).is_ok());
        assert!(check(dir.path(), 4).is_ok());
        std::fs::write(&path, "four").unwrap();
        assert!(check(&path, 4).is_ok());
        assert!(matches!(check(&path, 3), Err(FileError::TooLarge(3))));
    }

    /// The owner of the folder can exchange the file at any moment.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_that_takes_the_place_of_a_file_is_not_waited_for() {
        use rustix::fs::{CWD, RenameFlags, mkfifoat, renameat_with};
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (path, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&path, "four").unwrap();
        mkfifoat(CWD, &pipe, 0o600.into()).unwrap();
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let (over, from, to) = (is_over.clone(), path.clone(), pipe.clone());
        let exchanging = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (done, is_done) = std::sync::mpsc::channel();
        let reading = path.clone();
        std::thread::spawn(move || {
            for _ in 0..100_000 {
                match read(&reading, 4) {
                    Ok(bytes) => assert_eq!(bytes, b"four"),
                    Err(error) => assert!(matches!(error, FileError::NotRegular), "{error}"),
                }
            }
            done.send(()).unwrap();
        });
        let outcome = is_done.recv_timeout(std::time::Duration::from_secs(20));
        is_over.store(true, Ordering::Relaxed);
        exchanging.join().unwrap();
        outcome.expect("reading waits for a writer");
    }

    #[cfg(unix)]
    #[test]
    fn trusted_content_has_one_writer() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read_trusted(&path, 4).unwrap_err().is_absent());
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_trusted(&path, 4).unwrap(), b"four");
        assert!(matches!(read_trusted(&path, 3), Err(FileError::TooLarge(3))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = read_trusted(&path, 4).unwrap_err();
        assert!(error.is_untrusted() && !error.is_absent() && !error.is_denied(), "{error}");
        assert_eq!(read(&path, 4).unwrap(), b"four");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        append_private(&file).unwrap().write_all(b"line").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(append_private(&link).unwrap_err().to_string(), "it is a symbolic link");
        std::fs::hard_link(&file, dir.path().join("second")).unwrap();
        assert!(append_private(&file).unwrap_err().to_string().ends_with("has more than one hard link"));
        assert_eq!(std::fs::read(&file).unwrap(), b"line");
        append_private(Path::new("/dev/null")).unwrap();
        assert!(
            is_device_or_stream(Path::new("/dev/stderr")) && !is_device_or_stream(Path::new("/dev/shm/x"))
        );
    }
}
