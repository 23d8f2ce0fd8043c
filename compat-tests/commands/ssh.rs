//! Real OpenSSH through `ProxyCommand session-manager-plugin ssh %h %p`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use ssm_sim::Sim;

use super::{plugin, world};
use crate::harness::net::random_bytes;
use crate::harness::process::{Running, run, run_with_input};
use crate::harness::sim::{assert_all_ended, sim, unpaced_sim};
use crate::harness::sshd::Sshd;
use crate::harness::{TARGET, World, required, user};

struct Setup {
    world: World,
    config: PathBuf,
    _sshd: Sshd,
    sim: Sim,
}

impl Setup {
    #[track_caller]
    fn new(sim: Sim) -> Setup {
        let mut world = world(&sim);
        world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
        let sshd = Sshd::start(&world);
        let config = client_config(&world, sshd.port());
        Setup { world, config, _sshd: sshd, sim }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.world.command(required(Path::new("/usr/bin").join(program)));
        command.arg("-F").arg(&self.config);
        command
    }

    /// For programs that start ssh themselves.
    fn with_ssh(&self, program: &str) -> Command {
        let mut command = self.world.command(required(Path::new("/usr/bin").join(program)));
        let ssh = format!("ssh -F {}", self.config.display());
        command.env("RSYNC_RSH", &ssh).env("GIT_SSH_COMMAND", &ssh);
        command
    }

    fn path(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    fn digest(&self, name: &str) -> String {
        hex::encode(Sha256::digest(std::fs::read(self.world.path(name)).expect("read file")))
    }
}

/// The block of the README, and the test's own keys.
fn client_config(world: &World, port: u16) -> PathBuf {
    let dir = world.path("ssh");
    let text = format!(
        "Host i-* mi-*\n    ProxyCommand session-manager-plugin ssh %h %p\nHost jumped\n    HostName 127.0.0.1\n\
         Host *\n    Port {port}\n    User {}\n    IdentityFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n    \
         StrictHostKeyChecking accept-new\n    BatchMode yes\n    LogLevel ERROR\n",
        user(),
        dir.join("user").display(),
        dir.join("known_hosts").display(),
    );
    let path = dir.join("config");
    std::fs::write(&path, text).expect("ssh config");
    path
}

#[test]
fn a_command_with_its_streams_and_status() {
    let setup = Setup::new(sim());
    let finished = run(setup.client("ssh").args([TARGET, "echo out; echo err >&2; exit 7"]));
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("out\n", "err\n"));
    assert_eq!(finished.status.code(), Some(7));
    let bytes = random_bytes(3, 200_000);
    let finished = run_with_input(setup.client("ssh").args([TARGET, "cat"]), &bytes);
    assert!(finished.assert_ok().stdout == bytes, "not the same bytes");
}

/// 8-bit clean from the first byte: the server's greeting, and not a line of ours before it.
#[test]
fn nothing_but_the_connection_s_bytes_on_stdout() {
    let setup = Setup::new(sim());
    let config = std::fs::read_to_string(&setup.config).expect("config");
    let port = config.lines().find_map(|line| line.trim().strip_prefix("Port ")).expect("a port");
    let mut running = Running::spawn(&mut plugin(&setup.world, &["ssh", TARGET, port]));
    running.stdout.wait_for("\r\n");
    running.close_stdin();
    let finished = running.finish();
    assert!(finished.stdout.starts_with(b"SSH-2.0-"), "{}", finished.text());
    assert_eq!(finished.errors(), "");
    assert_all_ended(&setup.sim);
}

#[test]
fn scp_there_and_back() {
    let setup = Setup::new(unpaced_sim());
    std::fs::write(setup.world.path("up"), random_bytes(1, 3_000_000)).expect("write");
    let there = format!("{TARGET}:{}", setup.path("there"));
    run(setup.client("scp").args(["-q", &setup.path("up"), &there])).assert_ok();
    run(setup.client("scp").args(["-q", &there, &setup.path("back")])).assert_ok();
    assert_eq!(setup.digest("up"), setup.digest("back"));
}

#[test]
fn rsync_of_a_folder() {
    let setup = Setup::new(unpaced_sim());
    std::fs::create_dir(setup.world.path("from")).expect("folder");
    for number in 0..20u64 {
        let path = setup.world.path(&format!("from/{number}"));
        std::fs::write(path, random_bytes(number, 50_000)).expect("write");
    }
    let (from, to) = (setup.path("from/"), setup.path("to/"));
    run(setup.with_ssh("rsync").args(["-a", &from, &format!("{TARGET}:{to}")])).assert_ok();
    for number in 0..20 {
        assert_eq!(setup.digest(&format!("from/{number}")), setup.digest(&format!("to/{number}")));
    }
}

#[test]
fn git_clone() {
    let setup = Setup::new(unpaced_sim());
    let script = "git init -q source && cd source && git config user.email a@example.org && git config user.name a && \
                  head -c 300000 /dev/urandom >file && git add file && git commit -qm first";
    run(setup.world.shell(script).current_dir(setup.world.path(""))).assert_ok();
    let source = format!("{TARGET}:{}", setup.path("source"));
    run(setup.with_ssh("git").args(["clone", "-q", &source, &setup.path("clone")])).assert_ok();
    assert_eq!(setup.digest("source/file"), setup.digest("clone/file"));
}

