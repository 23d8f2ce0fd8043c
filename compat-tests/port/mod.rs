//! Forwarded ports through the binary alone.

#[cfg(unix)]
pub mod additional;
mod late_agents;
#[cfg(unix)]
mod limits;
#[cfg(unix)]
mod outliving;
mod sessions;
#[cfg(unix)]
mod sockets;
#[cfg(unix)]
pub mod socks;
mod stdio;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, CustomDocument, Sim};

use crate::harness::api::Started;
use crate::harness::net::{
    FreePort, Server, await_byte, connect, echo_through, eventually, opened_port, random_bytes,
};
use crate::harness::process::{Running, Signal, run};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{
    assert_all_ended, sim, sim_that_forbids_loopback, sim_with_agent, start, unpaced_sim,
};
use crate::harness::{PATIENCE, World};

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

/// A document of one's own may leave it out.
#[test]
fn without_a_local_port_any_free_one_is_taken() {
    let (world, echo) = (World::new(), Server::echo());
    for local in [None, Some("")] {
        let mut properties = json!({"type": "LocalPortForwarding", "portNumber": echo.port().to_string()});
        if let Some(local) = local {
            properties["localPortNumber"] = json!(local);
        }
        let Value::Object(properties) = properties else { unreachable!("an object") };
        let documents = [("Own".to_owned(), CustomDocument::Port { properties })].into();
        let sim = start(Config { documents, ..Config::default() });
        let started = Started::at(&sim.endpoint(), Some("Own"), json!({}));
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let port = opened_port(&plugin.stdout);
        assert_ne!(port, 0);
        assert_eq!(echo_through(port, b"any"), b"any");
    }
}

#[test]
fn port_in_use_fails_at_once_and_ends_the_session() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let started = Started::port(&sim.endpoint(), echo.port(), port);
    let begin = Instant::now();
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    finished.assert_ok();
    let line =
        format!("Cannot perform start session: listen tcp 127.0.0.1:{port}: bind: address already in use\n");
    assert!(finished.text().contains(&line), "{:?}", finished.text());
    assert_eq!(finished.errors(), "", "the owner is for people");
    // A second on an idle machine; the tests share theirs.
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
    assert_all_ended(&sim);
}

/// Linux reports the process that has the port.
#[cfg(target_os = "linux")]
#[test]
fn the_owner_of_a_taken_port_is_named() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let started = Started::port(&sim.endpoint(), echo.port(), port);
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    let errors = finished.errors();
    assert!(errors.contains(&format!("port {port} is in use by ")), "{errors}");
    assert!(errors.contains(&format!("(process {})", std::process::id())), "{errors}");
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

#[test]
fn two_hundred_connections_at_once() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    let port = forward.port;
    // All are open before the first byte goes.
    let streams: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
    let threads: Vec<_> = streams
        .into_iter()
        .zip(0u64..)
        .map(|(mut stream, seed)| {
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE * 2)).expect("timeout");
                let sent = random_bytes(seed, 4000 + usize::try_from(seed).unwrap_or_default());
                stream.write_all(&sent).expect("write");
                let mut answer = vec![0; sent.len()];
                stream.read_exact(&mut answer).expect("read");
                assert!(answer == sent, "connection {seed} got other bytes");
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a connection failed");
    }
}

#[test]
fn localhost_is_both_addresses() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_through(forward.port, b"over IPv4"), b"over IPv4");
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, forward.port));
    let mut names = ("localhost", forward.port).to_socket_addrs().expect("localhost");
    if !names.any(|name| name == address) || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // Here `localhost` is 127.0.0.1 alone, and so must the listener be.
        assert!(TcpStream::connect(address).is_err(), "listens on ::1, which is not localhost here");
        return;
    }
    assert_eq!(echo_over(address), *b"over IPv6");
}

fn echo_over(address: impl std::net::ToSocketAddrs) -> [u8; 9] {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"over IPv6").expect("write");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).expect("read");
    answer
}

/// smp#14, smp#133.
#[test]
fn local_host_setting_names_the_address() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_LOCAL_HOST", "127.0.0.2");
    let forward = Forward::to(&world, &sim, echo.port());
    let mut stream = TcpStream::connect(("127.0.0.2", forward.port)).expect("connect to 127.0.0.2");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"elsewhere").expect("write");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"elsewhere");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, forward.port)).is_err(), "127.0.0.1 listens, too");
}

/// An IPv6 address as URLs have it.
#[test]
fn local_host_setting_may_have_brackets() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_LOCAL_HOST", "[::1]");
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_over(("::1", forward.port)), *b"over IPv6");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, forward.port)).is_err(), "127.0.0.1 listens, too");
}

