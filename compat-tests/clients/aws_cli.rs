//! The unchanged AWS CLIs, 1 and 2, with our plugin on their PATH and `--endpoint-url` at the simulator.

use std::process::Command;

use rustix::process::Signal;
use ssm_sim::Sim;

use crate::harness::net::{FreePort, Server, echo_through, opened_port, random_bytes};
use crate::harness::process::{Running, run, run_with_input};
use crate::harness::pty::Pty;
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::{Aws, TARGET, World, is_root};

/// One CLI, one simulator.
struct Setup {
    world: World,
    sim: Sim,
    aws: Aws,
}

impl Setup {
    fn new(aws: Aws) -> Setup {
        Setup { world: World::new(), sim: sim(), aws }
    }

    fn aws(&self, args: &[&str]) -> Command {
        self.world.aws(self.aws, &self.sim.endpoint(), args)
    }

    /// A line of AWS's documentation, as it stands there.
    fn documented(&self, line: &str) -> Command {
        self.world.install_aws(self.aws, &self.sim.endpoint());
        self.world.shell(&format!("exec {line}"))
    }

    /// A shell on a terminal, at its prompt.
    #[track_caller]
    fn terminal(&self) -> Pty {
        let mut pty = Pty::spawn(&self.aws(&["ssm", "start-session", "--target", TARGET]));
        pty.wait_for("Starting session with SessionId: ");
        prompt(&mut pty);
        pty
    }
}

/// Prompt of `sh`.
#[track_caller]
fn prompt(pty: &mut Pty) {
    pty.wait_for(if is_root() { "# " } else { "$ " });
}

fn shell_types_and_exits(aws: Aws) {
    let setup = Setup::new(aws);
    let mut pty = setup.terminal();
    pty.send("echo sum-$((40+2))\r");
    pty.wait_for("sum-42");
    pty.send("exit\r");
    pty.wait_for("Exiting session with sessionId: ");
    assert!(pty.finish().success());
    assert_all_ended(&setup.sim);
}

fn shell_follows_the_window(aws: Aws) {
    let setup = Setup::new(aws);
    let mut pty = setup.terminal();
    pty.send("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo first-$((1+1))\r");
    pty.wait_for("first-2");
    pty.resize(123, 45);
    pty.send("until [ \"$(stty size)\" = '45 123' ]; do sleep 0.1; done; echo second-$((2+2))\r");
    pty.wait_for("second-4");
    pty.send("exit\r");
    assert!(pty.finish().success());
}

fn control_keys_reach_the_remote(aws: Aws) {
    let setup = Setup::new(aws);
    let mut pty = setup.terminal();
    // Ctrl-C ends a sleeping command, not the session.
    pty.send("sh -c 'echo one-$((1+0)); exec sleep 1000'\r");
    pty.wait_for("one-1");
    pty.send("\x03");
    pty.send("echo back-$((2+3))\r");
    pty.wait_for("back-5");
    // Ctrl-Z stops it there, not here.
    pty.send("sh -c 'echo two-$((1+1)); exec sleep 1000'\r");
    pty.wait_for("two-2");
    pty.send("\x1a");
    pty.wait_for("Stopped");
    pty.send("kill -9 %1; echo again-$((3+3))\r");
    pty.wait_for("again-6");
    // Ctrl-\ arrives as SIGQUIT there.
    pty.send(
        "sh -c 'trap \"echo quit-$((3+4)); exit\" QUIT; echo three-$((1+2)); while :; do sleep 0.1; done'\r",
    );
    pty.wait_for("three-3");
    pty.send("\x1c");
    pty.wait_for("quit-7");
    pty.send("exit\r");
    pty.wait_for("Exiting session with sessionId: ");
    assert!(pty.finish().success());
}

/// `echo command | aws ssm start-session`: the input's end is not the session's, agent and shell end it.
fn piped_input_gets_its_answer(aws: Aws) {
    let setup = Setup::new(aws);
    let mut command = setup.aws(&["ssm", "start-session", "--target", TARGET]);
    let finished = run_with_input(&mut command, b"sleep 1; echo late-$((40+2))\nexit\n");
    finished.assert_ok();
    let text = finished.text();
    assert!(text.contains("late-42"), "{text}");
    assert!(text.contains("Exiting session with sessionId: "), "{text}");
    assert!(!text.contains("EOF"), "{text}");
    assert_all_ended(&setup.sim);
}

/// A port document: bytes go through, Ctrl-C ends it.
#[track_caller]
fn forwards(setup: &Setup, command: &mut Command, local_port: u16) {
    let running = Running::spawn_without_stdin(command);
    assert_eq!(opened_port(&running.stdout), local_port);
    running.stdout.wait_for("Waiting for connections...");
    let bytes = random_bytes(7, 100_000);
    assert!(echo_through(local_port, &bytes) == bytes, "the echo differs");
    running.stdout.wait_for("Connection accepted for session [");
    running.signal_group(Signal::INT);
    let finished = running.finish();
    assert!(finished.text().contains("Terminate signal received, exiting.\n"), "{}", finished.text());
    finished.assert_ok();
    assert_all_ended(&setup.sim);
}

fn port_document_with_json(aws: Aws) {
    let (setup, echo, local) = (Setup::new(aws), Server::echo(), FreePort::new());
    let line = format!(
        "aws ssm start-session --target {TARGET} --document-name AWS-StartPortForwardingSession \
         --parameters '{{\"portNumber\":[\"{}\"], \"localPortNumber\":[\"{}\"]}}'",
        echo.port(),
        local.number()
    );
    forwards(&setup, &mut setup.documented(&line), local.number());
}

