//! `ssh --identity-agent`: a socket on which ssh finds the key made for this run, together with those of the user's agent.
//!
//! An unmodified ssh connects to its `IdentityAgent` when it authenticates, which is after ProxyCommand has connected, so
//! the socket need not exist before. The path is the same for all connections to one user of an instance: the process that
//! came last has it, and its key was pushed before. If the file goes missing before ssh has used this process's key, it is
//! made again.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::failure::Failure;
use super::identity::Identity;
use super::ssh_agent;
use crate::process::bind_private;

/// A socket that answers as an ssh agent. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
    identity: Option<Arc<Identity>>,
    /// The user's own agent.
    upstream: Option<PathBuf>,
}

impl AgentSocket {
    /// Listens on a path that begins with `~/` or with a folder.
    ///
    /// # Errors
    /// When the file cannot be made, or something other than a socket is there.
    pub(super) fn listen(path: &str, identity: Option<Identity>) -> Result<AgentSocket, Failure> {
        let path = super::push_key::in_home(path);
        let upstream = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).filter(|other| *other != path);
        let listener = place(&path).map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::AlreadyExists => "it exists and is not a socket".to_owned(),
                _ => error.to_string(),
            };
            Failure::new(format!("--identity-agent: {}: {reason}", path.display()))
        })?;
        let file = file_id(&path);
        Ok(AgentSocket { path, listener, file, identity: identity.map(Arc::new), upstream })
    }

    /// Serves clients until it is dropped.
    pub(super) async fn serve(&mut self) {
        let mut clients = JoinSet::new();
        let mut check = tokio::time::interval(CHECK);
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                    Ok((client, _)) => {
                        clients.spawn(converse(client, self.identity.clone(), self.upstream.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client of the agent's socket");
                        tokio::time::sleep(CHECK).await;
                    }
                },
                Some(_) = clients.join_next() => {}
                _ = check.tick() => self.replace_missing(),
            }
        }
    }

    /// Another process with the same path that came later has removed its file, and with it the way to ours.
    fn replace_missing(&mut self) {
        let is_missing =
            std::fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_missing && let Ok(listener) = place(&self.path) {
            self.listener = listener;
            self.file = file_id(&self.path);
        }
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        if self.file.is_some() && file_id(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a socket under another name and renames it, so that one that is used is never missing.
fn place(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|data| !data.file_type().is_socket()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    // Left behind by a process of the same number that was killed.
    if std::fs::symlink_metadata(&new).is_ok_and(|data| data.file_type().is_socket()) {
        std::fs::remove_file(&new)?;
    }
    let listener = bind_private(Path::new(&new))?;
    std::fs::rename(&new, path).inspect_err(|_| _ = std::fs::remove_file(&new))?;
    Ok(listener)
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let data = std::fs::symlink_metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

/// Answers one client, which may ask as often as it likes.
async fn converse(
    mut client: UnixStream,
    identity: Option<Arc<Identity>>,
    upstream: Option<PathBuf>,
) -> io::Result<()> {
    let mut upstream = match upstream {
        Some(path) => UnixStream::connect(path).await.ok(),
        None => None,
    };
    while let Some(message) = ssh_agent::read(&mut client).await? {
        let identity = identity.as_deref();
        let is_list = ssh_agent::asks_for_identities(&message);
        let ours = identity.filter(|_| !is_list).and_then(|key| ssh_agent::answer(&message, key, None));
        let answer = match ours {
            Some(answer) => answer,
            None => {
                let known = relay(&mut upstream, &message).await;
                let both = identity.and_then(|key| ssh_agent::answer(&message, key, known.as_deref()));
                both.or(known).unwrap_or_else(|| vec![ssh_agent::FAILURE])
            }
        };
        ssh_agent::write(&mut client, &answer).await?;
    }
    Ok(())
}

/// Returns the answer of the user's agent, which may ask the user first. One that fails is not asked again.
async fn relay(upstream: &mut Option<UnixStream>, message: &[u8]) -> Option<Vec<u8>> {
    let answer = ssh_agent::ask(upstream.as_mut()?, message).await;
    answer.inspect_err(|_| *upstream = None).ok()
}

/// Clients at a time: ssh has one, and one for each connection that it forwards its agent to.
const MAX_CLIENTS: usize = 64;
/// Between two looks at the file.
const CHECK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    async fn list(path: &Path) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(path).await?;
        ssh_agent::ask(&mut stream, &[11]).await
    }

    async fn served<T>(socket: &mut AgentSocket, action: impl Future<Output = T>) -> T {
        tokio::select! {
            () = socket.serve() => unreachable!(),
            done = action => done,
        }
    }

    #[tokio::test]
    async fn the_file_is_private_and_goes_with_the_socket() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let identity = Identity::generate().unwrap();
        let mut socket = AgentSocket::listen(path.to_str().unwrap(), Some(identity)).unwrap();
        socket.upstream = None;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let answer = served(&mut socket, list(&path)).await.unwrap();
        assert_eq!(answer[..5], [12, 0, 0, 0, 1]);
        drop(socket);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// The one that came last has the path; when it goes, the first has it again, and neither removes the other's file.
    #[tokio::test]
    async fn two_connections_to_one_instance_share_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let name = path.to_str().unwrap();
        let mut first = AgentSocket::listen(name, Some(Identity::generate().unwrap())).unwrap();
        let mut second = AgentSocket::listen(name, None).unwrap();
        (first.upstream, second.upstream) = (None, None);
        assert_eq!(served(&mut second, list(&path)).await.unwrap(), [ssh_agent::FAILURE], "no key");
        drop(second);
        let found = served(&mut first, async {
            loop {
                if let Ok(answer) = list(&path).await {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), found).await.unwrap()[4], 1);
    }

    #[tokio::test]
    async fn another_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        std::fs::write(&path, "a key").unwrap();
        let failure = AgentSocket::listen(path.to_str().unwrap(), None).unwrap_err();
        assert!(format!("{failure:?}").contains("not a socket"), "{failure:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"a key");
    }
}
