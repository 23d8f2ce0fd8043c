//! The death of the AWS CLI ends the session that it waited for, and costs nothing until then (cli#5149).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::callers::Forward;
use super::processes;
use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::{connect, echo_through, opened_port};
use crate::harness::process::Running;
use crate::harness::sim::await_pings;
use crate::harness::{Aws, TARGET};

/// The real ones: the port is closed within a second.
#[track_caller]
fn a_killed_aws_closes_its_port(aws: Aws) {
    let (world, sim, far) = (World::new(), sim(), Server::echo());
    let parameters = json!({"portNumber": [far.port().to_string()], "localPortNumber": ["0"]}).to_string();
    let document = "AWS-StartPortForwardingSession";
    let words = [
        "ssm",
        "start-session",
        "--target",
        TARGET,
        "--document-name",
        document,
        "--parameters",
        &parameters,
    ];
    let cli = Running::spawn_without_stdin(&mut world.aws(aws, &sim.endpoint(), &words));
    let port = opened_port(&cli.stdout);
    assert_eq!(echo_through(port, b"open"), b"open");
    let id = cli
        .stdout
        .text()
        .split("sessionId ")
        .nth(1)
        .and_then(|rest| rest.split('.').next())
        .expect("id")
        .to_owned();
    let open = connect(port);
    cli.signal(Signal::KILL);
    let begin = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(begin.elapsed() < SECOND, "the port is still open");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(open);
    let left = processes::left_after(PROMPT, || processes::of(&world));
    assert!(left.is_empty(), "{left:?}");
    assert_ended(&sim, &id);
}

#[test]
fn cli_5149_killed_aws_1_closes_its_port_within_a_second() {
    a_killed_aws_closes_its_port(Aws::V1);
}

#[test]
fn cli_5149_killed_aws_2_closes_its_port_within_a_second() {
    a_killed_aws_closes_its_port(Aws::V2);
}