#[test]
fn one_session_for_many_commands_with_control_persist() {
    let setup = Setup::new(sim());
    let ssh = format!("ssh -F '{}' -o ControlPath='{}'", setup.config.display(), setup.path("ssh/c"));
    let first = format!("{ssh} -o ControlMaster=auto -o ControlPersist=60 {TARGET} true");
    // In one process group, which ends with the script.
    let script = format!("{first} && {first} && {first} && {ssh} -O exit {TARGET}");
    run(&mut setup.world.shell(&script)).assert_ok();
    assert_eq!(setup.sim.requests().start, 1, "one session");
}

#[test]
fn a_jump_over_the_target() {
    let setup = Setup::new(sim());
    let finished = run(setup.client("ssh").args(["-J", TARGET, "jumped", "echo there"]));
    assert_eq!(finished.assert_ok().text(), "there\n");
    assert_eq!(setup.sim.requests().start, 1);
}

/// ssh shows the reason, instead of a bare "Connection closed by UNKNOWN port 65535".
#[test]
fn a_refused_session_is_explained_on_stderr() {
    let setup = Setup::new(sim());
    setup.sim.refuse_starts(Some("AccessDeniedException"));
    let finished = run(setup.client("ssh").args([TARGET, "true"]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("allow ssm:StartSession"), "{}", finished.errors());
}

/// Appended to the user's file as it is.
#[test]
fn the_printed_block_works_unedited() {
    let setup = Setup::new(sim());
    let block = run(&mut plugin(&setup.world, &["ssh-config"]));
    assert_eq!(block.errors(), "");
    let text = block.text();
    let expected = "# SSH over AWS Systems Manager, without the AWS CLI\nHost i-* mi-*\n    ProxyCommand \
                    session-manager-plugin ssh %h %p\n";
    assert_eq!(text, expected);
    let config = std::fs::read_to_string(&setup.config).expect("config");
    let keys = config.split_once("Host *\n").expect("the test's keys").1;
    std::fs::write(&setup.config, format!("{text}Host *\n{keys}")).expect("config");
    run(setup.client("ssh").args([TARGET, "true"])).assert_ok();
    let words = ["ssh-config", "prod-*", "--profile", "a%b", "--push-key"];
    let unknown = run(&mut plugin(&setup.world, &words));
    assert_eq!((unknown.status.code(), unknown.text().as_str()), (Some(255), ""));
    assert_eq!(
        unknown.errors(),
        "session-manager-plugin: ssh-config: profile \"a%b\" does not exist; no profiles are configured; run aws configure\n"
    );
    let folder = setup.world.home().join(".aws");
    std::fs::create_dir(&folder).expect("~/.aws");
    std::fs::write(folder.join("config"), "[profile a%b]\nregion = eu-west-1\n").expect("profiles");
    let text = run(&mut plugin(&setup.world, &words)).text();
    let socket = setup.world.home().join(".ssh/session-manager-plugin-%r@%h").display().to_string();
    let line = format!(
        "    ProxyCommand session-manager-plugin ssh --profile a%%b --push-key --user %r --identity-agent {socket} %h %p\n    \
         IdentityAgent \"{socket}\"\n    IdentitiesOnly no\n"
    );
    assert!(text.contains("Host prod-*\n") && text.ends_with(&line), "{text}");
    let words = ["ssh-config", "--wait", "--reason", "a b", "-qv"];
    let text = run(&mut plugin(&setup.world, &words)).text();
    assert!(text.ends_with(" ssh --reason 'a b' --wait=300 --quiet --verbose %h %p\n"), "{text}");
    let text = run(&mut plugin(&setup.world, &["ssh-config", "--push-key=~/.ssh/key"])).text();
    assert!(text.ends_with(" ssh '--push-key=~/.ssh/key' --user %r %h %p\n"), "{text}");
    // Not the one on the PATH: its whole path.
    let mut other = plugin(&setup.world, &["ssh-config"]);
    let text = run(other.env("PATH", "/nonexistent")).text();
    let path = crate::harness::plugin().canonicalize().expect("path").display().to_string();
    assert!(text.contains(&format!("ProxyCommand {path} ssh %h %p")), "{text}");
}

/// A server that accepts what the simulated EC2 Instance Connect has been given, and nothing else.
fn with_pushed_keys(file: &Path) -> Setup {
    std::fs::write(file, "").expect("write");
    let config = ssm_sim::Config { authorized_keys: Some(file.to_owned()), ..ssm_sim::Config::default() };
    let setup = Setup::new(crate::harness::sim::start(config));
    let server = std::fs::read_to_string(setup.world.path("ssh/sshd_config")).expect("sshd_config");
    let known = setup.path("ssh/user.pub");
    let server = server
        .replace(&format!("AuthorizedKeysFile {known}"), &format!("AuthorizedKeysFile {}", file.display()));
    assert!(server.contains(&file.display().to_string()), "{server}");
    std::fs::write(setup.world.path("ssh/sshd_config"), server).expect("sshd_config");
    setup
}

/// No key anywhere: the block of `ssh-config`, before the user's own settings, which allow named files only. The key is in
/// no file, and the socket is gone afterwards.
#[test]
fn a_key_made_for_the_run_opens_an_instance() {
    let keys = tempfile::tempdir().expect("folder");
    let file = keys.path().join("authorized_keys");
    let setup = with_pushed_keys(&file);
    let folder = setup.world.home().join(".ssh");
    std::fs::create_dir(&folder).expect("~/.ssh");
    let config = std::fs::read_to_string(&setup.config).expect("config");
    let rest = config.split_once("Host *\n").expect("the test's keys").1;
    let rest = rest.replace(&setup.path("ssh/user"), &setup.path("ssh/none"));
    let block = run(&mut plugin(&setup.world, &["ssh-config", "--push-key"])).text();
    std::fs::write(&setup.config, format!("{block}Host *\n{rest}")).expect("config");
    let ssh = format!("ssh -F '{}'", setup.config.display());
    // Processes that ssh leaves running must end before the script does.
    let nothing_is_left = format!("until [ -z \"$(ls -A '{}')\" ]; do sleep 0.05; done", folder.display());
    let finished = run(&mut setup.world.shell(&format!("{ssh} {TARGET} echo in && {nothing_is_left}")));
    assert_eq!(finished.assert_ok().text(), "in\n");
    let pushed = setup.sim.pushed_keys();
    assert_eq!((pushed.len(), pushed[0].user.as_str()), (1, user().as_str()));
    // Four at once, each with a key of its own behind one path.
    let script = format!(
        "all=; for n in 1 2 3 4; do {ssh} {TARGET} true & all=\"$all $!\"; done\n\
         for one in $all; do wait $one || exit; done; {nothing_is_left}"
    );
    run(&mut setup.world.shell(&script)).assert_ok();
    // An agent whose only key EC2 Instance Connect does not accept: it is still offered, and forwarded.
    let key = setup.path("ssh/ecdsa");
    let script = format!(
        "ssh-keygen -q -t ecdsa -N '' -f '{key}' && exec ssh-agent sh -c \"ssh-add -q '{key}' && {ssh} -A {TARGET} \
         'ssh-add -l | cut -d\\  -f3-'\""
    );
    let finished = run(&mut setup.world.shell(&script));
    assert!(
        finished.assert_ok().text().starts_with("session-manager-plugin (ED25519)\n"),
        "{}",
        finished.text()
    );
    assert!(finished.text().ends_with("(ECDSA)\n"), "{}", finished.text());
    assert_eq!(setup.sim.requests().push_key, 6);
    // Without a socket that ssh knows, a key of the run would be of no use.
    let finished = run(&mut plugin(&setup.world, &["ssh", "--push-key", TARGET]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("ssh-config --push-key"), "{}", finished.errors());
}

#[test]
fn a_pushed_key_opens_an_instance_without_keys() {
    let keys = tempfile::tempdir().expect("folder");
    let file = keys.path().join("authorized_keys");
    let setup = with_pushed_keys(&file);
    let known = setup.path("ssh/user.pub");
    let refused = run(setup.client("ssh").args([TARGET, "true"]));
    assert_eq!(refused.status.code(), Some(255), "without a pushed key");
    let proxy = format!("ProxyCommand=session-manager-plugin ssh --push-key={known} --user %r %h %p");
    run(setup.client("ssh").args(["-o", &proxy, TARGET, "true"])).assert_ok();
    let pushed = setup.sim.pushed_keys();
    assert_eq!((pushed[0].instance.as_str(), pushed[0].user.as_str()), (TARGET, user().as_str()));
    // The agent's first key, by a real agent.
    std::fs::write(&file, "").expect("write");
    let script = format!(
        "chmod 600 '{private}' && exec ssh-agent sh -c \"ssh-add -q '{private}' && ssh -F '{config}' -o 'ProxyCommand \
         session-manager-plugin ssh --push-key --user %r %h %p' {TARGET} true\"",
        private = setup.path("ssh/user"),
        config = setup.config.display(),
    );
    run(&mut setup.world.shell(&script)).assert_ok();
    assert_eq!(setup.sim.requests().push_key, 2);
    let finished = run(&mut plugin(&setup.world, &["ssh", "--push-key=/nonexistent", TARGET]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("/nonexistent.pub"), "{}", finished.errors());
    setup.sim.deny("ec2-instance-connect:SendSSHPublicKey", true);
    let finished = run(&mut plugin(&setup.world, &["ssh", &format!("--push-key={known}"), TARGET]));
    assert!(
        finished.errors().contains("allow ec2-instance-connect:SendSSHPublicKey"),
        "{}",
        finished.errors()
    );
    assert_eq!(setup.sim.requests().start, 3, "no session without the key");
}
