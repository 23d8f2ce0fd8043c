//! Never a silent hang: every wait has its deadline and its words, and the state can be asked for.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::terminal::Terminal;
use super::*;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{FreePort, connect};
use crate::harness::process::{Finished, Running};
use crate::harness::wire;

/// Takes what comes and says nothing.
pub fn never_answer(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Runs to the end with one deadline set to a second; says how long it took.
#[track_caller]
fn run_with(gateway: &Gateway, variable: &str) -> (Finished, Duration) {
    let mut world = World::new();
    world.set(variable, "1");
    let begin = Instant::now();
    let mut plugin = Running::spawn(&mut Started::of(gateway).command(&world));
    let _stdin = plugin.take_stdin();
    let finished = plugin.finish();
    (finished, begin.elapsed())
}

#[track_caller]
fn assert_in_time(took: Duration) {
    assert!(took >= Duration::from_millis(900), "gave up after {took:?}");
    assert!(took < Duration::from_secs(1) + PROMPT, "took {took:?}");
}

#[test]
fn a_gateway_that_never_answers() {
    let gateway = Gateway::raw(never_answer);
    let (finished, took) = run_with(&gateway, "SSM_PLUGIN_OPEN_TIMEOUT");
    finished.assert_ok();
    assert_in_time(took);
    let text = finished.text();
    assert!(
        text.contains("\nCannot perform start session: no websocket to 127.0.0.1 after 1 s (last error: no answer within 0."),
        "{text:?}"
    );
}

#[test]
fn a_gateway_without_a_listener() {
    let gateway = Gateway::raw(never_answer);
    let mut started = Started::of(&gateway);
    let closed = FreePort::new();
    let port = closed.number();
    started.response["StreamUrl"] = json!(format!("ws://127.0.0.1:{port}/v1/data-channel/x"));
    let mut world = World::new();
    world.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    let finished = crate::harness::process::run(&mut started.command(&world));
    finished.assert_ok();
    let text = finished.text();
    // The reason, not only that time ran out: it is what a user can do something about.
    assert!(text.contains("Cannot perform start session: ") && text.contains("refused"), "{text:?}");
}

/// Says nothing until the client has gone.
fn silent(socket: &mut Socket) {
    while socket.input().is_some() {}
}

#[test]
fn an_agent_that_never_answers() {
    let gateway = Gateway::scripted(silent);
    let (finished, took) = run_with(&gateway, "SSM_PLUGIN_HANDSHAKE_TIMEOUT");
    finished.assert_ok();
    assert_in_time(took);
    let text = finished.text();
    assert!(text.ends_with("Cannot perform start session: no answer from the agent for 1s\n"), "{text:?}");
}

#[test]
fn an_agent_that_stops_in_the_handshake() {
    let gateway = Gateway::scripted(|socket| {
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [{
            "ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream", "Properties": {}},
        }]});
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        silent(socket);
    });
    let (finished, took) = run_with(&gateway, "SSM_PLUGIN_HANDSHAKE_TIMEOUT");
    finished.assert_ok();
    assert_in_time(took);
    let text = finished.text();
    assert!(text.contains("Cannot perform start session: no answer from the agent"), "{text:?}");
}

/// Each kind loses its connection for good.
#[test]
fn a_network_that_stays_away() {
    for kind in [Kind::Shell, Kind::Stdio, Kind::Mux, Kind::Basic] {
        let (mut world, sim, far) = (World::new(), kind.sim(), greeter());
        world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "1");
        world.set("SSM_PLUGIN_STATUS", "always");
        let mut plugin = Running::spawn(&mut kind.start(&sim, &far).command(&world));
        let _stdin = plugin.take_stdin();
        kind.wait_until_up(&plugin.stdout);
        let begin = Instant::now();
        sim.outage(Duration::from_secs(3600));
        let finished = plugin.finish();
        finished.assert_ok();
        assert_in_time(begin.elapsed());
        let errors = finished.errors();
        let lines: Vec<&str> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{kind:?}: a line for each change of state: {errors}");
        assert!(lines[0].contains("connection lost (") && lines[0].ends_with("reconnecting"), "{errors}");
        assert!(lines[1].contains("gave up reconnecting: "), "{kind:?}: {errors}");
    }
}

