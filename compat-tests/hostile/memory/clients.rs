//! Local clients that do not read.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::attack::Attack;
use super::bursts::{
    BYTES, Burst, FIRST_STREAM, each, empty_frames, frames_in_nearly_empty_buffers, largest_frames,
    one_byte_frames, one_byte_frames_in_large_messages,
};
use super::victim::{Progress, Session, Unread, Victim, announce, assert_all};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::net::{connect, eventually, opened_port};
use crate::harness::wire::{self, Frame};

#[test]
fn a_client_that_does_not_read() {
    let attacks: [(&str, Burst, usize, usize); 5] = [
        ("one-byte frames in large messages", one_byte_frames_in_large_messages, 100, 64),
        ("one-byte frames", one_byte_frames, 400, 40),
        ("frames in nearly empty buffers", frames_in_nearly_empty_buffers, 200, 64),
        ("the largest frames", largest_frames, 100, ONE_READER),
        ("empty frames", empty_frames, 20, 40),
    ];
    assert_all(attacks.map(|(name, burst, times, below)| {
        let (session, unread, bursts) = (Session::Multiplexed, Unread::Client, &[(name, burst, times)]);
        Attack { session, unread, settings: &[], bursts, below }.run(name)
    }));
}

/// The memory that all of them hold is limited, too.
#[test]
fn clients_that_do_not_read_together() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        // One message may carry what several of them have sent.
        let mut sent = Vec::new();
        while hellos(&sent) < CLIENTS as usize {
            let Some(message) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            sent.extend(message.payload);
        }
        let streams = (0..CLIENTS).map(|number| FIRST_STREAM + 2 * number);
        let frames: Vec<u8> =
            streams.flat_map(|id| wire::smux(1, 2, id, &[b'x'; 60_000]).repeat(3)).collect();
        let mut flood = socket.flood();
        for _ in 0..600 {
            if !flood.data(wire::PAYLOAD_OUTPUT, &frames) {
                break;
            }
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    let port = opened_port(victim.stdout());
    let _clients: Vec<TcpStream> = (0..CLIENTS).map(|_| hello(port)).collect();
    progress.await_end(&victim);
    assert_all([victim.check_memory("five clients", 330)]);
}

/// The destination speaks first, and no client connects.
#[test]
fn a_basic_port_without_a_client() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let (session, unread) = (Session::Basic, Unread::Nothing);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below: 48 }.run(name)
    }));
}

#[test]
fn a_basic_port_with_a_client_that_does_not_read() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let below = if *name == "the largest messages" { ONE_READER } else { 40 };
        let (session, unread) = (Session::Basic, Unread::Client);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below }.run(name)
    }));
}

/// The destination of an old agent fails with much still unread: the client keeps it, and the next one comes.
#[test]
fn clients_that_do_not_read_one_after_the_other() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Basic);
        for _ in 0..RELEASED {
            if socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
                return;
            }
            // Few large messages: their acknowledgements fit in the sockets.
            let mut flood = socket.deaf_flood();
            each(2 * UNREAD, || {
                seen.bursts.fetch_add(1, Ordering::SeqCst);
                flood.data(wire::PAYLOAD_OUTPUT, &vec![b'x'; 1 << 19])
            });
            flood.data(wire::PAYLOAD_FLAG, &3_u32.to_be_bytes());
            flood.flush();
        }
        seen.is_done.store(true, Ordering::SeqCst);
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    let port = opened_port(victim.stdout());
    let _clients: Vec<TcpStream> = (0..RELEASED).map(|_| hello(port)).collect();
    progress.await_end(&victim);
    assert_all([victim.check_memory("refused clients", RELEASED_READERS)]);
}

