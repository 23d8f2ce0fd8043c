//! Peers that read nothing, and frames of any size.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bursts::repeated_messages;
use super::victim::{Progress, Session, Unread, Victim, announce, assert_all};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::wire::{self, Frame};

/// Acknowledgements wait for a peer that repeats its messages and never reads.
#[test]
fn a_peer_that_reads_nothing() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let mut flood = socket.deaf_flood();
        while seen.bursts.load(Ordering::SeqCst) < 400 && repeated_messages(&mut flood) {
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
        flood.hold();
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    progress.await_end(&victim);
    assert_all([victim.check_memory("a peer that reads nothing", 56)]);
}

/// The websocket is closed, and opened again.
#[test]
fn frames_that_are_too_large() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        socket.flood().frame(&Frame::output(9, wire::PAYLOAD_OUTPUT, vec![b'x'; 64 << 20]));
        seen.bursts.fetch_add(1, Ordering::SeqCst);
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    progress.await_end(&victim);
    assert_all([victim.check_memory("a frame of 64 MiB", 48)]);
}