/// The shell is gone within a second, and the terminal as it was.
#[track_caller]
fn a_killed_aws_ends_its_shell(aws: Aws) {
    let (world, sim) = (World::new(), sim());
    let inner = world.aws(aws, &sim.endpoint(), &["ssm", "start-session", "--target", TARGET]);
    let terminal = Terminal::spawn(&under(&world, &inner, "exec sleep 1000"));
    terminal.wait_for(prompt());
    assert!(terminal.is_changed());
    let plugin = processes::plugins(&world).pop().expect("the plugin");
    kill_process(to_pid(plugin.parent), Signal::KILL).expect("kill the CLI");
    let begin = Instant::now();
    while terminal.is_changed() {
        assert!(begin.elapsed() < SECOND, "the terminal is still raw");
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = processes::left_after(PROMPT, || processes::plugins(&world));
    assert!(left.is_empty(), "{left:?}");
    crate::harness::sim::assert_all_ended(&sim);
}

#[test]
fn cli_5149_killed_aws_1_ends_its_shell_within_a_second() {
    a_killed_aws_ends_its_shell(Aws::V1);
}

#[test]
fn cli_5149_killed_aws_2_ends_its_shell_within_a_second() {
    a_killed_aws_ends_its_shell(Aws::V2);
}

/// A process that is killed loses its name before it has given back its memory, and is our parent until then. This one is
/// killed as soon as the plugin runs, and has much to give back.
#[test]
fn a_cli_that_is_exiting_when_the_plugin_looks() {
    let (world, sim, far) = (World::new(), sim(), Server::echo());
    let started = Kind::Mux.start(&sim, &far);
    let plain = under_the_cli(&world, &started.command(&world));
    let script = "import os, signal, subprocess, sys
memory = bytearray(b'x') * (256 << 20)
subprocess.Popen(sys.argv[1:])
os.kill(os.getpid(), signal.SIGKILL)
";
    std::fs::write(world.path("aws"), script).expect("write the stand-in");
    // As the job of a shell is: in a group of its own, which is not that of the process which adopts the plugin.
    let mut cli = plain;
    cli.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = cli.spawn().expect("start").wait();
    let left = processes::left_after(PROMPT, || processes::of(&world));
    assert!(left.is_empty(), "{left:?}");
}

/// Its streams tell when it is over; ssh, behind them, lives on.
#[test]
fn an_ssh_session_outlives_the_aws_cli() {
    let (mut world, sim, far) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let started = Kind::Stdio.start(&sim, &far);
    let mut cli = Running::spawn(&mut under_the_cli(&world, &started.command(&world)));
    let mut stdin = cli.take_stdin();
    stdin.write_all(b"before\n").expect("write");
    cli.stdout.wait_for("before");
    cli.signal(Signal::KILL);
    await_pings(&sim, started.id(), 2);
    stdin.write_all(b"after\n").expect("write");
    cli.stdout.wait_for("after");
    drop(stdin);
    let left = processes::left_after(PROMPT, || processes::of(&world));
    assert!(left.is_empty(), "{left:?}");
    assert_ended(&sim, started.id());
}

/// `aws` was killed while the plugin was being started: there is no death to be seen any more, only the shell's word
/// (`_`) for what it has run, and a parent of another process group. A tool that left has no such word.
#[track_caller]
fn an_orphan_from_the_start(word: &str, keep: &str, stays: bool) {
    let mut forward = Forward::new();
    forward.world.set("SSM_PLUGIN_KEEP_ALIVE_WITHOUT_PARENT", keep);
    // The inner shell waits until it has been orphaned, then becomes the plugin.
    let line = "(while kill -0 $$ 2>/dev/null; do sleep 0.05; done; exec \"$@\") & :";
    let mut caller = forward.called_by("/bin/sh", &["-c", line, "sh"]);
    caller.env("_", word).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = caller.spawn().expect("start");
    let stdout = Output::read(child.stdout.take().expect("piped stdout"));
    child.wait().expect("its end");
    stdout.wait_for("Starting session");
    if stays {
        forward.assert_stays(opened_port(&stdout));
    } else {
        forward.assert_gone();
    }
}

#[test]
fn an_aws_cli_that_died_before_we_could_look_ends_us() {
    an_orphan_from_the_start("/usr/bin/aws", "0", false);
}

#[test]
fn an_aws_cli_that_died_before_we_could_look_is_survived_on_request() {
    an_orphan_from_the_start("/usr/bin/aws", "1", true);
}

#[test]
fn another_caller_that_died_before_we_could_look_is_survived() {
    an_orphan_from_the_start("/usr/local/bin/my-tunnel", "0", true);
}

/// No timer looks for the parent, and nothing else does often: `pidfd` and pings.
#[test]
fn an_idle_forward_sleeps_between_its_pings() {
    let forward = Forward::new();
    let cli = Running::spawn_without_stdin(&mut under_the_cli(&forward.world, &forward.command()));
    // Without a connection: the end of one is reported to the agent when it has been quiet for a while, and wakes us for that.
    opened_port(&cli.stdout);
    std::thread::sleep(Duration::from_secs(1));
    let plugin = forward.plugin();
    let before = switches(plugin);
    std::thread::sleep(IDLE);
    let after = switches(plugin).into_iter();
    let woken: u64 = after.map(|(thread, count)| count - before.get(&thread).unwrap_or(&0)).sum();
    assert!(woken <= IDLE_WAKEUPS, "{woken} wakeups in {IDLE:?}");
    cli.signal(Signal::KILL);
    forward.assert_gone();
}

/// Number of voluntary context switches of each thread of a process, by thread id.
fn switches(pid: u32) -> BTreeMap<OsString, u64> {
    let tasks =
        std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("its threads");
    let of = |task: DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((task.file_name(), line.trim().parse().expect("a number")))
    };
    // The runtime's thread for blocking calls ends when it has had none for a while.
    tasks.filter_map(|task| of(task.ok()?)).collect()
}

const SECOND: Duration = Duration::from_secs(1);
/// Less than the interval of pings.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_WAKEUPS: u64 = 2;
