//! Socket files.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
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
            let is_stale = is_socket && refuses_clients(file);
            if is_stale && std::fs::remove_file(file).is_ok() { bind() } else { Err(error) }
        }
        bound => bound,
    }?;
    Ok((socket, SocketFile { path: file.to_owned(), id: file_id(file) }))
}

/// Returns whether no process listens on a socket file. A queue of clients that is full is not waited for.
fn refuses_clients(file: &Path) -> bool {
    let connected = SocketAddrUnix::new(file).and_then(|address| {
        let client = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        ioctl_fionbio(&client, true)?;
        connect(&client, &address)
    });
    connected == Err(Errno::CONNREFUSED)
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The agent may name any socket of the machine, and its owner may accept nothing.
    #[test]
    fn a_socket_whose_queue_is_full_is_in_use() {
        use rustix::net::{bind, listen};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let open = || socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let (address, busy) = (SocketAddrUnix::new(&path).unwrap(), open());
        bind(&busy, &address).unwrap();
        listen(&busy, 0).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = open();
            rustix::io::ioctl_fionbio(&client, true).unwrap();
            if connect(&client, &address).is_err() {
                break;
            }
            clients.push(client);
        }
        let (answer, is_answered) = std::sync::mpsc::channel();
        let name = path.clone();
        std::thread::spawn(move || answer.send(super::bind(&name).unwrap_err().kind()));
        let kind =
            is_answered.recv_timeout(std::time::Duration::from_secs(10)).expect("it waits for the queue");
        assert_eq!(kind, io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }
}
