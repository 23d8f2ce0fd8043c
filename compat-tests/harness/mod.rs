//! The test harness: a private world per test (home, PATH, credentials), processes and terminals that
//! end with the test, TCP servers, a scripted gateway.
//!
//! Nothing here relies on sleeping: every wait is for a condition, within [`PATIENCE`].

pub mod api;
pub mod gateway;
pub mod greeting;
mod group;
pub mod http;
pub mod net;
pub mod output;
pub mod process;
#[cfg(unix)]
pub mod pty;
pub mod retry;
pub mod sim;
#[cfg(unix)]
pub mod sshd;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// Time after which a condition that does not hold fails the test. Generous: a loaded CI machine is slow, and a
/// passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The region every test uses; no name resolution depends on it.
pub const REGION: &str = "us-east-1";

/// The instance the simulator knows by default.
pub const TARGET: &str = "i-0123456789abcdef0";

/// The plugin to test: this build's, or the one that `PLUGIN_UNDER_TEST` names.
pub fn plugin() -> PathBuf {
    match std::env::var_os("PLUGIN_UNDER_TEST") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_session-manager-plugin")),
    }
}

/// The official plugin to compare with, when `REFERENCE_PLUGIN` names one.
pub fn reference_plugin() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("REFERENCE_PLUGIN")?);
    assert!(path.is_file(), "REFERENCE_PLUGIN names {}, which is no file", path.display());
    Some(path)
}

/// The two unchanged AWS CLIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aws {
    /// Version 1 from PyPI, in the virtual environment `scripts/setup` makes.
    V1,
    /// Version 2 from Debian, or as AWS installs it.
    V2,
}

impl Aws {
    /// The program; fails the test when it is absent, since a skipped client proves nothing.
    pub fn program(self) -> PathBuf {
        let path = match self {
            Aws::V1 => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/aws"),
            // Ubuntu has no package of version 2; AWS's installer puts it into the second place.
            Aws::V2 => required_one_of(&["/usr/bin/aws", "/usr/local/bin/aws"]),
        };
        required(path)
    }
}

/// A program that the tests cannot do without.
pub fn required(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    assert!(path.exists(), "{} is missing: run scripts/setup tests", path.display());
    path
}

/// The first of `candidates` that exists.
pub fn required_one_of(candidates: &[&str]) -> PathBuf {
    match candidates.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => path.to_path_buf(),
        None => panic!("none of {candidates:?} is here: run scripts/setup tests"),
    }
}

/// One test's surroundings: an empty home, a PATH that begins with a folder holding only the plugin, dummy
/// credentials, and nothing else of the caller's environment.
pub struct World {
    dir: TempDir,
    plugin: PathBuf,
    env: Vec<(String, String)>,
}

impl World {
    /// A world around the plugin under test.
    pub fn new() -> World {
        World::with_plugin(&plugin())
    }

    /// A world around another plugin, such as the reference.
    pub fn with_plugin(plugin: &Path) -> World {
        let dir = tempfile::Builder::new().prefix("ssm-compat-").tempdir().expect("a temporary folder");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("bin folder");
        std::fs::create_dir(dir.path().join("home")).expect("home folder");
        install(&required(plugin), &bin);
        let mut world = World { dir, plugin: plugin.to_path_buf(), env: Vec::new() };
        world.set_system(&bin);
        // The official plugin keeps a socket there under a name made of the session's id.
        world.set("TMPDIR", &world.path("").display().to_string());
        world.set("LANG", "C.UTF-8");
        world.set("TERM", "xterm");
        world.set("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE");
        world.set("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        world.set("AWS_DEFAULT_REGION", REGION);
        world.set("AWS_EC2_METADATA_DISABLED", "true");
        world.set("AWS_PAGER", "");
        world
    }

    /// Sets the variables that a program needs on this system to find its libraries, others, and the user's
    /// files.
    #[cfg(unix)]
    fn set_system(&mut self, bin: &Path) {
        self.set(
            "PATH",
            &format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        );
        self.set("HOME", &self.home().display().to_string());
        self.set("USER", &user());
    }

    /// Sets the variables that a program needs on this system to find its libraries, others, and the user's
    /// files.
    #[cfg(windows)]
    fn set_system(&mut self, bin: &Path) {
        let system = std::env::var("SystemRoot").expect("SystemRoot");
        self.set("PATH", &format!(r"{};{system}\System32;{system}", bin.display()));
        self.set("SystemRoot", &system);
        let home = self.home().display().to_string();
        for name in ["USERPROFILE", "LOCALAPPDATA", "APPDATA", "TEMP", "TMP"] {
            self.set(name, &home);
        }
    }

    /// Adds an environment variable for every command of this world.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The private home folder.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes environment variables away.
    pub fn unset(&mut self, names: &[&str]) {
        self.env.retain(|(known, _)| !names.contains(&known.as_str()));
    }

    /// A command that sees only this world's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(self.env.iter().cloned()).current_dir(self.home());
        command
    }

    /// The plugin itself, without arguments yet.
    pub fn plugin(&self) -> Command {
        self.command(&self.plugin)
    }

    /// Puts an `aws` on the PATH that goes to `endpoint`, so that documented command lines work as they stand.
    #[cfg(unix)]
    pub fn install_aws(&self, aws: Aws, endpoint: &str) {
        let path = self.path("bin/aws");
        let script =
            format!("#!/bin/sh\nexec '{}' --endpoint-url '{endpoint}' \"$@\"\n", aws.program().display());
        std::fs::write(&path, script).expect("write aws");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("make aws executable");
    }

    /// A shell command line in this world.
    #[cfg(unix)]
    pub fn shell(&self, line: &str) -> Command {
        let mut command = self.command("/bin/sh");
        command.args(["-c", line]);
        command
    }

    /// `aws --endpoint-url … <args>`.
    pub fn aws(&self, aws: Aws, endpoint: &str, args: &[&str]) -> Command {
        let mut command = self.command(aws.program());
        command.args(["--endpoint-url", endpoint]).args(args);
        command
    }
}

/// Puts the plugin into a folder under its name.
fn install(plugin: &Path, folder: &Path) {
    #[cfg(unix)]
    std::os::unix::fs::symlink(plugin, folder.join("session-manager-plugin")).expect("symlink");
    #[cfg(windows)]
    {
        let to = folder.join("session-manager-plugin.exe");
        // Not on every disk, and symbolic links are not for every user.
        std::fs::hard_link(plugin, &to)
            .or_else(|_| std::fs::copy(plugin, &to).map(drop))
            .expect("the plugin");
    }
}

/// `command` with a limit as `ulimit` sets it.
#[cfg(unix)]
pub fn limited(command: &Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell.env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// The name of the user who runs the tests.
#[cfg(unix)]
pub fn user() -> String {
    let out = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Returns whether the tests run as root, where some servers refuse to start.
#[cfg(unix)]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A named pipe: opening it for reading blocks until there is a writer. Made by the command, since rustix has none on macOS.
#[cfg(unix)]
#[track_caller]
pub fn named_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success(), "{}", path.display());
}

/// The text of a file of the tests.
#[track_caller]
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
