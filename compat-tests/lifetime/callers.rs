//! Callers that leave us running: a shell's pipeline, a caller that ends, another PID namespace.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::processes;
use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::{echo_through, eventually, opened_port};
use crate::harness::process::Running;

/// A forwarded port to an echo server, and what is left of it at the end.
pub(super) struct Forward {
    pub(super) world: World,
    sim: Sim,
    _far: Server,
    started: Started,
}

impl Forward {
    #[track_caller]
    pub(super) fn new() -> Forward {
        let (world, sim, far) = (World::new(), sim(), Server::echo());
        let started = Started::port(&sim.endpoint(), far.port(), 0);
        Forward { world, sim, _far: far, started }
    }

    pub(super) fn command(&self) -> Command {
        self.started.command(&self.world)
    }

    /// `program` with the plugin's command behind its arguments.
    pub(super) fn called_by(&self, program: &str, arguments: &[&str]) -> Command {
        let command = self.command();
        let mut caller = self.world.command(program);
        caller.args(arguments).arg(command.get_program()).args(command.get_args());
        caller.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        caller
    }

    #[track_caller]
    pub(super) fn plugin(&self) -> u32 {
        processes::plugins(&self.world).pop().expect("the plugin").pid
    }

    /// The port works on for longer than a dead parent was once noticed after; then the session is ended.
    #[track_caller]
    pub(super) fn assert_stays(&self, port: u16) {
        let begin = Instant::now();
        while begin.elapsed() < STAYS {
            assert_eq!(echo_through(port, b"still here"), b"still here");
            std::thread::sleep(Duration::from_millis(50));
        }
        kill_process(to_pid(self.plugin()), Signal::TERM).expect("signal the plugin");
        let left = processes::left_after(PROMPT, || processes::plugins(&self.world));
        assert!(left.is_empty(), "{left:?}");
        assert_ended(&self.sim, self.started.id());
    }

    /// `caller` writes the plugin's output to `out`, and leaves when the port is open; the plugin stays.
    #[track_caller]
    fn assert_survives(&self, mut caller: Command) {
        caller.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        assert!(caller.status().expect("the caller").success(), "{caller:?}");
        let text = std::fs::read_to_string(self.world.home().join("out")).expect("its output");
        self.assert_stays(port_in(&text));
    }

    #[track_caller]
    pub(super) fn assert_gone(&self) {
        let left = processes::left_after(PROMPT, || processes::of(&self.world));
        assert!(left.is_empty(), "{left:?}");
        assert_ended(&self.sim, self.started.id());
    }
}

impl Drop for Forward {
    /// A plugin that outlives its caller shall not outlive a failed test.
    fn drop(&mut self) {
        for process in processes::of(&self.world) {
            let _ = kill_process(to_pid(process.pid), Signal::KILL);
        }
    }
}

/// A shell with job control puts a pipeline into a process group of its own, led by the first part.
#[track_caller]
fn a_part_of_a_pipeline(shell: &str, line: &str) {
    let forward = Forward::new();
    let terminal = Terminal::spawn(&forward.called_by(shell, &["-m", "-c", line, "sh"]));
    let port = opened_port(&terminal.screen);
    terminal.wait_for("Waiting for connections...");
    forward.assert_stays(port);
}

#[test]
fn agent_155_the_last_part_of_a_pipeline_of_bash_stays() {
    a_part_of_a_pipeline("/bin/bash", "sleep 1000 | \"$@\"");
}

#[test]
fn agent_155_the_middle_of_a_pipeline_of_bash_stays() {
    a_part_of_a_pipeline("/bin/bash", "sleep 1000 | \"$@\" | cat");
}

/// The leader of the process group is gone.
#[test]
fn agent_155_the_last_part_of_a_pipeline_of_bash_stays_without_the_first() {
    a_part_of_a_pipeline("/bin/bash", ": | \"$@\"");
}

#[test]
fn agent_155_the_last_part_of_a_pipeline_of_sh_stays() {
    a_part_of_a_pipeline("/bin/sh", "sleep 1000 | \"$@\"");
}

#[test]
fn agent_155_the_middle_of_a_pipeline_of_sh_stays() {
    a_part_of_a_pipeline("/bin/sh", "sleep 1000 | \"$@\" | cat");
}

/// A script for a remote shell, behind a pipe.
#[test]
fn agent_155_a_script_through_a_pipeline_is_run_to_its_end() {
    for shell in ["/bin/bash", "/bin/sh"] {
        let (world, sim) = (World::new(), sim());
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let command = under_a_shell(
            &world,
            &started.command(&world),
            shell,
            "echo 'sleep 1; echo two-$((1+1))' | \"$@\" | cat",
        );
        let mut terminal = Terminal::spawn(&command);
        terminal.wait_for("two-2");
        assert!(terminal.finish_within(PROMPT).success(), "{}", terminal.screen.text());
        assert_ended(&sim, started.id());
    }
}

fn under_a_shell(world: &World, command: &Command, shell: &str, line: &str) -> Command {
    let mut caller = world.command(shell);
    caller.args(["-m", "-c", line, "sh"]).arg(command.get_program()).args(command.get_args());
    caller.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    caller
}

