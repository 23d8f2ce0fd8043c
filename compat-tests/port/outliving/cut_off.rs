//! Connections whose session ends, or is not there yet.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::Signal;
use ssm_sim::SessionState;

use super::{Port, echoed};
use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{Server, connect, echo_through, opened_port};
use crate::harness::process::Running;
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, sim, sim_that_listens_after};

/// A connection that waits for its session has bytes ready when the handshake is complete.
#[test]
fn a_waiting_connection_reaches_an_agent_that_listens_late() {
    let (mut world, sim, echo) =
        (World::new(), sim_that_listens_after(Duration::from_millis(10)), Server::echo());
    let port = Port::to(&echo, &mut world, &sim);
    for round in 0..3 {
        for session in sim.sessions().iter().filter(|session| session.state != SessionState::Ended) {
            sim.close_session(&session.id, "idle");
        }
        port.plugin.stderr.wait_for(" ended (");
        let text = format!("round {round}");
        assert_eq!(echo_through(port.port, text.as_bytes()), text.as_bytes());
    }
    port.end();
    assert_all_ended(&sim);
}

/// One that came when all streams were taken gets the first that is free again.
#[test]
fn a_connection_too_many_is_served_when_another_has_gone() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let port = Port::to(&echo, &mut world, &sim);
    let mut open: Vec<_> = (0..MAX_STREAMS).map(|_| echoed(port.port)).collect();
    let mut late = connect(port.port);
    late.write_all(b"z").expect("write");
    // Reset, so that nothing waits for an answer.
    let gone = open.pop().expect("one");
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).expect("linger");
    drop(gone);
    late.read_exact(&mut [0; 1]).expect("it is served");
    drop((open, late));
    port.end();
    assert_all_ended(&sim);
}

/// 221,233 of 3,000,000 bytes were taken as complete.
#[test]
fn a_download_that_the_end_of_the_session_cuts_off_is_reset() {
    for restart in ["1", "0"] {
        let (mut world, sim) = (World::new(), sim());
        let server = Server::start(|mut stream| {
            while stream.write_all(&[7; 4096]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        world.set("SSM_PLUGIN_RESTART", restart);
        let started = Started::port(&sim.endpoint(), server.port(), 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let mut stream = connect(opened_port(&plugin.stdout));
        stream.write_all(b"x").expect("write");
        stream.read_exact(&mut [0; 8192]).expect("a part");
        sim.close_session(started.id(), "over");
        let end = uninterrupted(|| stream.read_to_end(&mut Vec::new()));
        let error = end.expect_err("a part is not the whole");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "SSM_PLUGIN_RESTART={restart}");
        plugin.signal(Signal::INT);
        plugin.finish().assert_ok();
    }
}

/// Data that arrived completely stays complete, although the session ends before the client has read it.
#[test]
fn a_download_that_is_complete_ends_as_one() {
    let (mut world, sim) = (World::new(), sim());
    let server = Server::start(|mut stream| {
        let mut size = [0];
        let _ = stream
            .read_exact(&mut size)
            .and_then(|()| stream.write_all(&vec![7; usize::from(size[0]) * 10_000]));
    });
    let started = Started::port(&sim.endpoint(), server.port(), 0);
    let port = Port::start(&mut world, &started);
    let mut slow = connect(port.port);
    let mut quick = connect(port.port);
    slow.write_all(&[20]).expect("write");
    slow.read_exact(&mut [0; 1000]).expect("read");
    // Both get equal shares: when the longer one is there, so is the shorter.
    quick.write_all(&[100]).expect("write");
    let mut all = Vec::new();
    quick.read_to_end(&mut all).expect("read");
    sim.close_session(&port.first, "over");
    port.plugin.stderr.wait_for("ended (");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("a clean end");
    assert_eq!((all.len(), rest.len() + 1000), (1_000_000, 200_000));
    port.end();
}

/// As many as the product gives a session.
const MAX_STREAMS: usize = 1024;
