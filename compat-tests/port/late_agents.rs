//! Agents that acknowledge and ignore input for a moment after their handshake.

use std::io::{Read, Write};
use std::time::Duration;

use super::Forward;
use crate::harness::World;
use crate::harness::net::{Server, connect, echo_through, random_bytes};
use crate::harness::sim::{assert_all_ended, sim_that_listens_after};

/// The official plugin loses these bytes.
#[test]
fn first_bytes_reach_an_agent_that_listens_late() {
    for deaf in [0, 5, 60, 120] {
        let (world, echo) = (World::new(), Server::echo());
        let sim = sim_that_listens_after(Duration::from_millis(deaf));
        for size in [1, 900] {
            let forward = Forward::to(&world, &sim, echo.port());
            assert_eq!(echo_through(forward.port, &random_bytes(deaf, size)), random_bytes(deaf, size));
            assert_eq!(echo_through(forward.port, b"again"), b"again");
        }
    }
}

/// Bytes of several connections, and their ends.
#[test]
fn connections_that_come_together_are_carried_once_each() {
    let (world, echo) = (World::new(), Server::echo());
    let sim = sim_that_listens_after(Duration::from_millis(60));
    let forward = Forward::to(&world, &sim, echo.port());
    let mut clients: Vec<_> = (0..5_u8).map(|_| connect(forward.port)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&[number as u8; 40]).expect("write");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 40];
        client.read_exact(&mut answer).expect("the echo");
        assert_eq!(answer, [number as u8; 40]);
    }
    drop(clients);
    let up = random_bytes(9, 20_000);
    assert_eq!(echo_through(forward.port, &up), up);
    forward.plugin.signal(crate::harness::process::Signal::INT);
    forward.plugin.finish().assert_ok();
    assert_all_ended(&sim);
}

/// More than one message holds waits until the agent should listen.
#[test]
fn a_large_first_request_reaches_an_agent_that_listens_late() {
    let (world, echo) = (World::new(), Server::echo());
    let sim = sim_that_listens_after(Duration::from_millis(10));
    let forward = Forward::to(&world, &sim, echo.port());
    let up = random_bytes(3, 50_000);
    assert_eq!(echo_through(forward.port, &up), up);
}