/// A caller that starts us and is gone a moment later.
#[track_caller]
fn a_caller_that_leaves(program: &str, arguments: &[&str]) {
    let forward = Forward::new();
    let path = forward.world.path("out");
    let out = std::fs::File::create(&path).expect("a file");
    let mut caller = forward.called_by(program, arguments);
    caller.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).process_group(0);
    assert!(caller.status().expect("the caller").success());
    let text = || std::fs::read_to_string(&path).expect("the file");
    eventually("the port is open", || text().contains("Waiting for connections..."));
    assert!(!is_running(&forward.world, program), "the caller has left");
    forward.assert_stays(port_in(&text()));
}

fn is_running(world: &World, program: &str) -> bool {
    let program = std::fs::canonicalize(program).expect("the program");
    let runs = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    processes::of(world).iter().any(|process| runs(process.pid))
}

fn port_in(text: &str) -> u16 {
    let after = text.split_once("Port ").expect("a port line").1;
    after.split(' ').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn a_caller_that_writes_a_pid_file_and_leaves() {
    let script = "import subprocess, sys\n\
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)\n\
        open('pid', 'w').write(str(child.pid))";
    a_caller_that_leaves("/usr/bin/python3", &["-c", script]);
}

/// A caller's own script, named much like the AWS CLI: 1,386 public repositories have an `aws.py`. It leaves when the
/// port is open.
#[test]
fn scripts_of_other_names_may_leave() {
    for name in ["aws.py", "aws.pyz", "aws.cmd", "AWS", "aws/__main__.py"] {
        let forward = Forward::new();
        let program = forward.world.path(name);
        std::fs::create_dir_all(program.parent().expect("a folder")).expect("make its folder");
        std::fs::write(&program, LEAVES_WHEN_OPEN).expect("write the script");
        // A folder is run by its own name.
        let program = if name.ends_with("__main__.py") { forward.world.path("aws") } else { program };
        let program = program.to_str().expect("UTF-8");
        forward.assert_survives(forward.called_by("/usr/bin/python3", &[program]));
    }
}

/// As a program with many names has it: the name that it was called by is not its own.
#[test]
fn a_program_that_was_called_aws_may_leave() {
    let forward = Forward::new();
    let line = "\"$@\" >out & until grep -q Waiting out; do sleep 0.05; done";
    let mut caller = forward.called_by("/bin/sh", &["-c", line, "sh"]);
    caller.arg0("aws");
    forward.assert_survives(caller);
}

/// Starts its arguments, and leaves when a port is open.
const LEAVES_WHEN_OPEN: &str = "import subprocess, sys, time
with open('out', 'wb') as out:
    subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=out)
while b'Waiting' not in open('out', 'rb').read():
    time.sleep(0.05)
";

#[test]
fn nohup_in_the_background() {
    a_caller_that_leaves("/bin/bash", &["-c", "nohup \"$@\" & sleep 0.2", "sh"]);
}

#[test]
fn a_session_of_its_own() {
    a_caller_that_leaves("/bin/bash", &["-c", "setsid \"$@\" & sleep 0.2", "sh"]);
}

#[test]
fn a_double_fork() {
    let script = "import os, sys\n\
        if os.fork(): os._exit(0)\n\
        os.setsid()\n\
        if os.fork(): os._exit(0)\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    a_caller_that_leaves("/usr/bin/python3", &["-c", script]);
}

#[test]
fn a_shell_that_ends_at_once() {
    a_caller_that_leaves("/bin/sh", &["-c", "\"$@\" &", "sh"]);
}

/// firejail#2267, bubblewrap#744: the process group is one of another namespace, number 0.
#[track_caller]
fn in_a_pid_namespace(arguments: &[&str]) {
    let mut unshare = vec!["--pid", "--fork"];
    if !is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    unshare.extend(arguments);
    let forward = Forward::new();
    let running = Running::spawn_without_stdin(&mut forward.called_by("/usr/bin/unshare", &unshare));
    let port = opened_port(&running.stdout);
    forward.assert_stays(port);
    assert!(!running.stderr.text().contains("panicked at"), "{}", running.stderr.text());

    // Raw mode asks for the group, too.
    let started = Started::at(&forward.sim.endpoint(), None, json!({}));
    let command = started.command(&forward.world);
    let mut caller = forward.world.command("/usr/bin/unshare");
    caller.args(&unshare).arg(command.get_program()).args(command.get_args());
    caller.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Terminal::spawn(&caller);
    terminal.wait_for(prompt());
    assert!(terminal.is_changed(), "no raw mode");
    terminal.send("echo two-$((1+1)); exit\r");
    terminal.wait_for("two-2");
    assert!(terminal.finish_within(PROMPT).success(), "{}", terminal.screen.text());
    terminal.assert_restored();
}

#[test]
fn firejail_2267_the_first_process_of_a_pid_namespace() {
    in_a_pid_namespace(&[]);
}

#[test]
fn firejail_2267_a_child_of_a_shell_in_a_pid_namespace() {
    in_a_pid_namespace(&["/bin/sh", "-c", "\"$@\"; :", "sh"]);
}

/// A dead parent was once noticed within half a second.
const STAYS: Duration = Duration::from_millis(1500);
