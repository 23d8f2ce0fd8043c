//! Additional local ports with their own destinations (`SSM_PLUGIN_FORWARD`).

use std::io::{Read, Write};
use std::net::{TcpListener, ToSocketAddrs};

use rustix::process::Signal;
use ssm_sim::{SessionState, Sim};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{Server, connect, echo_through, eventually, opened_port};
use crate::harness::process::{Running, port_in_use};
use crate::harness::sim::{assert_all_ended, sim};

/// The local port of `port <n> forwards to <destination>`.
#[track_caller]
pub fn leads_to(plugin: &Running, destination: &str) -> u16 {
    plugin.stderr.wait_for("session-manager-plugin: port ");
    let line = plugin.stderr.wait_for("\n");
    let number = line.strip_suffix(&format!(" forwards to {destination}\n"));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

/// An echo server, the simulator, and names for it.
fn network() -> (World, Sim, Server) {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    for name in ["db.internal", "cache.internal"] {
        sim.set_host(name, "127.0.0.1");
    }
    (world, sim, echo)
}

#[test]
fn each_leads_to_its_destination_by_a_session_of_its_own_when_it_is_used() {
    let (mut world, sim, echo) = network();
    let greeting = Server::greeting("cache\n");
    let (db, cache) = (echo.port(), greeting.port());
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{db} 0:cache.internal:{cache} 0:127.0.0.1:{db}"));
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let main = opened_port(&plugin.stdout);
    let ports = [
        leads_to(&plugin, &format!("db.internal:{db}")),
        leads_to(&plugin, &format!("cache.internal:{cache}")),
        leads_to(&plugin, &format!("127.0.0.1:{db}")),
    ];
    assert_eq!(echo_through(main, b"main"), b"main");
    assert_eq!(sim.requests().start, 1, "nobody has used the others");
    assert_eq!(echo_through(ports[0], b"db"), b"db");
    let mut answer = String::new();
    connect(ports[1]).read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "cache\n");
    assert_eq!(echo_through(ports[0], b"again"), b"again");
    assert_eq!(sim.requests().start, 3, "one for each that was used");
    assert_eq!(echo_through(ports[2], b"itself"), b"itself");
    let documents: Vec<_> = sim.sessions().into_iter().map(|session| session.document).collect();
    let (plain, remote) = ("AWS-StartPortForwardingSession", "AWS-StartPortForwardingSessionToRemoteHost");
    // Agents since 3.3.4851 refuse loopback addresses in the other document.
    assert_eq!(documents, [plain, remote, remote, plain]);
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    assert_eq!(
        finished.text().matches("opened for sessionId").count(),
        1,
        "callers read that: {}",
        finished.text()
    );
    assert_all_ended(&sim);
    assert!(TcpListener::bind(("127.0.0.1", ports[0])).is_ok(), "still open");
}

/// The whole command ends with the session of argv, unless its port outlives it.
#[test]
fn an_additional_session_that_ends_is_replaced_for_the_next_connection() {
    let (mut world, sim, echo) = network();
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{}", echo.port()));
    world.set("SSM_PLUGIN_STATUS", "always");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let name = format!("db.internal:{}", echo.port());
    let port = leads_to(&plugin, &name);
    assert_eq!(echo_through(port, b"one"), b"one");
    plugin.stderr.wait_for(&format!("a session to {name} has started\n"));
    let second = sim.sessions().pop().expect("a session");
    sim.close_session(&second.id, "idle");
    plugin
        .stderr
        .wait_for(&format!("the session to {name} ended (idle); the next connection starts a new one\n"));
    assert_eq!(echo_through(port, b"two"), b"two");
    assert_eq!(sim.requests().start, 3);
    sim.close_session(started.id(), "over");
    let finished = plugin.finish();
    finished.assert_ok();
    assert_all_ended(&sim);
}