#[test]
fn half_close_still_brings_the_answer() {
    let (world, sim, server) = (World::new(), sim(), Server::late_answer());
    let forward = Forward::to(&world, &sim, server.port());
    let mut local = connect(forward.port);
    local.write_all(b"request").expect("write");
    local.shutdown(Shutdown::Write).expect("half-close");
    let mut answer = String::new();
    local.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "the answer");
}

#[test]
fn end_of_the_remote_ends_the_connection_with_all_its_bytes() {
    let (world, sim, greeting) = (World::new(), sim(), Server::greeting("220 all of this\r\n"));
    let forward = Forward::to(&world, &sim, greeting.port());
    for _ in 0..20 {
        let mut answer = String::new();
        connect(forward.port).read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "220 all of this\r\n");
    }
}

#[test]
fn one_stalled_reader_does_not_stop_the_others() {
    const FLOOD: usize = 1_000_000;
    let server = Server::start(|mut stream| {
        let mut first = [0; 1];
        if stream.read_exact(&mut first).is_err() {
            return;
        }
        if first == *b"F" {
            let _ = stream.write_all(&random_bytes(9, FLOOD));
        } else {
            let _ = std::io::copy(&mut stream.try_clone().expect("clone"), &mut stream);
        }
    });
    let (world, sim) = (World::new(), unpaced_sim());
    let forward = Forward::to(&world, &sim, server.port());
    let mut stalled = connect(forward.port);
    stalled.write_all(b"F").expect("write");
    // Some of it has come: the flood is under way, and the reader stops.
    await_byte(&stalled);
    for round in 0..10u64 {
        let mut bytes = random_bytes(round, 5000);
        bytes[0] = b'E';
        assert!(echo_through_after_first(forward.port, &bytes) == bytes[1..], "round {round}");
    }
    let mut flood = vec![0; FLOOD];
    stalled.read_exact(&mut flood).expect("the rest of the flood");
    assert!(flood == random_bytes(9, FLOOD), "the flood differs");
}

/// smp#139: a paused pager alongside a database GUI. Two readers that take nothing of what they have asked for, and a third
/// connection of the same session that downloads.
#[test]
fn readers_that_never_read_leave_the_others_their_pace() {
    const SIZE: usize = 4_000_000;
    let server = Server::start(|mut stream| {
        let mut first = [0; 1];
        if stream.read_exact(&mut first).is_ok() {
            let megabytes = match first[0] {
                b'A' => 16,
                b'B' => 60,
                _ => SIZE / 1_000_000,
            };
            let block = random_bytes(9, 1_000_000);
            let _ = (0..megabytes).try_for_each(|_| stream.write_all(&block));
        }
    });
    let agent = AgentOptions { pacing: false, payload: 16 << 10, ..AgentOptions::default() };
    let sim = start(Config { agent, message_limit: None, ..Config::default() });
    let world = World::new();
    let forward = Forward::to(&world, &sim, server.port());
    let mut stalled = [connect(forward.port), connect(forward.port)];
    stalled[0].write_all(b"A").expect("write");
    stalled[1].write_all(b"B").expect("write");
    eventually("all has come that they have asked for", || {
        sim.session(&forward.id).is_some_and(|session| session.down.bytes > 76_000_000)
    });
    let mut running = connect(forward.port);
    running.write_all(b"C").expect("write");
    let mut bytes = vec![0; SIZE];
    running.read_exact(&mut bytes).expect("the download beside them");
    assert!(bytes.chunks(1_000_000).all(|block| block == random_bytes(9, 1_000_000)));
    let mut late = vec![0; 16_000_000];
    stalled[0].read_exact(&mut late).expect("what was kept");
    assert!(late.chunks(1_000_000).all(|block| block == random_bytes(9, 1_000_000)));
}

/// Sends all of `bytes`; the server keeps the first and sends the rest back.
#[track_caller]
fn echo_through_after_first(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    stream.write_all(bytes).expect("write");
    let mut answer = vec![0; bytes.len() - 1];
    stream.read_exact(&mut answer).expect("read");
    answer
}

/// smp#139: which connection was cut off, and after how much.
#[test]
fn each_connection_is_told_when_asked_for() {
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
fn connections_are_not_told_unasked() {
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

#[test]
fn defaults_stay_within_the_services_message_limit() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    let bytes = random_bytes(11, 3_000_000);
    assert!(echo_through(forward.port, &bytes) == bytes, "the echo differs");
    let report = sim.session(&forward.id).expect("the session");
    assert!(!report.limit_exceeded, "{report:#?}");
    assert!(report.up.peak_2s < 2000, "{report:#?}");
}
