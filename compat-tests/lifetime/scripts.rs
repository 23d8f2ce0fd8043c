//! Sessions in scripts and CI: the end of input, exit status, quiet output, sizes without a terminal.

use std::io::Read as _;
use std::time::Duration;

use rustix::process::Signal;
use ssm_sim::Config;
use ssm_sim::agent::AgentOptions;

use super::*;
use crate::harness::gateway::Gateway;
use crate::harness::net::FreePort;
use crate::harness::process::{Finished, Running, run, run_with_input};
use crate::harness::sim::{start, unpaced_sim};

/// agent#354: the official plugin says `EOF` and loses the output.
#[test]
fn the_end_of_input_is_not_the_end_of_output() {
    let (world, sim) = (World::new(), sim());
    for (input, expected) in [
        ("echo one-$((1+0)); sleep 0.5; echo two-$((1+1))\n", "two-2"),
        // Without a last newline: it has to be handed over, then ended.
        ("sleep 0.3; echo three-$((1+2))", "three-3"),
        ("", "Starting session"),
    ] {
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let finished = run_with_input(&mut started.command(&world), input.as_bytes());
        finished.assert_ok();
        let text = finished.text();
        let exiting = format!("\n\nExiting session with sessionId: {}.\n\n", started.id());
        assert!(text.contains(expected) && text.ends_with(&exiting), "{input:?}: {text:?}");
        assert_eq!(finished.errors(), "");
        assert_ended(&sim, started.id());
    }
}

/// An interactive bash reads one line after the other in a mode of its own: an end-of-file key typed while a command
/// runs is gone when it comes back to its prompt, and within a line the key means something else.
#[test]
fn the_end_of_input_ends_a_bash() {
    let agent = AgentOptions { shell: Some("/bin/bash".to_owned()), ..AgentOptions::default() };
    let (world, sim) = (World::new(), start(Config { agent, ..Config::default() }));
    for input in ["sleep 1; echo one-$((1+0))\n", "sleep 1; echo one-$((1+0))"] {
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let finished = run_with_input(&mut started.command(&world), input.as_bytes());
        finished.assert_ok();
        assert!(finished.text().contains("one-1"), "{input:?}: {}", finished.text());
        assert_ended(&sim, started.id());
    }
}

#[test]
fn no_input_at_all() {
    let (world, sim, far) = (World::new(), sim(), greeter());
    let shell = Started::at(&sim.endpoint(), None, json!({}));
    run(&mut shell.command(&world)).assert_ok();
    let command = interactive(&sim, "sleep 0.5; echo done-$((1+1))");
    let finished = run(&mut command.command(&world));
    finished.assert_ok();
    assert!(finished.text().contains("done-2"), "{}", finished.text());
    // A command that does not read, and a forwarded port, do not care.
    let finished = run(&mut batch(&sim, "sh -c 'sleep 0.5; echo done'").command(&world));
    finished.assert_ok();
    assert!(finished.text().contains("done\nEXIT_CODE: 0"), "{:?}", finished.text());
    let started = Kind::Mux.start(&sim, &far);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = crate::harness::net::opened_port(&plugin.stdout);
    let mut greeting = vec![0; GREETING.len()];
    crate::harness::net::connect(port).read_exact(&mut greeting).expect("the greeting");
    assert_eq!(greeting, GREETING.as_bytes());
    plugin.signal(Signal::TERM);
    plugin.finish_within(PROMPT).assert_ok();
}

#[test]
fn input_of_a_megabyte_by_pipe_arrives_whole() {
    let (mut world, sim) = (World::new(), unpaced_sim());
    world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
    world.set("SSM_PLUGIN_QUIET", "1");
    let line = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/\n";
    let input = line.repeat(1_000_000 / line.len());
    let started = interactive(&sim, &format!("stty -echo; echo {UP}; wc -c"));
    let finished = run_with_input(&mut started.command(&world), input.as_bytes());
    finished.assert_ok();
    assert_eq!(finished.text().trim(), format!("{UP}\r\n{}", input.len()));
}

/// `aws … "cat > file" < data`: an agent that skips the handshake says nothing before its command does, and that
/// waits for us.
#[test]
fn a_silent_command_gets_its_input() {
    let (world, sim) = (World::new(), sim());
    let file = world.path("copied");
    let started = interactive(&sim, &format!("stty -echo; cat > {}", file.display()));
    run_with_input(&mut started.command(&world), b"a line\nand another\n").assert_ok();
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "a line\nand another\n");
}

/// The remote's status, when asked for; 0 else, since the AWS CLI prints our arguments when it is another.
#[test]
fn exit_status_of_the_remote_command() {
    let sim = sim();
    for (command, asked, expected) in [
        ("sh -c 'exit 7'", Some("1"), 7),
        ("sh -c 'exit 0'", Some("1"), 0),
        ("sh -c 'exit 255'", Some("1"), 255),
        ("/does/not/exist", Some("1"), 1),
        ("sh -c 'exit 7'", Some("0"), 0),
        ("sh -c 'exit 7'", None, 0),
    ] {
        let mut world = World::new();
        if let Some(asked) = asked {
            world.set("SSM_PLUGIN_EXIT_CODE", asked);
        }
        let started = batch(&sim, command);
        let finished = run(&mut started.command(&world));
        assert_eq!(finished.status.code(), Some(expected), "{command} {asked:?}: {}", finished.text());
        assert_ended(&sim, started.id());
    }
}

