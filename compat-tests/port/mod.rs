//! Forwarded ports through the binary alone.

#[cfg(unix)]
pub mod additional;
mod late_agents;
#[cfg(unix)]
mod limits;
mod listener;
mod old_agents;
#[cfg(unix)]
mod outliving;
mod sessions;
#[cfg(unix)]
mod sockets;
#[cfg(unix)]
pub mod socks;
mod stdio;
mod streams;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, Sim};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{FreePort, Server, connect, echo_through, eventually, opened_port, random_bytes};
use crate::harness::process::{Running, Signal, run};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, sim, sim_that_forbids_loopback, sim_with_agent, start};

/// A running port session.
struct Forward {
    plugin: Running,
    port: u16,
    id: String,
}

impl Forward {
    /// To `port` of the simulator's instance, on any local port, without a stdin.
    #[track_caller]
    fn to(world: &World, sim: &Sim, port: u16) -> Forward {
        let started = Started::port(&sim.endpoint(), port, 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(world));
        let port = opened_port(&plugin.stdout);
        Forward { plugin, port, id: started.id().to_owned() }
    }
}

#[test]
fn text_of_a_session_is_exact() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    echo_through(forward.port, b"x");
    forward.plugin.stdout.wait_for("Connection accepted for session [");
    forward.plugin.signal(Signal::INT);
    let (id, port) = (&forward.id, forward.port);
    let expected = format!(
        "\nStarting session with SessionId: {id}\nPort {port} opened for sessionId {id}.\nWaiting for connections...\n\
         \nConnection accepted for session [{id}]\nTerminate signal received, exiting.\n\n\nExiting session with sessionId: {id}.\n\n"
    );
    let finished = forward.plugin.finish();
    finished.assert_ok();
    assert_eq!(finished.text(), expected);
    assert_all_ended(&sim);
}

/// A tunnel that the service ends names the setting by which the next one would stay.
#[test]
fn the_end_of_a_tunnel_names_the_setting_that_keeps_it() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    opened_port(&plugin.stdout);
    sim.close_session(started.id(), "idle");
    let finished = plugin.finish();
    let errors = finished.errors();
    assert!(
        errors.contains("the service ended the session; with SSM_PLUGIN_RESTART=1 the port stays open"),
        "{errors}"
    );
}

#[test]
fn refused_destination_ends_that_connection_only() {
    let (world, sim) = (World::new(), sim());
    let closed = FreePort::new();
    let forward = Forward::to(&world, &sim, closed.number());
    for _ in 0..2 {
        let mut local = connect(forward.port);
        let begin = Instant::now();
        // End or reset, either tells the client; a timeout would not.
        let answer = uninterrupted(|| local.read(&mut [0; 1]));
        let told = match &answer {
            Ok(n) => *n == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(told, "{answer:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
    }
    forward.plugin.stdout.wait_for("Connection to destination port failed, check SSM Agent logs.\n");
}

/// aws-connect#32 and others: what worked for years stops with an update of the agent.
#[test]
fn agent_3_3_4851_refuses_loopback_with_advice() {
    let (world, sim, echo) = (World::new(), sim_that_forbids_loopback(), Server::echo());
    let parameters = json!({"host": ["localhost"], "portNumber": [echo.port().to_string()]});
    let document = "AWS-StartPortForwardingSessionToRemoteHost";
    let started = Started::at(&sim.endpoint(), Some(document), parameters);
    let finished = run(&mut started.command(&world));
    finished.assert_ok();
    let words =
        format!("\n\nSessionId: {} : Forwarding to IP address localhost is forbidden.\n\n", started.id());
    assert!(finished.text().ends_with(&words), "{:?}", finished.text());
    let errors = finished.errors();
    assert!(errors.contains("AWS-StartPortForwardingSession without a host"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    // Which works.
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_through(forward.port, b"still"), b"still");
}

#[test]
fn destination_that_comes_up_later_is_reached() {
    let (world, sim) = (World::new(), sim());
    let free = FreePort::new();
    let port = free.number();
    let forward = Forward::to(&world, &sim, port);
    let mut early = connect(forward.port);
    let _ = uninterrupted(|| early.read(&mut [0; 1]));
    drop(early);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.write_all(b"late").expect("write");
    });
    let mut answer = String::new();
    connect(forward.port).read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "late");
    server.join().expect("server");
}

