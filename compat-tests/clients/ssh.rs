//! OpenSSH with the ProxyCommand of AWS's documentation, against a real sshd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ssm_sim::agent::AgentOptions;
use ssm_sim::{Config, Faults, Sim};

use crate::harness::net::{FreePort, Server, connect, echo_through, eventually, random_bytes};
use crate::harness::process::{Running, run, run_with_input};
use crate::harness::sim::{sim, start, unpaced_sim};
use crate::harness::sshd::{Sshd, client_config};
use crate::harness::{Aws, TARGET, World, required};

/// For transfers of 20 MB.
const LONG: Duration = Duration::from_secs(180);

struct Setup {
    world: World,
    config: PathBuf,
    _sshd: Sshd,
    _sim: Sim,
}

impl Setup {
    #[track_caller]
    fn new(aws: Aws, sim: Sim) -> Setup {
        let world = World::new();
        world.install_aws(aws, &sim.endpoint());
        let sshd = Sshd::start(&world);
        let config = client_config(&world, sshd.port());
        Setup { world, config, _sshd: sshd, _sim: sim }
    }

    /// As fast as it goes: no pacing on either side, no message limit.
    #[track_caller]
    fn unpaced(aws: Aws) -> Setup {
        let mut setup = Setup::new(aws, unpaced_sim());
        setup.world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
        setup
    }

    /// `ssh`, `scp` or `sftp` with the test's configuration.
    fn client(&self, program: &str) -> Command {
        let mut command = self.world.command(required(Path::new("/usr/bin").join(program)));
        command.arg("-F").arg(&self.config);
        command
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.world.path(name);
        std::fs::write(&path, bytes).expect("write file");
        path.display().to_string()
    }

    fn digest(&self, name: &str) -> String {
        hex::encode(Sha256::digest(std::fs::read(self.world.path(name)).expect("read file")))
    }
}

#[track_caller]
fn assert_copied(setup: &Setup, command: &mut Command, from: &str, to: &str) {
    Running::spawn_without_stdin(command).finish_within(LONG).assert_ok();
    assert_eq!(setup.digest(from), setup.digest(to), "{from} and {to} differ");
}

fn command(aws: Aws) {
    let setup = Setup::new(aws, sim());
    let finished = run(setup.client("ssh").args([TARGET, "echo out; echo err >&2; exit 7"]));
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("out\n", "err\n"));
    assert_eq!(finished.status.code(), Some(7), "ssh brings the remote's status");
}

#[test]
fn command_with_cli_1() {
    command(Aws::V1);
}

#[test]
fn command_with_cli_2() {
    command(Aws::V2);
}

#[test]
fn input_and_its_end_pass() {
    let setup = Setup::new(Aws::V2, sim());
    let bytes = random_bytes(3, 200_000);
    let finished = run_with_input(setup.client("ssh").args([TARGET, "cat; echo the end"]), &bytes);
    finished.assert_ok();
    assert!(finished.stdout.strip_suffix(b"the end\n") == Some(&bytes[..]), "not the same bytes");
}

#[test]
fn scp_paced_with_defaults() {
    let setup = Setup::new(Aws::V1, sim());
    let up = setup.file("up", &random_bytes(1, 2_000_000));
    let target = format!("{TARGET}:{}", setup.world.path("there").display());
    assert_copied(&setup, setup.client("scp").args(["-q", &up, &target]), "up", "there");
    let back = setup.world.path("back").display().to_string();
    assert_copied(&setup, setup.client("scp").args(["-q", &target, &back]), "there", "back");
}

#[test]
fn scp_of_20_mb_both_ways() {
    let setup = Setup::unpaced(Aws::V2);
    let up = setup.file("up", &random_bytes(2, 20_000_000));
    let target = format!("{TARGET}:{}", setup.world.path("there").display());
    assert_copied(&setup, setup.client("scp").args(["-q", &up, &target]), "up", "there");
    let back = setup.world.path("back").display().to_string();
    assert_copied(&setup, setup.client("scp").args(["-q", &target, &back]), "there", "back");
}

/// The service closes the websocket each hour; here it does each second.
#[test]
fn scp_does_not_notice_that_the_websocket_is_closed() {
    let sim = start(Config {
        // Not faster than the agent can repeat what a cut has lost: it resends ten messages a second.
        agent: AgentOptions { payload: 4096, ..AgentOptions::default() },
        message_limit: None,
        faults: Faults { cut_every: Some(Duration::from_secs(1)), ..Faults::default() },
        ..Config::default()
    });
    let mut setup = Setup::new(Aws::V1, sim);
    setup.world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
    let up = setup.file("up", &random_bytes(3, 20_000_000));
    let target = format!("{TARGET}:{}", setup.world.path("there").display());
    assert_copied(&setup, setup.client("scp").args(["-q", "-l", "60000", &up, &target]), "up", "there");
    let back = setup.world.path("back").display().to_string();
    assert_copied(&setup, setup.client("scp").args(["-q", &target, &back]), "there", "back");
    let cuts: usize = setup._sim.sessions().iter().map(|session| session.opens.len() - 1).sum();
    assert!(cuts >= 2, "{cuts} cuts");
}

#[test]
fn sftp_puts_and_gets() {
    let setup = Setup::unpaced(Aws::V1);
    let up = setup.file("up", &random_bytes(4, 3_000_000));
    let (there, back) = (setup.world.path("there"), setup.world.path("back"));
    let batch = format!("put {up} {}\nget {} {}\n", there.display(), there.display(), back.display());
    let batch = setup.file("batch", batch.as_bytes());
    let mut client = setup.client("sftp");
    assert_copied(&setup, client.args(["-q", "-b", &batch, TARGET]), "up", "there");
    assert_eq!(setup.digest("there"), setup.digest("back"));
}

#[test]
fn local_forwarding() {
    let setup = Setup::unpaced(Aws::V2);
    let (echo, free) = (Server::echo(), FreePort::new());
    let local = free.number();
    let forward = format!("127.0.0.1:{local}:127.0.0.1:{}", echo.port());
    let mut client = setup.client("ssh");
    client.args(["-o", "ExitOnForwardFailure=yes", "-N", "-L", &forward, TARGET]);
    let _ssh = Running::spawn_without_stdin(&mut client);
    eventually("ssh listens", || std::net::TcpStream::connect(("127.0.0.1", local)).is_ok());
    drop(connect(local));
    let bytes = random_bytes(5, 1_000_000);
    assert!(echo_through(local, &bytes) == bytes, "the echo differs");
}

#[test]
fn no_session_text_gets_into_the_stream() {
    // OpenSSH skips lines before the server's version; after it, one foreign byte breaks the connection.
    let setup = Setup::new(Aws::V1, sim());
    let finished = run(setup.client("ssh").args(["-v", TARGET, "true"]));
    finished.assert_ok();
    assert!(!finished.errors().contains("Bad packet length"), "{}", finished.errors());
}
