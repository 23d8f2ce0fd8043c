//! `scripts/verify-on-aws` against a simulator that keeps the service's rules, and against others that break one each.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ssm_sim::agent::{AgentOptions, Broken};
use ssm_sim::{Config, ResumePolicy, Sim};

use crate::harness::net::Server;
use crate::harness::process::{Finished, Running, run};
use crate::harness::sim::{sim, start};
use crate::harness::sshd::Sshd;
use crate::harness::{Aws, TARGET, World, plugin, required_one_of, user};

/// For all checks on a loaded machine: some twenty sessions, each through an AWS CLI of its own.
const WHOLE_RUN: Duration = Duration::from_secs(300);

/// The script with its report in the world's folder.
fn verify(world: &World, sim: &Sim, seconds: &str, more: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify-on-aws");
    let mut command = world.command(required_one_of(&["/usr/bin/python3", "/usr/local/bin/python3"]));
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args([TARGET, "--seconds", seconds]);
    command.args(["--endpoint-url", &sim.endpoint(), "--plugin"]).arg(plugin());
    command.arg("--aws").arg(Aws::V1.program()).arg("--out").arg(world.path("report.md")).args(more);
    command
}

/// One check at a service that breaks a rule, with the words it must find for that.
#[track_caller]
fn says(config: Config, check: &str, patience: &str, words: &str) {
    let (world, sim) = (World::new(), start(config));
    let finished = run(&mut verify(&world, &sim, "4", &["--only", check, "--patience", patience]));
    assert_eq!(finished.status.code(), Some(1), "{}{}", finished.text(), finished.errors());
    let report = report(&world);
    let failed = report.lines().find(|line| line.contains("| FAILED |"));
    assert!(failed.is_some_and(|line| line.contains(words)), "{words:?} is not what it says:\n{report}");
}

fn agent(broken: Broken) -> Config {
    Config { agent: AgentOptions { broken: Some(broken), ..AgentOptions::default() }, ..Config::default() }
}

fn report(world: &World) -> String {
    std::fs::read_to_string(world.path("report.md")).expect("the report")
}

#[track_caller]
fn assert_passed(report: &str, finished: &Finished, title: &str) {
    let words = format!("| {title} | passed |");
    assert!(report.contains(&words), "{words:?} is not in the report:\n{report}\n{}", finished.errors());
}

#[test]
fn a_compliant_service_passes_and_the_report_is_shareable() {
    let (world, sim) = (World::new(), sim());
    let (sshd, greeter) = (Sshd::start(&world), Server::greeting("hello\n"));
    let (key, ssh_port) = (world.path("ssh/user"), sshd.port().to_string());
    let remote = format!("127.0.0.1:{}", greeter.port());
    let more =
        ["--idle", "5", "--remote-host", &remote, "--ssh-user", &user(), "--ssh-port", &ssh_port, "--limits"];
    let mut command = verify(&world, &sim, "1", &more);
    command.args(["--task", "cluster/0123456789abcdef", "--ssh-key"]).arg(key);
    let finished = Running::spawn_without_stdin(&mut command).finish_within(WHOLE_RUN);
    let report = report(&world);
    assert!(finished.status.success(), "{report}\n{}", finished.errors());
    for title in [
        "a shell, its input from a pipe",
        "a shell on a terminal",
        "a command with an exit code",
        "a command with much output",
        "a forwarded port",
        "many connections at once",
        "a request that ends before its answer",
        "upload at the defaults",
        "download at the defaults",
        "a cut connection",
        "a port of another host",
        "ssh",
        "bytes over ssh, and scp",
        "ecs execute-command",
        "an idle forwarded port",
        "upload, payloads of 16 KiB, 900 messages a second",
        "four sessions behind one port",
    ] {
        assert_passed(&report, &finished, title);
    }
    assert!(report.contains("| no handshake, not encrypted |"), "{report}");
    for private in [TARGET, "sim-0", "AKIA", "cluster", "0123456789abcdef", "Token"] {
        assert!(!report.contains(private), "{private} is in the report:\n{report}");
    }
}

#[test]
fn a_service_that_cuts_at_a_lower_rate_is_found() {
    let config = Config { message_limit: Some(100), ..Config::default() };
    says(config, "upload", "20", "during the upload");
}

#[test]
fn a_service_that_does_not_let_sessions_resume_is_found() {
    let config = Config { resume: ResumePolicy::TimedOut, ..Config::default() };
    says(config, "resume", "20", "the session did not come back after a cut");
}

#[test]
fn an_agent_with_another_exit_code_is_found() {
    says(
        agent(Broken::ExitCode),
        "command",
        "40",
        "the command ended with 7, and the exit code that came is 8",
    );
}

#[test]
fn an_agent_that_loses_output_is_found() {
    says(agent(Broken::LostOutput), "output", "40", "output was lost: ");
}

#[test]
fn an_agent_that_never_acknowledges_is_found() {
    says(agent(Broken::NoAcknowledgement), "upload", "8", "stopped after");
}
