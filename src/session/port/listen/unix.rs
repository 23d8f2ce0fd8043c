//! Socket files.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Listens on a socket file that only the user can open, instead of one that a process has left behind.
///
/// # Errors
/// As the system reports them.
pub(super) fn bind(file: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let bind = || crate::process::bind_private(file);
    let socket = match bind() {
        // A process that was killed has left it behind: it is a socket, and nothing listens. (A connection to a plain file
        // is refused in the same words.)
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(file).is_ok_and(|data| data.file_type().is_socket());
            let is_stale = is_socket
                && UnixStream::connect(file)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if is_stale && std::fs::remove_file(file).is_ok() { bind() } else { Err(error) }
        }
        bound => bound,
    }?;
    Ok((socket, SocketFile { path: file.to_owned(), id: file_id(file) }))
}

/// A socket file that we made, removed at the end if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && file_id(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|data| (data.dev(), data.ino()))
}
