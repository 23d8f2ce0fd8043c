//! A real OpenSSH server for one test: its own keys, the test's user, one process per connection.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};

use super::net::Server;
use super::process::run;
use super::{World, is_root, required, user};

/// A server that runs `sshd -i` for each connection, as inetd does. Dropping it ends them.
pub struct Sshd {
    server: Server,
    children: Arc<Mutex<Vec<Child>>>,
}

impl Sshd {
    /// Makes keys in the world's folder and starts serving.
    #[track_caller]
    pub fn start(world: &World) -> Sshd {
        let dir = world.path("ssh");
        std::fs::create_dir(&dir).expect("ssh folder");
        for key in ["host", "user"] {
            let file = dir.join(key);
            let mut command = world.command(required("/usr/bin/ssh-keygen"));
            run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file)).assert_ok();
        }
        let config = dir.join("sshd_config");
        std::fs::write(&config, server_config(&dir)).expect("sshd_config");
        if is_root() {
            // Debian's sshd wants its folder for privilege separation, which its service would make.
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let children = Arc::<Mutex<Vec<Child>>>::default();
        let started = Arc::clone(&children);
        let server = Server::start(move |stream| {
            if let Some(child) = serve(stream, &config) {
                started.lock().expect("children lock").push(child);
            }
        });
        Sshd { server, children }
    }

    /// Port it listens on.
    pub fn port(&self) -> u16 {
        self.server.port()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for child in self.children.lock().expect("children lock").iter_mut() {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// Writes `ssh_config` with the documented ProxyCommand and answers its path.
pub fn client_config(world: &World, port: u16) -> PathBuf {
    let dir = world.path("ssh");
    let path = dir.join("config");
    let text = format!(
        "# SSH over Session Manager\n\
         Host i-* mi-*\n    \
         ProxyCommand sh -c \"aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters 'portNumber=%p'\"\n\
         Host *\n    \
         Port {port}\n    User {}\n    IdentityFile {}\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile {}\n    StrictHostKeyChecking accept-new\n    BatchMode yes\n    LogLevel ERROR\n",
        user(),
        dir.join("user").display(),
        dir.join("known_hosts").display(),
    );
    std::fs::write(&path, text).expect("ssh config");
    path
}

fn server_config(dir: &Path) -> String {
    let sftp = super::required_one_of(&["/usr/lib/openssh/sftp-server", "/usr/lib/sftp-server"]);
    format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nPermitUserEnvironment no\nPrintMotd no\nSubsystem sftp {}\n",
        dir.join("host").display(),
        dir.join("user.pub").display(),
        sftp.display(),
    )
}

fn serve(stream: TcpStream, config: &Path) -> Option<Child> {
    let input = OwnedFd::from(stream.try_clone().ok()?);
    let mut command = Command::new(required("/usr/sbin/sshd"));
    command.args(["-i", "-e", "-f"]).arg(config).process_group(0);
    command.stdin(Stdio::from(input)).stdout(Stdio::from(OwnedFd::from(stream))).stderr(Stdio::null());
    command.spawn().ok()
}
