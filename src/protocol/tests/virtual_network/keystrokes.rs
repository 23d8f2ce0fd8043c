//! Latency of a keystroke under a bulk upload and on a lossy wire.

use std::time::Duration;

use bytes::Bytes;

use super::{MS, Outcome, Wire, World, config, noise};

/// Presses a key every 37 ms for five seconds, with `bulk` bytes to upload behind them, and gives the times from each
/// press to its arrival, shortest first.
fn press(wire: Wire, bulk: usize) -> Vec<Duration> {
    let upload = vec![(Duration::ZERO, Bytes::from(noise(1, bulk)))];
    let mut world = World::new(1, config(), wire, upload, vec![(Duration::ZERO, Bytes::from_static(b"$ "))]);
    world.keystrokes = (0..135).map(|n| world.start + MS * (500 + 37 * n)).collect();
    let Outcome { mut keystrokes_took, uploaded, .. } = world.run(2, Duration::from_secs(60));
    assert_eq!((keystrokes_took.len(), uploaded.len()), (135, 135 + bulk));
    keystrokes_took.sort();
    println!("{bulk} bytes: median {:?}, p99 {:?}", keystrokes_took[67], keystrokes_took[133]);
    keystrokes_took
}

/// Numbered messages keep their order, so a keystroke waits for what was given to the channel before it and, in the
/// steady state, for nothing else: the bulk fills the rate, not the path.
#[test]
fn a_keystroke_overtakes_a_bulk_upload_that_is_not_numbered_yet() {
    let took = press(Wire { delay: 20 * MS, ..Wire::default() }, 6_000_000);
    // A few messages at 900 a second.
    assert!(took[133] < 20 * MS + 5 * MS, "{took:?}");
}

/// A lost keystroke, which nothing follows, costs two round trips more, not a retransmission timeout.
#[test]
fn a_lost_keystroke_is_probed_for() {
    let took = press(Wire { loss_up: 0.05, delay: 20 * MS, ..Wire::default() }, 0);
    assert!(took[67] < 21 * MS && took[133] < 20 * MS + 130 * MS, "{took:?}");
}