fn port_document_with_shorthand(aws: Aws) {
    let (setup, echo, local) = (Setup::new(aws), Server::echo(), FreePort::new());
    let line = format!(
        "aws ssm start-session --target {TARGET} --document-name AWS-StartPortForwardingSession \
         --parameters portNumber={},localPortNumber={}",
        echo.port(),
        local.number()
    );
    forwards(&setup, &mut setup.documented(&line), local.number());
}

fn remote_host_document_with_json(aws: Aws) {
    let (setup, echo, local) = (Setup::new(aws), Server::echo(), FreePort::new());
    let line = format!(
        "aws ssm start-session --target {TARGET} --document-name AWS-StartPortForwardingSessionToRemoteHost \
         --parameters '{{\"host\":[\"127.0.0.1\"],\"portNumber\":[\"{}\"], \"localPortNumber\":[\"{}\"]}}'",
        echo.port(),
        local.number()
    );
    forwards(&setup, &mut setup.documented(&line), local.number());
}

fn remote_host_document_with_shorthand(aws: Aws) {
    let (setup, echo, local) = (Setup::new(aws), Server::echo(), FreePort::new());
    let line = format!(
        "aws ssm start-session --target {TARGET} --document-name AWS-StartPortForwardingSessionToRemoteHost \
         --parameters host=\"127.0.0.1\",portNumber=\"{}\",localPortNumber=\"{}\"",
        echo.port(),
        local.number()
    );
    forwards(&setup, &mut setup.documented(&line), local.number());
}

fn ecs_execute_command(aws: Aws) {
    let setup = Setup::new(aws);
    let mut command = setup.aws(&["ecs", "execute-command", "--cluster", "MyCluster"]);
    command.args(["--task", "d789e94343414c25b9f6bd59eEXAMPLE", "--container", "app"]);
    let mut pty = Pty::spawn(command.args(["--interactive", "--command", "/bin/sh"]));
    pty.wait_for("The Session Manager plugin was installed successfully.");
    pty.wait_for("Starting session with SessionId: ");
    prompt(&mut pty);
    pty.send("echo task-$((40+2))\r");
    pty.wait_for("task-42");
    pty.send("exit\r");
    pty.wait_for("Exiting session with sessionId: ");
    assert!(pty.finish().success());
    assert_all_ended(&setup.sim);
}

fn interactive_command(aws: Aws) {
    let setup = Setup::new(aws);
    let mut command = setup.aws(&["ssm", "start-session", "--target", TARGET]);
    command.args(["--document-name", "AWS-StartInteractiveCommand", "--parameters"]);
    command.arg("{\"command\": [\"echo ready; read answer; echo you said $answer on $(tty)\"]}");
    let mut pty = Pty::spawn(&command);
    pty.wait_for("ready");
    pty.send("hello there\r");
    pty.wait_for("you said hello there on /dev/");
    pty.wait_for("Exiting session with sessionId: ");
    assert!(pty.finish().success());
    assert_all_ended(&setup.sim);
}

fn non_interactive_command(aws: Aws) {
    let setup = Setup::new(aws);
    let mut command = setup.aws(&["ssm", "start-session", "--target", TARGET]);
    command.args(["--document-name", "AWS-StartNonInteractiveCommand", "--parameters"]);
    command.arg("{\"command\": [\"sh -c 'echo to stdout; echo to stderr >&2; exit 3'\"],\"separateOutputStream\":[\"True\"]}");
    let finished = run(&mut command);
    finished.assert_ok();
    let text = finished.text();
    for part in ["Starting session with SessionId: ", "to stdout", "to stderr", "EXIT_CODE: 3"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_all_ended(&setup.sim);
}

fn non_interactive_command_with_one_stream(aws: Aws) {
    let setup = Setup::new(aws);
    let mut command = setup.aws(&["ssm", "start-session", "--target", TARGET]);
    command.args(["--document-name", "AWS-StartNonInteractiveCommand", "--parameters"]);
    command.arg("{\"command\": [\"seq 1 2000\"]}");
    let finished = run(&mut command);
    finished.assert_ok();
    let text = finished.text().replace('\r', "");
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=2000), "not all, or not in order: {text}");
}

fn unknown_target_is_the_clis_own_error(aws: Aws) {
    let setup = Setup::new(aws);
    let finished = run(&mut setup.aws(&["ssm", "start-session", "--target", "i-0aaaaaaaaaaaaaaaa"]));
    assert!(!finished.status.success());
    assert!(finished.errors().contains("TargetNotConnected"), "{}", finished.errors());
}

macro_rules! with_both {
    ($($name:ident),* $(,)?) => {
        mod version_1 {
            use super::Aws;
            $(#[test]
            fn $name() {
                super::$name(Aws::V1);
            })*
        }

        mod version_2 {
            use super::Aws;
            $(#[test]
            fn $name() {
                super::$name(Aws::V2);
            })*
        }
    };
}

with_both!(
    shell_types_and_exits,
    shell_follows_the_window,
    control_keys_reach_the_remote,
    piped_input_gets_its_answer,
    port_document_with_json,
    port_document_with_shorthand,
    remote_host_document_with_json,
    remote_host_document_with_shorthand,
    ecs_execute_command,
    interactive_command,
    non_interactive_command,
    non_interactive_command_with_one_stream,
    unknown_target_is_the_clis_own_error,
);
