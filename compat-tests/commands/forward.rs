//! `forward`: ports by themselves, and for as long as a command runs.

use std::net::TcpListener;
use std::process::Command;

use ssm_sim::Sim;

use super::{plugin, world};
#[cfg(target_os = "linux")]
use crate::harness::net::eventually;
use crate::harness::net::{FreePort, Server, connect, echo_through};
use crate::harness::process::{Running, Signal, run};
use crate::harness::pty::Pty;
use crate::harness::sim::{assert_all_ended, sim, sim_that_forbids_loopback};
use crate::harness::{TARGET, World};

/// The instance knows the test's servers as db.internal.
fn named(sim: Sim) -> Sim {
    sim.set_host("db.internal", "127.0.0.1");
    sim
}

fn forward(world: &World, words: &[&str]) -> Command {
    plugin(world, &[&["forward", TARGET][..], words].concat())
}

/// The port in a line `127.0.0.1:15432 -> …`.
#[track_caller]
fn port_of(running: &Running, destination: &str) -> u16 {
    let line = running.stdout.wait_for(&format!(" -> {destination}\n"));
    let address = line.lines().last().and_then(|line| line.split(" -> ").next()).expect("an address");
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn ports_are_printed_and_lead_to_their_destinations() {
    let (sim, echo, other) = (named(sim()), Server::echo(), Server::greeting("hello\n"));
    let world = world(&sim);
    let (db, local) = (format!("0:db.internal:{}", echo.port()), format!(":{}", other.port()));
    let socket = world.path("db.sock").display().to_string();
    let file = format!("{socket}:db.internal:{}", echo.port());
    let running = Running::spawn_without_stdin(&mut forward(&world, &[&db, "-L", &local, &file, "-D", "0"]));
    let first = port_of(&running, &format!("db.internal:{}", echo.port()));
    running.stdout.wait_for(&format!("{socket} -> db.internal:{}\n", echo.port()));
    let second = port_of(&running, &format!("localhost:{}", other.port()));
    let socks = port_of(&running, "SOCKS and HTTP proxy");
    running.stdout.wait_for("ready\n");
    assert_eq!(sim.requests().start, 0, "no session before the first connection");
    assert_eq!(echo_through(first, b"one"), b"one");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut connect(second), &mut text).expect("read");
    assert_eq!(text, "hello\n");
    let mut unix = std::os::unix::net::UnixStream::connect(&socket).expect("connect");
    std::io::Write::write_all(&mut unix, b"two").expect("write");
    let mut answer = [0; 3];
    std::io::Read::read_exact(&mut unix, &mut answer).expect("read");
    assert_eq!((&answer, sim.requests().start), (b"two", 2), "ports to one destination share its session");
    drop(connect(socks));
    running.signal(Signal::TERM);
    let finished = running.finish();
    assert_eq!((finished.status.code(), finished.errors().as_str()), (Some(143), ""));
    assert!(!std::path::Path::new(&socket).exists(), "the socket file is removed");
    assert_all_ended(&sim);
}

/// Agents since 3.3.4851 forward to the instance itself only with the document that names no host.
#[test]
fn a_port_of_the_instance_itself() {
    let (sim, echo) = (sim_that_forbids_loopback(), Server::echo());
    let world = world(&sim);
    for spec in [format!("0:{}", echo.port()), format!("0:127.0.0.1:{}", echo.port())] {
        let running = Running::spawn_without_stdin(&mut forward(&world, &[&spec]));
        running.stdout.wait_for("ready\n");
        let text = running.stdout.text();
        let port = text.split(" -> ").next().and_then(|address| address.rsplit(':').next()).expect("a port");
        assert_eq!(echo_through(port.parse().expect("a port"), b"x"), b"x", "{spec}");
    }
    assert!(sim.sessions().iter().all(|session| session.document == "AWS-StartPortForwardingSession"));
}

