//! When sessions are started, and when not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ssm_sim::SessionState;

use super::{Port, assert_closed, echoed, living};
use crate::harness::api::Started;
use crate::harness::net::{Server, connect, echo_through, eventually};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, await_pings, sim};
use crate::harness::{PATIENCE, World};
use crate::port::additional::leads_to;

/// Connections that have a session do not keep another one being asked for.
#[test]
fn additional_sessions_that_cannot_be_started_are_not_requested_again_and_again() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_SESSIONS", "2");
    let port = Port::to(&echo, &mut world, &sim);
    let first = echoed(port.port);
    sim.refuse_starts(Some("AccessDeniedException"));
    let second = echoed(port.port);
    port.plugin.stderr.wait_for("AccessDeniedException");
    let starts = sim.requests().start;
    // Longer than the first pauses between attempts.
    await_pings(&sim, &port.first, 3);
    assert_eq!(sim.requests().start, starts);
    drop((first, second));
    port.end();
}

/// The end of a session whose connections were its own starts no other.
#[test]
fn an_additional_session_that_ends_is_replaced_for_the_next_connection() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_SESSIONS", "2");
    let port = Port::to(&echo, &mut world, &sim);
    let open = [echoed(port.port), echoed(port.port), echoed(port.port)];
    eventually("a second session", || {
        sim.sessions().iter().filter(|session| session.state == SessionState::Connected).count() == 2
    });
    // Connected is not yet ready: its handshake follows.
    port.plugin.stderr.wait_for("a session has started");
    sim.close_session(&living(&sim, &port.first), "idle");
    port.plugin.stderr.wait_for(" ended (");
    let starts = sim.requests().start;
    await_pings(&sim, &port.first, 2);
    assert_eq!(sim.requests().start, starts);
    drop(open);
    port.end();
    assert_all_ended(&sim);
}

/// `nc -z`, wait loops, load balancers.
#[test]
fn probes_start_no_session() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let port = Port::to(&echo, &mut world, &sim);
    port.end_session(&sim);
    for _ in 0..20 {
        drop(connect(port.port));
    }
    assert_eq!(echo_through(port.port, b"client"), b"client");
    assert_eq!(sim.requests().start, 2, "one for the client that has something to say");
    // A server that speaks first has a client that says nothing.
    let greeting = Server::greeting("220 ready\n");
    port.end();
    let port = Port::to(&greeting, &mut world, &sim);
    port.end_session(&sim);
    let mut line = String::new();
    connect(port.port).read_to_string(&mut line).expect("read");
    assert_eq!(line, "220 ready\n");
    port.end();
    assert_all_ended(&sim);
}

/// A connection to a port; `None` if it was reset before the system had reported it.
fn connect_or_reset(port: u16) -> Option<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
            Some(stream)
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("cannot connect: {error}"),
    }
}

/// Said once, closed at once, and no request for each attempt of an impatient client.
#[test]
fn a_denied_start_is_reported_once_and_does_not_spin() {
    for (kind, advice) in [
        ("AccessDeniedException", "allow ssm:StartSession"),
        ("ExpiredTokenException", "sign in again"),
        ("InvalidDocument", "InvalidDocument"),
    ] {
        let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
        let port = Port::to(&echo, &mut world, &sim);
        port.end_session(&sim);
        sim.refuse_starts(Some(kind));
        let before = sim.requests().start;
        let begin = Instant::now();
        for _ in 0..100 {
            if let Some(mut stream) = connect_or_reset(port.port) {
                assert_closed(&mut stream);
            }
        }
        let asked = sim.requests().start - before;
        let most = 4 + u64::from(begin.elapsed() > Duration::from_secs(5)) * begin.elapsed().as_secs();
        assert!((1..=most).contains(&asked), "{kind}: {asked} requests in {:?}", begin.elapsed());
        sim.refuse_starts(None);
        eventually("the port stays", || {
            let Some(mut stream) = connect_or_reset(port.port) else { return false };
            stream.write_all(b"y").is_ok() && matches!(uninterrupted(|| stream.read(&mut [0; 1])), Ok(1))
        });
        let (_, errors) = port.end();
        let told: Vec<_> = errors.lines().filter(|line| line.contains("cannot start a session: ")).collect();
        assert!(told.len() == 1 && told[0].contains(advice), "{kind}: {errors}");
        assert_all_ended(&sim);
    }
}

/// Passing causes are waited out by the connections that wait, and by no others.
#[test]
fn a_client_that_goes_away_is_not_waited_for() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    // Another port, whose session counts the time.
    world.set("SSM_PLUGIN_FORWARD", &format!("0:127.0.0.1:{}", echo.port()));
    world.set("SSM_PLUGIN_LOG_CONNECTIONS", "1");
    let port = Port::to(&echo, &mut world, &sim);
    let other = leads_to(&port.plugin, &format!("127.0.0.1:{}", echo.port()));
    assert_eq!(echo_through(other, b"other"), b"other");
    let clock = living(&sim, &port.first);
    port.end_session(&sim);
    sim.refuse_starts(Some("ThrottlingException"));
    let before = sim.requests().start;
    let waiting = connect(port.port);
    eventually("it is tried", || sim.requests().start > before);
    drop(waiting);
    port.plugin.stderr.wait_for(" closed after ");
    // What is under way may still come.
    await_pings(&sim, &clock, 1);
    let settled = sim.requests().start;
    await_pings(&sim, &clock, 3);
    assert_eq!(sim.requests().start, settled, "a session is requested that no client needs");
    sim.refuse_starts(None);
    assert_eq!(echo_through(port.port, b"at last"), b"at last");
    port.end();
    assert_all_ended(&sim);
}

/// Its end stands behind what is read when there is a session for it: what it has sent is delivered.
#[test]
fn a_client_that_goes_away_after_it_has_sent_much_is_served_when_there_is_a_session() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_LOG_CONNECTIONS", "1");
    let port = Port::to(&echo, &mut world, &sim);
    port.end_session(&sim);
    sim.refuse_starts(Some("ThrottlingException"));
    let before = sim.requests().start;
    let mut waiting = connect(port.port);
    waiting.write_all(&[7; 64 << 10]).expect("write");
    eventually("it is tried", || sim.requests().start > before);
    drop(waiting);
    sim.refuse_starts(None);
    port.plugin.stderr.wait_for(" closed after ");
    port.end();
    assert_all_ended(&sim);
}

/// A destination that is away for long does not cost a session for each attempt.
#[test]
fn a_destination_that_stays_away_costs_few_sessions() {
    let (mut world, sim) = (World::new(), sim());
    let unused =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind").local_addr().expect("address").port();
    let started = Started::port(&sim.endpoint(), unused, 0);
    let port = Port::start(&mut world, &started);
    let begin = Instant::now();
    for _ in 0..30 {
        let mut stream = connect(port.port);
        let _ = stream.write_all(b"x");
        assert_closed(&mut stream);
    }
    let most = 3 + begin.elapsed().as_secs() / 2;
    assert!(sim.requests().start <= most, "{} in {:?}", sim.requests().start, begin.elapsed());
    port.end();
    assert_all_ended(&sim);
}