/// smp#60: the AWS CLI prints the plugin's arguments, the token and the stream URL among them, when it fails.
#[test]
fn the_aws_cli_always_gets_0() {
    let sim = sim();
    let mut world = World::new();
    for (asked, command, withheld) in [
        ("1", "sh -c 'exit 7'", Some("returning 0 instead of 7")),
        ("1", "sh -c 'exit 0'", None),
        ("0", "sh -c 'exit 7'", None),
    ] {
        world.set("SSM_PLUGIN_EXIT_CODE", asked);
        let started = batch(&sim, command);
        let finished = run(&mut under_the_cli(&world, &started.command_with_json(&world)));
        finished.assert_ok();
        assert_withheld(&finished, withheld);
    }
    world.set("SSM_PLUGIN_EXIT_CODE", "1");
    let mut bad = world.plugin();
    bad.args(["{", "us-east-1", "StartSession"]);
    let finished = run(&mut under_the_cli(&world, &bad));
    finished.assert_ok();
    assert_withheld(&finished, Some("returning 0 instead of 255"));
}

#[track_caller]
fn assert_withheld(finished: &Finished, words: Option<&str>) {
    let errors = finished.errors();
    assert_eq!(errors.matches("returning 0 instead of").count(), usize::from(words.is_some()), "{errors}");
    if let Some(words) = words {
        assert!(errors.contains(words) && errors.contains("session-manager-plugin run"), "{errors}");
    }
    assert!(!errors.contains("TokenValue") && !errors.contains("StreamUrl"), "{errors}");
}

/// Without separate output streams the agent sends no status, except for a command that it cannot start.
#[test]
fn a_command_that_cannot_be_started_is_a_failure() {
    let sim = sim();
    let mut world = World::new();
    world.set("SSM_PLUGIN_EXIT_CODE", "1");
    for (command, expected) in [("/does/not/exist", 1), ("sh -c 'exit 7'", 0)] {
        let parameters = json!({"command": [command]});
        let started = Started::at(&sim.endpoint(), Some("AWS-StartNonInteractiveCommand"), parameters);
        let finished = run(&mut started.command(&world));
        assert_eq!(finished.status.code(), Some(expected), "{command}: {}", finished.text());
    }
}

#[test]
fn exit_status_of_our_own_failures() {
    let gateway = Gateway::raw(super::deadlines::never_answer);
    for (asked, expected) in [("1", 255), ("0", 0)] {
        let mut world = World::new();
        world.set("SSM_PLUGIN_EXIT_CODE", asked);
        world.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
        let finished = run(&mut Started::of(&gateway).command(&world));
        assert_eq!(finished.status.code(), Some(expected), "{}", finished.text());
        let words = world.plugin().args(["{", "us-east-1", "StartSession"]).output().expect("run");
        assert_eq!(words.status.code(), Some(expected), "bad arguments");
        let finished = lost(&mut world);
        assert_eq!(finished.status.code(), Some(expected), "a lost connection: {}", finished.errors());
    }
}

/// A session whose connection is lost for good.
fn lost(world: &mut World) -> Finished {
    let (sim, far) = (sim(), greeter());
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "1");
    let mut plugin = Running::spawn(&mut Kind::Mux.start(&sim, &far).command(world));
    let _stdin = plugin.take_stdin();
    Kind::Mux.wait_until_up(&plugin.stdout);
    sim.outage(Duration::from_secs(3600));
    plugin.finish()
}

/// `aws ssm start-session … > file` on a disk that is full: what is lost is said, and no script takes it for a success.
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let (sim, far) = (sim(), greeter());
    for (asked, expected) in [("1", 255), ("0", 0)] {
        let mut world = World::new();
        world.set("SSM_PLUGIN_EXIT_CODE", asked);
        for started in [
            Kind::Shell.start(&sim, &far),
            interactive(&sim, "echo lost"),
            batch(&sim, "sh -c 'echo lost; exit 0'"),
            Kind::Stdio.start(&sim, &far),
        ] {
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
            let mut command = started.command(&world);
            command.stdin(std::process::Stdio::null()).stdout(full);
            let output = command.output().expect("run");
            let errors = String::from_utf8_lossy(&output.stderr);
            let request = &started.request;
            assert_eq!(output.status.code(), Some(expected), "{request}: {errors}");
            assert_eq!(
                errors,
                "session-manager-plugin: cannot write to stdout: No space left on device (os error 28)\n",
                "{request}"
            );
            assert_ended(&sim, started.id());
        }
    }
}