#[test]
fn several_sessions_behind_each() {
    let (mut world, sim, echo) = network();
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{}", echo.port()));
    world.set("SSM_PLUGIN_SESSIONS", "2");
    world.set("SSM_PLUGIN_RESTART", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = leads_to(&plugin, &format!("db.internal:{}", echo.port()));
    let open: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect(port);
            stream.write_all(b"x").expect("write");
            stream.read_exact(&mut [0]).expect("read");
            stream
        })
        .collect();
    let connected =
        |sim: &Sim| sim.sessions().iter().filter(|session| session.state == SessionState::Connected).count();
    eventually("two sessions beside the first", || connected(&sim) == 3);
    drop(open);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}

/// `nc -z`, wait loops, load balancers: a port is open, more they do not want to know.
#[test]
fn probes_start_no_session() {
    let (mut world, sim, echo) = network();
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{}", echo.port()));
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = leads_to(&plugin, &format!("db.internal:{}", echo.port()));
    for _ in 0..20 {
        drop(connect(port));
    }
    // The last that came is served, so the others have been looked at.
    let mut greeted = connect(port);
    greeted.write_all(b"x").expect("write");
    greeted.read_exact(&mut [0]).expect("read");
    assert_eq!(sim.requests().start, 2, "one for the client that has something to say");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}

/// Clients of `localhost` that try ::1 first would reach that process, without a word.
#[test]
fn another_process_on_the_other_loopback_address_is_reported() {
    let has_both = ("localhost", 0).to_socket_addrs().is_ok_and(|mut all| all.any(|one| one.is_ipv6()));
    // A hosts file of one address, as in containers, has nothing to report; the listener's own tests do not read it.
    let Some(taken) = TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).ok().filter(|_| has_both) else {
        return;
    };
    let (mut world, sim, echo) = network();
    let number = taken.local_addr().expect("address").port();
    world.set("SSM_PLUGIN_FORWARD", &format!("{number}:db.internal:{}", echo.port()));
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    plugin.stderr.wait_for(&format!("another process listens on [::1]:{number}; "));
    assert_eq!(echo_through(leads_to(&plugin, &format!("db.internal:{}", echo.port())), b"x"), b"x");
    // The port of argv, with one that is free on both addresses where it may choose.
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    let started = Started::port(&sim.endpoint(), echo.port(), number);
    world.set("SSM_PLUGIN_FORWARD", "");
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    plugin.stderr.wait_for(&format!("another process listens on [::1]:{number}; "));
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}

/// smp#55 and its like: the destination's own text, not that of the port of argv.
#[test]
fn a_refused_destination_is_named() {
    let (mut world, sim, echo) = network();
    let unused = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{unused}"));
    world.set("SSM_PLUGIN_STATUS", "always");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = leads_to(&plugin, &format!("db.internal:{unused}"));
    let mut stream = connect(port);
    let _ = stream.read(&mut [0]);
    plugin.stderr.wait_for(&format!(
        "the connection to db.internal:{unused} failed; see the SSM Agent log on the instance\n"
    ));
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    assert!(!finished.text().contains("Connection to destination port failed"), "{}", finished.text());
}

/// One line for each, before anything else; what is right works.
#[test]
fn mistakes() {
    let (mut world, sim, echo) = network();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = (taken.local_addr().expect("address").port(), taken);
    let db = echo.port();
    world.set(
        "SSM_PLUGIN_FORWARD",
        &format!("nonsense 1:db.internal:0 {}:db.internal:{db} 0:db.internal:{db} 5:a\"b.c:1", taken.0),
    );
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    for line in [
        "SSM_PLUGIN_FORWARD: \"nonsense\" is not [BIND:]PORT:HOST:HOSTPORT, such as 15432:db.internal:5432\n",
        "SSM_PLUGIN_FORWARD: \"1:db.internal:0\": port 0 is not a valid destination port\n",
        "SSM_PLUGIN_FORWARD: \"5:a\\\"b.c:1\": the host has characters that the session document does not allow",
        &format!("bind: {}\n", port_in_use()),
    ] {
        plugin.stderr.wait_for(line);
    }
    let port = leads_to(&plugin, &format!("db.internal:{db}"));
    assert_eq!(echo_through(port, b"right"), b"right");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}