/// smp#139: which connection was cut off, and after how much.
#[test]
fn each_connection_is_reported_on_request() {
    for generation in [Generation::default(), Generation::V3_0] {
        let (mut world, sim, echo) = (World::new(), sim_with_agent(generation), Server::echo());
        let log = world.path("log");
        world.set("SSM_PLUGIN_LOG_CONNECTIONS", "1");
        world.set("SSM_PLUGIN_LOG", "info");
        world.set("SSM_PLUGIN_LOG_FILE", &log.display().to_string());
        let forward = Forward::to(&world, &sim, echo.port());
        let mut expected = String::new();
        for (number, size) in [(1, 100), (2, 50_000)] {
            let mut stream = connect(forward.port);
            let from = stream.local_addr().expect("address");
            let name = format!("connection {number} from {from}");
            let opened = forward.plugin.stderr.wait_for("\n");
            assert_eq!(opened, format!("session-manager-plugin: {name} opened\n"));
            let mut writer = stream.try_clone().expect("clone");
            let feeder = std::thread::spawn(move || writer.write_all(&random_bytes(number, size)));
            stream.read_exact(&mut vec![0; size]).expect("the echo");
            feeder.join().expect("feeder").expect("write");
            // A second connection must not find the first still open: old agents carry one.
            stream.shutdown(Shutdown::Both).expect("shutdown");
            drop(stream);
            let closed = forward.plugin.stderr.wait_for("\n");
            let (before, after) =
                (format!("{name} closed after "), format!(" s, sent {size} bytes, received {size} bytes\n"));
            assert!(closed.contains(&before) && closed.ends_with(&after), "{closed}");
            expected += &opened;
            expected += &closed;
        }
        // One that is open at the end of the session.
        let open = connect(forward.port);
        forward.plugin.stderr.wait_for(" opened\n");
        forward.plugin.signal(Signal::INT);
        let finished = forward.plugin.finish();
        finished.assert_ok();
        drop(open);
        let errors = finished.errors();
        assert!(errors.starts_with(&expected) && errors.lines().count() == 6, "{errors}");
        assert!(errors.ends_with("sent 0 bytes, received 0 bytes\n"), "{errors}");
        assert!(!finished.text().contains("connection 1"), "on stdout: {}", finished.text());
        let log = std::fs::read_to_string(&log).expect("the log");
        for line in errors.lines() {
            let line = line.trim_start_matches("session-manager-plugin: ");
            assert!(log.contains(line), "{line:?} is not in the log: {log}");
        }
    }
}

#[test]
fn connections_are_not_reported_by_default() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_through(forward.port, b"untold"), b"untold");
    forward.plugin.signal(Signal::INT);
    let finished = forward.plugin.finish();
    finished.assert_ok();
    assert_eq!(finished.errors(), "");
}

/// Agents that carry one connection at a time.
#[track_caller]
fn old_agent(generation: Generation) {
    let (world, sim, echo) = (World::new(), sim_with_agent(generation), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    for round in 0..3u64 {
        let bytes = random_bytes(round, 30_000);
        assert!(echo_through(forward.port, &bytes) == bytes, "round {round}");
        let accepted = format!("Connection accepted for session {}.\n", forward.id);
        if round == 0 {
            forward.plugin.stdout.wait_for(&accepted);
        }
    }
    forward.plugin.signal(Signal::INT);
    let finished = forward.plugin.finish();
    finished.assert_ok();
    assert!(!finished.text().contains("Waiting for connections"), "{}", finished.text());
    assert_all_ended(&sim);
}

#[test]
fn old_agent_3_0() {
    old_agent(Generation::V3_0);
}

#[test]
fn old_agent_2_3() {
    old_agent(Generation::V2_3);
}

/// The agent is informed of the end of the input when the destination has been quiet for a second. That is not the end for
/// a client that is still reading.
#[test]
fn a_slow_reader_of_an_old_agent_gets_the_whole_answer_after_half_close() {
    const SIZE: usize = 16 << 20;
    // Made before the request, after which the destination may be quiet for a second only.
    let expected = Arc::new(random_bytes(1, SIZE));
    let sent = Arc::clone(&expected);
    let server = Server::start(move |mut stream| {
        let _ = stream.read_exact(&mut [0; 1]);
        let _ = stream.write_all(&sent);
        let _ = stream.read(&mut [0; 1]);
    });
    let generation = Generation::V3_0;
    let agent = AgentOptions { pacing: false, payload: 16 << 10, generation, ..AgentOptions::default() };
    let sim = start(Config { agent, message_limit: None, ..Config::default() });
    let world = World::new();
    let forward = Forward::to(&world, &sim, server.port());
    let mut local = connect(forward.port);
    local.write_all(b"x").expect("write");
    local.shutdown(Shutdown::Write).expect("half-close");
    // All has come, and nothing comes for two seconds.
    let received = || sim.sessions().iter().map(|session| session.down.bytes).max();
    let (mut last, mut since) = (received(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        if received() != last {
            (last, since) = (received(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut answer = vec![0; SIZE];
    local.read_exact(&mut answer).expect("the whole answer");
    assert!(answer == *expected, "the answer differs");
}

#[test]
fn quit_and_stop_keys_end_a_port_session_like_interrupt() {
    for signal in [Signal::QUIT, Signal::TSTP] {
        let (world, sim, echo) = (World::new(), sim(), Server::echo());
        let forward = Forward::to(&world, &sim, echo.port());
        forward.plugin.signal(signal);
        let finished = forward.plugin.finish();
        finished.assert_ok();
        assert!(finished.text().contains("Terminate signal received, exiting.\n"), "{}", finished.text());
        assert_all_ended(&sim);
    }
}

#[test]
fn end_from_the_service_closes_the_port() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    let mut local = connect(forward.port);
    local.write_all(b"x").expect("write");
    local.read_exact(&mut [0; 1]).expect("read");
    sim.close_session(&forward.id, "ended by the administrator");
    let finished = forward.plugin.finish();
    finished.assert_ok();
    let line = format!("\n\nSessionId: {} : ended by the administrator\n\n", forward.id);
    assert!(finished.text().ends_with(&line), "{:?}", finished.text());
    eventually("the port is closed", || TcpStream::connect((Ipv4Addr::LOCALHOST, forward.port)).is_err());
}