#[test]
fn when_one_port_cannot_be_opened_none_is_and_its_owner_is_named() {
    let sim = named(sim());
    let world = world(&sim);
    let (taken, free) = (TcpListener::bind("127.0.0.1:0").expect("bind"), FreePort::new());
    let port = taken.local_addr().expect("address").port();
    let (first, second) =
        (format!("{}:db.internal:1", free.number()), format!("127.0.0.1:{port}:db.internal:1"));
    let finished = run(&mut forward(&world, &[&first, &second, "--", "touch", "ran"]));
    let errors = finished.errors();
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), ""), "{errors}");
    assert!(
        errors.contains(&format!("forward: {second}: ")) && errors.contains("already in use"),
        "{errors}"
    );
    if cfg!(target_os = "linux") {
        assert!(errors.contains(&format!("already in use; port {port} is in use by ")), "{errors}");
        assert!(errors.contains(&format!("(process {})", std::process::id())), "{errors}");
    }
    assert_eq!(errors.matches('\n').count(), 1, "{errors}");
    assert!(!world.home().join("ran").exists(), "the command must not run");
    assert_eq!(sim.requests().start, 0);
}

#[test]
fn mistakes_are_one_line_and_start_nothing() {
    let sim = sim();
    let world = world(&sim);
    for words in [
        &["forward"][..],
        &["forward", TARGET],
        &["forward", TARGET, "80"],
        &["forward", TARGET, "80:db"],
        &["forward", TARGET, "x:db.internal:80"],
        &["forward", TARGET, "1:db.internal:0"],
        &["forward", TARGET, "1:a b c:80"],
        &["forward", TARGET, "1:2", "-D", "x"],
        &["forward", TARGET, "-D", "0.0.0.0:1080"],
        &["forward", TARGET, "1:2", "--sessions", "9"],
        &["forward", TARGET, "-D", "0", "--eager"],
        &["forward", TARGET, "1:2", "--"],
        &["forward", TARGET, "--", "true"],
        &["forward", TARGET, "-X", "1:2"],
    ] {
        let finished = run(&mut plugin(&world, words));
        let errors = finished.errors();
        let is_empty_command = words.last() == Some(&"--");
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {errors}");
        assert!(errors.matches('\n').count() == 1 && finished.text().is_empty(), "{words:?}: {errors}");
        assert!(errors.contains("forward") || is_empty_command, "{words:?}: {errors}");
    }
    assert_eq!(sim.requests().start, 0);
}

#[test]
fn eager_sessions_are_there_before_ready_or_the_command_fails() {
    let (sim, echo) = (named(sim()), Server::echo());
    let world = world(&sim);
    let spec = format!("0:db.internal:{}", echo.port());
    let running =
        Running::spawn_without_stdin(&mut forward(&world, &["--eager", &spec, "0:other.internal:1"]));
    running.stdout.wait_for("ready\n");
    assert_eq!(sim.requests().start, 2);
    running.signal(Signal::INT);
    assert_eq!(running.finish().status.code(), Some(130));
    assert_all_ended(&sim);
    sim.refuse_starts(Some("AccessDeniedException"));
    let finished = run(&mut forward(&world, &["--eager", &spec, "--", "touch", "ran"]));
    let errors = finished.errors();
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), ""), "{errors}");
    assert!(errors.contains("AccessDeniedException") && !world.home().join("ran").exists(), "{errors}");
}

/// Found by a new user: curl waited for five minutes, and nothing was printed where stderr is not a terminal.
#[test]
fn a_target_that_is_not_connected_is_reported_at_once() {
    let (sim, echo) = (named(sim()), Server::echo());
    let world = world(&sim);
    let spec = format!("0:db.internal:{}", echo.port());
    sim.refuse_starts(Some("TargetNotConnected"));
    for quiet in [&[][..], &["-q"]] {
        let words = [quiet, &[&spec, "--", "sh", "-c", "! curl -sS http://localhost:$PORT/"]].concat();
        let finished = run(&mut forward(&world, &words));
        let errors = finished.errors();
        assert_eq!(finished.status.code(), Some(0), "{errors}");
        assert!(errors.contains("TargetNotConnected") && errors.contains("use --wait"), "{errors}");
    }
    // The client waits on request.
    let running = Running::spawn_without_stdin(&mut forward(&world, &["--wait", &spec]));
    let port = port_of(&running, &format!("db.internal:{}", echo.port()));
    let client = std::thread::spawn(move || echo_through(port, b"late"));
    running.stderr.wait_for("TargetNotConnected");
    running.stderr.wait_for("trying again while a client waits\n");
    sim.refuse_starts(None);
    assert_eq!(client.join().expect("a client"), b"late");
    running.signal(Signal::TERM);
    running.finish();
    assert_all_ended(&sim);
}