/// Each session ends with all of its destination's output still unread, and the next client starts another one.
#[test]
fn clients_of_ended_sessions_that_do_not_read() {
    let (progress, over) = (Arc::new(Progress::default()), Arc::new(AtomicUsize::new(0)));
    let (seen, ended) = (Arc::clone(&progress), Arc::clone(&over));
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let mut sent = Vec::new();
        while hellos(&sent) < PER_SESSION {
            let Some(message) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            sent.extend(message.payload);
        }
        let mut flood = socket.deaf_flood();
        for number in 0..PER_SESSION as u32 {
            let id = FIRST_STREAM + 2 * number;
            let frames = wire::smux(1, 2, id, &[b'x'; 1 << 15]).repeat(1 << 4);
            each(2 * UNREAD, || {
                seen.bursts.fetch_add(1, Ordering::SeqCst);
                flood.data(wire::PAYLOAD_OUTPUT, &frames)
            });
            flood.data(wire::PAYLOAD_OUTPUT, &wire::smux(1, 1, id, b""));
        }
        flood.flush();
        socket.close("");
        while socket.input().is_some() {}
        ended.fetch_add(1, Ordering::SeqCst);
    });
    gateway.start_sessions_after(Duration::ZERO);
    let mut world = World::new();
    world.set("SSM_PLUGIN_RESTART", "1");
    let mut victim = Victim::start(world, &gateway, Unread::Nothing);
    let (port, mut clients) = (opened_port(victim.stdout()), Vec::new());
    for session in 1..=3 {
        clients.extend((0..PER_SESSION).map(|_| hello(port)));
        let before = progress.bursts.load(Ordering::SeqCst);
        eventually("the session floods its clients", || progress.bursts.load(Ordering::SeqCst) > before);
        progress.await_end_or(&victim, || over.load(Ordering::SeqCst) == session);
        if over.load(Ordering::SeqCst) < session {
            break;
        }
    }
    assert_all([victim.check_memory("clients of ended sessions", RELEASED_READERS)]);
}

/// One gateway carries many sessions, and sends to each what may wait for a message that does not come.
#[test]
fn early_messages_of_many_sessions() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let first = socket.next_number() + 1;
        let mut flood = socket.flood();
        let message = vec![b'x'; 1 << 19];
        for number in 0..34 {
            flood.frame(&Frame::output(first + number, wire::PAYLOAD_OUTPUT, &message));
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        flood.hold();
    });
    gateway.start_sessions_after(Duration::ZERO);
    let mut world = World::new();
    world.set("SSM_PLUGIN_SOCKS", "0");
    world.set("SSM_PLUGIN_STATUS", "always");
    let mut victim = Victim::start(world, &gateway, Unread::Stderr);
    let port = victim.port_of_unread_stderr();
    let _clients: Vec<TcpStream> = (0..DESTINATIONS)
        .map(|number| {
            let mut client = connect(port);
            write!(client, "CONNECT h{number}.internal:80 HTTP/1.1\r\n\r\n").expect("write");
            client
        })
        .collect();
    let all = 34 * (1 + DESTINATIONS);
    eventually("all sessions are flooded", || progress.bursts.load(Ordering::SeqCst) == all);
    progress.await_end(&victim);
    assert_all([victim.check_memory("early messages of many sessions", 200)]);
}

/// A local client that sends once and never reads.
fn hello(port: u16) -> TcpStream {
    let mut client = connect(port);
    client.write_all(b"hello").expect("write");
    client
}

fn hellos(bytes: &[u8]) -> usize {
    bytes.windows(5).filter(|word| word == b"hello").count()
}

/// Local clients at a time: more than the limit for all has room for.
const CLIENTS: u32 = 5;
/// Memory of the process with one stalled reader, in MiB: 64 for the reader, one message of 1 on its way, and the rest.
const ONE_READER: usize = 110;
/// Clients that the plugin lets go, one after the other.
const RELEASED: usize = 9;
/// Clients of one session.
const PER_SESSION: usize = 4;
/// MiB for each of them: less than stops the session.
const UNREAD: usize = 54;
/// Memory of the process with readers that were let go, in MiB: 256 for all of them, and the rest.
const RELEASED_READERS: usize = 330;
/// Destinations of a SOCKS proxy, each with a session: as many as there may be.
const DESTINATIONS: usize = 32;
