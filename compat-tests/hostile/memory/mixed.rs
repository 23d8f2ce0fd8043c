//! All attacks at once.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::{mixture, starts};
use super::bursts::{
    Burst, CONTROL, empty_frames, frames_in_nearly_empty_buffers, largest_frames, one_byte_frames,
    one_byte_frames_in_large_messages,
};
use super::victim::{Progress, Session, Unread, Victim, announce, assert_all, lossy};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::net::connect;
use crate::harness::retry::uninterrupted;
use crate::harness::wire;

/// Everything at once, in an order that the seed decides, while a client reads a little now and then and nothing else is
/// read at all.
#[test]
fn a_seeded_mixture() {
    const KINDS: [Burst; 5] = [
        one_byte_frames,
        frames_in_nearly_empty_buffers,
        largest_frames,
        empty_frames,
        one_byte_frames_in_large_messages,
    ];
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        if socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
            return;
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut flood = socket.flood();
        let end = Instant::now() + MIXTURE;
        while Instant::now() < end {
            let control = CONTROL.get(random.usize(..4 * CONTROL.len())).map(|(_, burst, _)| *burst);
            let burst = control.unwrap_or_else(|| KINDS[random.usize(..KINDS.len())]);
            if !burst(&mut flood) {
                break;
            }
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
    });
    // At the same time, other runs of the plugin.
    let sessions = std::thread::spawn(|| mixture::encrypted_sessions(SEED, MIXTURE));
    let starts = std::thread::spawn(|| starts::ever_new_destinations(MIXTURE));
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_LOG_CONNECTIONS", "1");
    let mut victim = Victim::start(world, &gateway, Unread::Both);
    let mut client = connect(victim.port_of_unread_stdout());
    client.write_all(b"hello").expect("write");
    let end = Instant::now() + MIXTURE;
    let mut buffer = vec![0; 256 << 10];
    while Instant::now() < end {
        let _ = uninterrupted(|| client.read(&mut buffer));
        // A burst may end the session before the time is over.
        let _ = victim.peak_memory();
        std::thread::sleep(Duration::from_millis(20));
    }
    let bursts = progress.bursts.load(Ordering::SeqCst);
    let checked = victim.check_memory(&format!("a mixture of {bursts} bursts, seed {SEED}"), MIXED);
    let _ = victim.child.kill();
    let errors = lossy(&victim.take_unread().1.wait_closed());
    let sessions = sessions.join().expect("the encrypted sessions");
    let starts = starts.join().expect("the clients of a SOCKS proxy");
    println!("{sessions} encrypted sessions, {starts} starts");
    assert!(bursts > 10 && !errors.contains("panicked at"), "{bursts} bursts: {errors}");
    assert_all([checked]);
}

/// Memory of the process in the mixture, in MiB: as with one stalled reader, and both standard streams.
const MIXED: usize = 128;
/// The order of the mixture.
const SEED: u64 = 17;
/// Duration of the mixture.
const MIXTURE: Duration = Duration::from_secs(60);
