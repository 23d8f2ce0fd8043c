//! Messages about what takes long: for a person at the terminal only.

use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use ssm_sim::Sim;

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::Gateway;
use crate::harness::net::Server;
use crate::harness::process::Running;
use crate::harness::pty::Pty;
use crate::harness::sim::sim;

/// A way to the service that can be closed: connections are cut, and new ones wait until it is open again.
struct Gate {
    _server: Server,
    state: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    streams: Vec<TcpStream>,
}

impl Gate {
    /// Leads all websockets of `sim` through a gate.
    fn before(sim: &Sim) -> Gate {
        let (state, to) = (Arc::<(Mutex<GateState>, Condvar)>::default(), sim.port());
        let shared = Arc::clone(&state);
        let server = Server::start(move |client| {
            let service = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("connect to the service");
            let (state, opened) = &*shared;
            let mut state =
                opened.wait_while(state.lock().expect("gate"), |state| state.is_closed).expect("gate");
            state.streams.extend([&client, &service].map(|stream| stream.try_clone().expect("clone")));
            drop(state);
            let (mut up, mut down) =
                (client.try_clone().expect("clone"), service.try_clone().expect("clone"));
            let copy = std::thread::spawn(move || std::io::copy(&mut &client, &mut &service));
            let _ = std::io::copy(&mut down, &mut up);
            let _ = up.shutdown(Shutdown::Both);
            let _ = copy.join();
        });
        sim.set_stream_base(&format!("ws://127.0.0.1:{}", server.port()));
        Gate { _server: server, state }
    }

    fn close(&self) {
        let mut state = self.state.0.lock().expect("gate");
        state.is_closed = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) {
        self.state.0.lock().expect("gate").is_closed = false;
        self.state.1.notify_all();
    }
}

impl Drop for Gate {
    /// Threads that wait end with the test.
    fn drop(&mut self) {
        self.open();
    }
}

#[test]
fn a_gateway_that_takes_long_is_shown_on_a_terminal_only() {
    let gateway = Gateway::raw(|mut stream| _ = std::io::copy(&mut stream, &mut std::io::sink()));
    let mut world = World::new();
    world.set("SSM_PLUGIN_OPEN_TIMEOUT", "6");
    let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = plugin.take_stdin();
    let pty = Pty::spawn(&Started::of(&gateway).command(&world));
    pty.wait_for("session-manager-plugin: connecting to 127.0.0.1 …");
    pty.wait_for(
        "Cannot perform start session: no websocket to 127.0.0.1 after 6 s (last error: no answer within 5.",
    );
    let finished = plugin.finish();
    finished.assert_ok();
    assert_eq!(finished.errors(), "");
    assert!(!finished.text().contains("connecting"), "{}", finished.text());
}

#[test]
fn an_agent_that_takes_long_is_shown() {
    let gateway = Gateway::scripted(|socket| while socket.input().is_some() {});
    let pty = Pty::spawn(&Started::of(&gateway).command(&World::new()));
    pty.wait_for("session-manager-plugin: waiting for the agent on i-0123456789abcdef0 …");
}

/// The user of `ssh` sees stderr of its ProxyCommand.
#[test]
fn an_outage_of_a_port_or_an_ssh_session_is_shown_on_a_terminal_only() {
    let (sim, server) = (
        sim(),
        Server::start(|mut client| _ = std::io::copy(&mut &client.try_clone().expect("clone"), &mut client)),
    );
    let gate = Gate::before(&sim);
    let mut world = World::new();
    let ssh = serde_json::json!({"portNumber": [server.port().to_string()]});
    let command = |world: &World, is_port: bool| {
        if is_port {
            Started::port(&sim.endpoint(), server.port(), 0).command(world)
        } else {
            Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), ssh.clone()).command(world)
        }
    };
    let mut terminals = [true, false].map(|is_port| Pty::spawn(&command(&world, is_port)));
    world.set("SSM_PLUGIN_STATUS", "always");
    let mut pipes = [true, false].map(|is_port| Running::spawn(&mut command(&world, is_port)));
    terminals[0].wait_for("Waiting for connections...");
    pipes[0].stdout.wait_for("Waiting for connections...");
    terminals[1].send("a\n");
    terminals[1].wait_for("a\r\na");
    pipes[1].send("a\n");
    pipes[1].stdout.wait_for("a\n");
    gate.close();
    for terminal in &terminals {
        terminal.wait_for("session-manager-plugin: connection lost (");
        terminal.wait_for("session-manager-plugin: connecting to 127.0.0.1 …");
    }
    gate.open();
    for terminal in &terminals {
        terminal.wait_for("session-manager-plugin: connection resumed");
    }
    for pipe in &pipes {
        pipe.stderr.wait_for("connection resumed\n");
        let errors = pipe.stderr.text();
        assert!(!errors.contains("connecting to"), "{errors:?}");
        assert!(!pipe.stdout.text().contains("session-manager-plugin"), "{}", pipe.stdout.text());
    }
}

#[test]
fn an_outage_of_a_shell_is_shown_in_place_and_removed() {
    let sim = sim();
    let gate = Gate::before(&sim);
    let mut world = World::new();
    let shell = |world: &World| Started::at(&sim.endpoint(), None, serde_json::Value::Null).command(world);
    let mut pty = Pty::spawn(&shell(&world));
    world.set("SSM_PLUGIN_STATUS", "always");
    let mut piped = Running::spawn(&mut shell(&world));
    for (typed, expected) in [("echo a$((20+3))b\r", "a23b"), ("echo c$((20+4))d\r", "c24d")] {
        pty.send(typed);
        pty.wait_for(expected);
        piped.send(typed);
        piped.stdout.wait_for(expected);
        if expected == "c24d" {
            break;
        }
        gate.close();
        pty.wait_for("connection lost (");
        pty.wait_for("session-manager-plugin: to end the session, press Enter and then type ~.\r\n");
        pty.wait_for("\rsession-manager-plugin: last contact ");
        pty.wait_for(" s ago, connecting for ");
        gate.open();
        pty.wait_for("\r\x1b[K\r\nsession-manager-plugin: connection resumed\r\n");
        piped.stderr.wait_for("connection resumed\n");
    }
    let errors = piped.stderr.text();
    assert_eq!(errors.lines().count(), 2, "the loss and the end of it: {errors:?}");
    assert!(!piped.stdout.text().contains("session-manager-plugin"), "{}", piped.stdout.text());
    pty.send("exit\r");
    assert!(pty.finish().success());
    piped.send("exit\r");
    piped.finish().assert_ok();
}

#[test]
fn a_shell_can_be_ended_during_an_outage() {
    let sim = sim();
    let gate = Gate::before(&sim);
    let started = Started::at(&sim.endpoint(), None, serde_json::Value::Null);
    let mut pty = Pty::spawn(&started.command(&World::new()));
    pty.send("echo a$((20+3))b\r");
    pty.wait_for("a23b");
    gate.close();
    pty.wait_for("to end the session, press Enter and then type ~.");
    pty.send("\r~.");
    pty.finish();
}
