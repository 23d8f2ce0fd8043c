//! Connections next to each other: their bytes, their ends, their pace.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use ssm_sim::Config;
use ssm_sim::agent::AgentOptions;

use super::Forward;
use crate::harness::net::{Server, await_byte, connect, echo_through, eventually, random_bytes};
use crate::harness::sim::{sim, start, unpaced_sim};
use crate::harness::{PATIENCE, World};

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
