//! Who may call us and leave, and whose death ends us: the AWS CLI's alone (cli#5149).

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::processes;
use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::{connect, echo_through, eventually, opened_port};
use crate::harness::process::{Running, run};
use crate::harness::sshd::{Sshd, client_config};
use crate::harness::{Aws, TARGET, required};

/// A forwarded port to an echo server, and what is left of it at the end.
struct Forward {
    world: World,
    sim: Sim,
    _far: Server,
    started: Started,
}

impl Forward {
    #[track_caller]
    fn new() -> Forward {
        let (world, sim, far) = (World::new(), sim(), Server::echo());
        let started = Started::port(&sim.endpoint(), far.port(), 0);
        Forward { world, sim, _far: far, started }
    }

    fn command(&self) -> Command {
        self.started.command(&self.world)
    }

    /// `program` with the plugin's command behind its arguments.
    fn called_by(&self, program: &str, arguments: &[&str]) -> Command {
        let command = self.command();
        let mut caller = self.world.command(program);
        caller.args(arguments).arg(command.get_program()).args(command.get_args());
        caller.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        caller
    }

    #[track_caller]
    fn plugin(&self) -> u32 {
        processes::plugins(&self.world).pop().expect("the plugin").pid
    }

    /// The port works on for longer than a dead parent was once noticed after; then the session is ended.
    #[track_caller]
    fn assert_stays(&self, port: u16) {
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

    #[track_caller]
    fn assert_gone(&self) {
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

#[test]
fn nohup_in_the_background() {
    a_caller_that_leaves("/bin/bash", &["-c", "nohup \"$@\" & sleep 0.2", "sh"]);
}

#[test]
fn a_session_of_its_own() {
    a_caller_that_leaves("/usr/bin/setsid", &["--fork"]);
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

/// OpenSSH with the plugin itself as its ProxyCommand.
struct DirectSsh {
    world: World,
    sim: Sim,
    _sshd: Sshd,
    config: PathBuf,
}

impl DirectSsh {
    #[track_caller]
    fn new() -> DirectSsh {
        let (world, sim) = (World::new(), sim());
        let sshd = Sshd::start(&world);
        let port = sshd.port();
        let parameters = json!({"portNumber": [port.to_string()]});
        let started = Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
        let command = started.command(&world);
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        let words: Vec<_> = command.get_args().map(quoted).collect();
        let script = world.path("proxy");
        let text = format!(
            "export AWS_SSM_START_SESSION_RESPONSE={}\nexec {} {}\n",
            quoted(started.response.to_string().as_ref()),
            quoted(command.get_program()),
            words.join(" ")
        );
        std::fs::write(&script, text).expect("the proxy's script");
        let config = client_config(&world, port);
        let documented = std::fs::read_to_string(&config).expect("ssh config");
        let direct = documented.lines().map(|line| {
            let is_proxy = line.trim_start().starts_with("ProxyCommand");
            if is_proxy { format!("    ProxyCommand sh {}\n", script.display()) } else { format!("{line}\n") }
        });
        std::fs::write(&config, direct.collect::<String>()).expect("ssh config");
        DirectSsh { world, sim, _sshd: sshd, config }
    }

    fn ssh(&self, words: &[&str]) -> Command {
        let mut command = self.world.command(required("/usr/bin/ssh"));
        command.arg("-F").arg(&self.config).args(words);
        command
    }
}

impl Drop for DirectSsh {
    fn drop(&mut self) {
        for process in processes::of(&self.world) {
            let _ = kill_process(to_pid(process.pid), Signal::KILL);
        }
    }
}

/// It forks when it has logged in, and the process that started the ProxyCommand ends.
#[test]
fn ssh_in_the_background_keeps_its_direct_proxy() {
    let ssh = DirectSsh::new();
    let file = ssh.world.path("done");
    let line = format!("sleep 2; echo done >{}", file.display());
    assert!(ssh.ssh(&["-f", TARGET, &line]).stdin(Stdio::null()).status().expect("ssh").success());
    eventually("the remote command is done", || file.exists());
    eventually("all have ended", || processes::of(&ssh.world).is_empty());
    crate::harness::sim::assert_all_ended(&ssh.sim);
}

#[test]
fn ssh_control_persist_keeps_its_direct_proxy() {
    let ssh = DirectSsh::new();
    let control = format!("ControlPath={}", ssh.world.path("ctl").display());
    let shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", &control, TARGET];
    // The master that stays holds our pipes: files do instead.
    let say = |word: &str| {
        let out = ssh.world.path(word);
        let mut command = ssh.ssh(&shared);
        command.args(["echo", word]).stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(std::fs::File::create(&out).expect("a file"));
        assert!(command.status().expect("ssh").success(), "{word}");
        std::fs::read_to_string(out).expect("its output")
    };
    assert_eq!(say("one"), "one\n");
    std::thread::sleep(STAYS);
    // The response is good for one connection only, so this goes through the first one.
    assert_eq!(say("two"), "two\n");
    run(&mut ssh.ssh(&["-o", &control, "-O", "exit", TARGET])).assert_ok();
    eventually("all have ended", || processes::of(&ssh.world).is_empty());
    crate::harness::sim::assert_all_ended(&ssh.sim);
}

/// Its streams tell when it is over; ssh, behind them, lives on.
#[test]
fn an_ssh_session_outlives_the_aws_cli() {
    let (world, sim, far) = (World::new(), sim(), Server::echo());
    let started = Kind::Stdio.start(&sim, &far);
    let mut cli = Running::spawn(&mut under_the_cli(&world, &started.command(&world)));
    let mut stdin = cli.take_stdin();
    stdin.write_all(b"before\n").expect("write");
    cli.stdout.wait_for("before");
    cli.signal(Signal::KILL);
    std::thread::sleep(STAYS);
    stdin.write_all(b"after\n").expect("write");
    cli.stdout.wait_for("after");
    drop(stdin);
    let left = processes::left_after(PROMPT, || processes::of(&world));
    assert!(left.is_empty(), "{left:?}");
    assert_ended(&sim, started.id());
}

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
fn an_aws_cli_that_died_before_we_could_look_is_survived_when_asked_for() {
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
    let port = opened_port(&cli.stdout);
    assert_eq!(echo_through(port, b"warm"), b"warm");
    std::thread::sleep(Duration::from_secs(1));
    let plugin = forward.plugin();
    let before = switches(plugin);
    std::thread::sleep(IDLE);
    let woken = switches(plugin) - before;
    assert!(woken <= IDLE_WAKEUPS, "{woken} wakeups in {IDLE:?}");
    cli.signal(Signal::KILL);
    forward.assert_gone();
}

/// How often a process has gone to sleep, all its threads together.
fn switches(pid: u32) -> u64 {
    let tasks =
        std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("its threads");
    let of = |path: PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).expect("its status");
        let line =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
        line.trim().parse::<u64>().expect("a number")
    };
    tasks.map(|task| of(task.expect("a thread").path())).sum()
}

/// A dead parent was once noticed within half a second.
const STAYS: Duration = Duration::from_millis(1500);
const SECOND: Duration = Duration::from_secs(1);
/// Less than the interval of pings.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_WAKEUPS: u64 = 2;