/// The notices of a forwarded port are not what it is there for.
#[test]
fn a_tunnel_continues_when_its_notices_cannot_be_written() {
    for kind in [Kind::Mux, Kind::Basic] {
        let (mut world, sim, echo) = (World::new(), kind.sim(), Server::echo());
        world.set("SSM_PLUGIN_EXIT_CODE", "1");
        let free = FreePort::new();
        let port = free.number();
        let started = Started::port(&sim.endpoint(), echo.port(), port);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut command = started.command(&world);
        command.stdin(std::process::Stdio::null()).stdout(full).stderr(std::process::Stdio::piped());
        let child = command.spawn().expect("start");
        crate::harness::net::eventually("the port is open", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert_eq!(crate::harness::net::echo_through(port, b"still here"), b"still here");
        rustix::process::kill_process(super::terminal::to_pid(child.id()), Signal::INT).expect("signal");
        let output = child.wait_with_output().expect("its end");
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{kind:?}"
        );
        assert_ended(&sim, started.id());
    }
}

/// agent#358: a pipe wants the remote's bytes and nothing else.
#[test]
fn quiet_leaves_the_remotes_bytes_alone() {
    let (mut world, sim, far) = (World::new(), sim(), greeter());
    world.set("SSM_PLUGIN_QUIET", "1");
    let finished = run(&mut interactive(&sim, "stty -opost; printf 'a\\nb'").command(&world));
    finished.assert_ok();
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("a\nb", ""));
    let finished = run(&mut batch(&sim, "printf 'c\\nd'").command(&world));
    finished.assert_ok();
    assert_eq!(
        (finished.text().as_str(), finished.errors().as_str()),
        ("c\nd", ""),
        "EXIT_CODE is a notice, too"
    );
    for kind in [Kind::Mux, Kind::Stdio] {
        let started = kind.start(&sim, &far);
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        let up = sim.wait_for(PATIENCE, |sessions| {
            sessions.iter().any(|session| session.id == started.id() && session.down.messages > 1)
        });
        assert!(up, "{:?}", sim.session(started.id()));
        plugin.signal(Signal::TERM);
        let finished = plugin.finish();
        finished.assert_ok();
        let expected = if kind == Kind::Stdio { GREETING } else { "" };
        assert!(finished.text().is_empty() || finished.text() == expected, "{kind:?}: {:?}", finished.text());
    }
}

/// Ansible's aws_ssm: stdin is a pipe, stdout a terminal. It waits for the first line, then switches the echo off and
/// runs each command between two marks.
#[test]
fn ansible_drives_a_shell() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let terminal =
        portable_pty::native_pty_system().openpty(portable_pty::PtySize::default()).expect("a pty");
    let name = terminal.master.tty_name().expect("a name");
    let stdout = std::fs::OpenOptions::new().write(true).open(name).expect("open the terminal");
    let screen = Output::read(terminal.master.try_clone_reader().expect("pty reader"));
    let mut command = started.command(&world);
    command.stdin(std::process::Stdio::piped()).stdout(stdout).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start");
    let mut stdin = child.stdin.take().expect("piped stdin");
    screen.wait_for(&format!("Starting session with SessionId: {}", started.id()));
    screen.wait_for(prompt());
    stdin.write_all(b"stty -echo\n").expect("write");
    stdin
        .write_all(b"echo mark-$((1+1)); printf 'one\\ntwo\\n'; echo status-$?-mark-$((2+2))\n")
        .expect("write");
    let answer = screen.wait_for("status-0-mark-4");
    let (_, answer) = answer.split_once("mark-2").expect("the first mark");
    assert_eq!(answer.replace('\r', ""), "\none\ntwo\nstatus-0-mark-4");
    // It ends the plugin with SIGTERM.
    rustix::process::kill_process(super::terminal::to_pid(child.id()), Signal::TERM).expect("signal");
    assert_ended(&sim, started.id());
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// Typed-ahead input starts programs that ask for the size once.
#[test]
fn the_size_comes_before_what_was_typed_ahead() {
    let sim = sim();
    for round in 0..8 {
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let finished = run_with_input(&mut started.command(&World::new()), b"stty size\nexit\n");
        finished.assert_ok();
        assert!(finished.text().contains("100 300"), "round {round}: {:?}", finished.text());
    }
}

/// smp#48: a terminal of 0 columns, or none, made remote programs wrap at random.
#[test]
fn sizes_without_a_terminal() {
    let sim = sim();
    for (columns, lines, expected) in
        [(Some("132"), Some("43"), "43 132"), (None, None, "100 300"), (Some("wide"), Some("0"), "100 300")]
    {
        let mut world = World::new();
        for (name, value) in [("COLUMNS", columns), ("LINES", lines)] {
            if let Some(value) = value {
                world.set(name, value);
            }
        }
        // The size may come after the start.
        let wait = "for i in 1 2 3 4 5 6 7 8 9; do [ \"$(stty size)\" = '24 80' ] || [ \"$(stty size)\" = '0 0' ] || break; sleep 0.2; done";
        let started = interactive(&sim, &format!("echo {UP}; {wait}; echo \"<$(stty size)>\""));
        let finished = run(&mut started.command(&world));
        finished.assert_ok();
        assert!(finished.text().contains(&format!("<{expected}>")), "{columns:?}: {}", finished.text());
        // These variables are other programs' too: what is wrong with them is for `doctor` and the log.
        assert_eq!(finished.errors(), "", "{columns:?}");
    }
}
