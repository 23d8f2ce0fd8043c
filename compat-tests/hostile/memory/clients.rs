//! Local clients that do not read.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::attack::Attack;
use super::bursts::{
    BYTES, Burst, FIRST_STREAM, empty_frames, frames_in_nearly_empty_buffers, largest_frames,
    one_byte_frames, one_byte_frames_in_large_messages,
};
use super::victim::{Progress, Session, Unread, Victim, announce, assert_all};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::net::{connect, opened_port};
use crate::harness::wire;

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
        while sent.windows(5).filter(|bytes| bytes == b"hello").count() < CLIENTS as usize {
            let Some(message) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            sent.extend(message.payload);
        }
        let streams = (0..CLIENTS).map(|number| FIRST_STREAM + 2 * number);
        let frames: Vec<u8> =
            streams.flat_map(|id| wire::smux(1, 2, id, &[b'x'; 60_000]).repeat(12)).collect();
        let mut flood = socket.flood();
        for _ in 0..150 {
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
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(port)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("write");
    }
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

/// Local clients at a time: more than the limit for all has room for.
const CLIENTS: u32 = 5;
/// Memory of the process with one stalled reader, in MiB: 64 for the reader, one message of 4 on its way, and the rest.
const ONE_READER: usize = 110;