/// The same user saw only what curl printed.
#[test]
fn a_destination_that_refuses_is_reported_in_a_pipe_and_with_quiet() {
    let sim = named(sim());
    let world = world(&sim);
    let free = FreePort::new();
    for quiet in [&[][..], &["-q"]] {
        let spec = format!("0:db.internal:{}", free.number());
        let words = [quiet, &[&spec, "--", "sh", "-c", "! curl -sS http://localhost:$PORT/"]].concat();
        let errors = run(&mut forward(&world, &words)).errors();
        let wanted = format!("the connection to db.internal:{} failed", free.number());
        assert_eq!(errors.matches(&wanted).count(), 1, "{errors}");
    }
}

/// A command with its port in the environment and in its arguments, its own streams, and its own status.
#[test]
fn a_command_runs_while_the_ports_are_open_and_its_status_is_ours() {
    let (sim, echo) = (named(sim()), Server::echo());
    let world = world(&sim);
    let (first, second) = (format!("0:db.internal:{}", echo.port()), format!("0:{}", echo.port()));
    let script = "test \"$1\" = \"$PORT\" && test \"$PORT\" = \"$PORT_1\" && test \"$2\" = \"$PORT_2\" && \
                  exec 3<>\"/dev/tcp/127.0.0.1/$PORT_2\" && echo through >&3 && head -n 1 <&3 && exit 7";
    let words = [&first, &second, "-D", "0", "--", "bash", "-c", script, "bash", "{port}", "{port_2}"];
    let finished = run(&mut forward(&world, &words));
    let errors = finished.errors();
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(7), "through\n"), "{errors}");
    assert!(errors.contains(" -> db.internal:") && errors.ends_with("ready\n"), "{errors}");
    assert_all_ended(&sim);
    for (script, status) in [("exit 0", 0), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let finished = run(&mut forward(&world, &["-q", &first, "--", "sh", "-c", script]));
        assert_eq!((finished.status.code(), finished.errors().as_str()), (Some(status), ""), "{script}");
    }
    let finished = run(&mut forward(&world, &["-q", &first, "--", "/no/such/program"]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("/no/such/program"), "{}", finished.errors());
}

#[test]
fn signals_reach_the_command_which_decides() {
    let sim = named(sim());
    let world = world(&sim);
    let script = "trap 'echo INT; exit 5' INT; trap 'echo TERM; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, status, text) in [(Signal::INT, 5, "INT\n"), (Signal::TERM, 6, "TERM\n")] {
        let mut command = forward(&world, &["-q", "0:db.internal:1", "--", "sh", "-c", script]);
        let running = Running::spawn_without_stdin(&mut command);
        running.stdout.wait_for("ready\n");
        running.signal(signal);
        let finished = running.finish();
        assert_eq!(finished.status.code(), Some(status), "{}", finished.errors());
        assert!(finished.text().ends_with(text), "{}", finished.text());
    }
}

/// Ctrl-C on the terminal reaches the command once, and it can read from the terminal.
#[test]
fn the_command_is_in_the_foreground_of_the_terminal() {
    let sim = named(sim());
    let world = world(&sim);
    let script = "trap 'count=$((count+1))' INT; read line; echo \"read $line\"; sleep 0.3; echo \"interrupts: $count\"";
    let script = format!("{script}; read line; sleep 0.3; echo \"interrupts: $count.\"");
    let words = ["-q", "0:db.internal:1", "--", "bash", "-c", &script];
    let mut pty = Pty::spawn(&forward(&world, &words));
    pty.send("typed\r");
    pty.wait_for("read typed");
    pty.wait_for("interrupts: ");
    pty.send("\u{3}");
    pty.send("\r");
    pty.wait_for("interrupts: 1.");
    assert_eq!(pty.finish().exit_code(), 0);
}