/// The same on a terminal: the lines come without being requested, and the terminal is as before.
#[test]
fn a_network_that_stays_away_from_a_terminal() {
    let (mut world, sim, far) = (World::new(), sim(), greeter());
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "1");
    let mut terminal = Terminal::spawn(&Kind::Shell.start(&sim, &far).command(&world));
    Kind::Shell.wait_until_up(&terminal.screen);
    sim.outage(Duration::from_secs(3600));
    terminal.wait_for("connection lost (");
    terminal.wait_for("gave up reconnecting: ");
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
}

#[test]
fn a_network_that_comes_back() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = crate::harness::net::opened_port(&plugin.stdout);
    assert_eq!(crate::harness::net::echo_through(port, b"before"), b"before");
    for _ in 0..2 {
        sim.cut(started.id());
        plugin.stderr.wait_for("connection lost (");
        plugin.stderr.wait_for("reconnecting\n");
        plugin.stderr.wait_for("connection resumed\n");
    }
    assert_eq!(crate::harness::net::echo_through(port, b"after"), b"after");
    plugin.signal(Signal::TERM);
    let finished = plugin.finish();
    finished.assert_ok();
    assert_eq!(finished.errors().lines().count(), 4, "{}", finished.errors());
    assert!(!finished.text().contains("connection lost"), "on stdout: {}", finished.text());
}

#[test]
fn nothing_is_printed_unless_requested() {
    for status in ["never", "auto"] {
        let (mut world, sim, far) = (World::new(), sim(), greeter());
        world.set("SSM_PLUGIN_STATUS", status);
        let started = interactive(&sim, &format!("echo {UP}; read line; echo got-$line"));
        let mut plugin = Running::spawn(&mut started.command(&world));
        plugin.stdout.wait_for(UP);
        sim.cut(started.id());
        plugin.send("it\n");
        plugin.stdout.wait_for("got-it");
        let finished = plugin.finish();
        finished.assert_ok();
        assert_eq!(finished.errors(), "");
        drop(far);
    }
}

/// smp#140 and others: a user wants to know whether it hangs or waits.
#[test]
fn sigusr1_prints_the_state_of_every_kind() {
    for kind in [Kind::Shell, Kind::Command, Kind::Batch, Kind::Stdio, Kind::Mux, Kind::Basic] {
        let (world, sim, far) = (World::new(), kind.sim(), greeter());
        let started = kind.start(&sim, &far);
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        kind.wait_until_up(&plugin.stdout);
        let local = (kind == Kind::Mux).then(|| {
            let text = plugin.stdout.text();
            let port = text.split("Port ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            let stream = connect(port.expect("a port"));
            plugin.stdout.wait_for("Connection accepted");
            stream
        });
        plugin.signal(Signal::USR1);
        let line = plugin.stderr.wait_for("\n");
        assert!(line.starts_with("session-manager-plugin: session "), "{line}");
        for part in [started.id(), ": connected, ", "round trip", "sent ", "received "] {
            assert!(line.contains(part), "{kind:?}: no {part:?} in {line}");
        }
        assert_eq!(line.contains(", 1 connection"), kind == Kind::Mux, "{line}");
        drop(local);
        plugin.signal(Signal::TERM);
        plugin.finish_within(PROMPT).assert_ok();
    }
}

/// While the session is still being opened, too: that is when one wants to know.
#[test]
fn sigusr1_prints_the_state_while_opening() {
    let gateway = Gateway::scripted(silent);
    let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&World::new()));
    let _stdin = plugin.take_stdin();
    plugin.stdout.wait_for("Starting session");
    crate::harness::net::eventually("the websocket is open", || gateway.opens() > 0);
    plugin.signal(Signal::USR1);
    plugin.stderr.wait_for("session-manager-plugin: session ");
    plugin.signal(Signal::TERM);
    plugin.finish_within(PROMPT).assert_ok();
}