/// Not even SIGKILL leaves the command behind.
#[cfg(target_os = "linux")]
#[test]
fn when_the_plugin_is_killed_the_command_is_gone() {
    let sim = named(sim());
    let world = world(&sim);
    let script = "trap '' TERM INT HUP; echo $$; while :; do sleep 0.05; done";
    let words = ["-q", "0:db.internal:1", "--", "sh", "-c", script];
    let running = Running::spawn_without_stdin(&mut forward(&world, &words));
    let line = running.stdout.wait_for("\n");
    let id = line.trim().to_owned();
    let process = std::path::PathBuf::from(format!("/proc/{id}"));
    assert!(process.exists());
    running.signal(Signal::KILL);
    eventually("the command is gone", || {
        let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
}

/// The command continues, and its next connection has another session.
#[test]
fn a_session_that_ends_while_the_command_runs() {
    let (sim, echo) = (named(sim()), Server::echo());
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_STATUS", "always");
    let script = "echo start; while read line; do exec 3<>\"/dev/tcp/127.0.0.1/$PORT\"; echo \"$line\" >&3; head -n 1 <&3; \
                  exec 3>&-; done; exit 4";
    let spec = format!("0:db.internal:{}", echo.port());
    let mut running = Running::spawn(&mut forward(&world, &[&spec, "--", "bash", "-c", script]));
    running.stdout.wait_for("start\n");
    for (number, line) in ["one\n", "two\n"].into_iter().enumerate() {
        running.send(line);
        running.stdout.wait_for(line);
        assert_eq!(sim.requests().start, number as u64 + 1);
        let id = sim.sessions()[number].id.clone();
        sim.close_session(&id, "idle");
        running.stderr.wait_for(" ended (idle)");
    }
    running.close_stdin();
    let finished = running.finish();
    assert_eq!(finished.status.code(), Some(4), "{}", finished.errors());
    assert_all_ended(&sim);
}

#[test]
fn json_events_for_tools() {
    let sim = named(sim());
    let finished = run(&mut forward(&world(&sim), &["--json", "0:db.internal:1", "-D", "0", "--", "true"]));
    finished.assert_ok();
    let errors = finished.errors();
    let events: Vec<serde_json::Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let ready: Vec<_> = events.iter().filter(|event| event["event"] == "ready").collect();
    assert_eq!(ready.len(), 2, "{errors}");
    assert_eq!(
        (ready[0]["kind"].as_str(), ready[0]["destination"].as_str()),
        (Some("forward"), Some("db.internal:1"))
    );
    assert!(ready[1]["kind"] == "socks" && ready[1]["port"].is_u64(), "{errors}");
}

/// `[tunnels.NAME]` in the settings file, which is otherwise read as before.
#[test]
fn a_tunnel_of_the_settings_file() {
    let (sim, echo) = (named(sim()), Server::echo());
    let world = world(&sim);
    let folder = world.home().join(".config/session-manager-plugin");
    std::fs::create_dir_all(&folder).expect("folder");
    let text = format!(
        "[tunnels.db]\ntarget = '{TARGET}'\nforwards = ['0:db.internal:{}']\nsocks = 0\n",
        echo.port()
    );
    std::fs::write(folder.join("config.toml"), text).expect("write");
    let running = Running::spawn_without_stdin(&mut plugin(&world, &["forward", "db"]));
    let port = port_of(&running, &format!("db.internal:{}", echo.port()));
    running.stdout.wait_for("SOCKS and HTTP proxy\nready\n");
    assert_eq!(echo_through(port, b"x"), b"x");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().errors(), "", "the table of tunnels is not an unknown setting");
    std::fs::write(folder.join("config.toml"), "[tunnels.db]\ntarget = 'x'\ncolour = 1\n").expect("write");
    let finished = run(&mut plugin(&world, &["forward", "db"]));
    assert_eq!(
        (finished.status.code(), finished.errors().matches('\n').count()),
        (Some(2), 1),
        "{}",
        finished.errors()
    );
    assert!(finished.errors().contains("tunnels.db: "), "{}", finished.errors());
    let finished = run(&mut plugin(&world, &["forward", "bd"]));
    assert_eq!(finished.status.code(), Some(2));
    assert!(
        finished.errors().contains("the settings file has no section [tunnels.bd]"),
        "{}",
        finished.errors()
    );
    // The section is there, but nothing in the file counts.
    std::fs::write(folder.join("config.toml"), "[tunnels.db]\ntarget =").expect("write");
    let finished = run(&mut plugin(&world, &["forward", "db"]));
    assert_eq!(finished.status.code(), Some(2));
    let errors = finished.errors();
    assert!(errors.contains("; the file is ignored; ") && !errors.contains("no section"), "{errors}");
}

/// These ports start sessions in the name of the user, whose decision to let others in is shown.
#[test]
fn relaxed_safeguards_are_named_at_a_terminal() {
    let sim = named(sim());
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_ANY_USER", "1");
    let mut pty = Pty::spawn(&forward(&world, &["0:db.internal:1"]));
    pty.wait_for("session-manager-plugin: SSM_PLUGIN_ANY_USER=1: all users of this machine can connect");
    pty.wait_for("ready");
    pty.send("\x03");
    pty.finish();
}
