//! A day in virtual time.

use std::time::Duration;

use bytes::Bytes;

use super::{MS, Traffic, Wire, World, config, noise};

const HOUR: Duration = Duration::from_secs(3600);

/// Sparse traffic, now and then a bulk, a lost connection every hour as the service does it, a bad line throughout.
#[test]
fn a_day_of_a_session() {
    let (up, up_bytes) = traffic(1);
    let (down, down_bytes) = traffic(2);
    let mut draw = fastrand::Rng::with_seed(3);
    let outages = (1..24).map(|hour| (HOUR * hour, MS * draw.u32(50..20_000))).collect();
    let away = (0..24).map(|hour| (HOUR * hour + HOUR / 3, MS * draw.u32(10..30_000))).collect();
    let wire = Wire {
        repeat: 0.01,
        jitter: 20 * MS,
        outages,
        away,
        pauses: true,
        service_limit: Some(1000),
        ..Wire::losing(0.01, 40 * MS)
    };
    let outcome = World::new(4, config(), wire, up, down).run(down_bytes.len(), 25 * HOUR);
    assert_eq!(outcome.closed, None);
    assert!(outcome.uploaded == up_bytes, "{} of {} bytes up", outcome.uploaded.len(), up_bytes.len());
    assert!(
        outcome.downloaded == down_bytes,
        "{} of {} bytes down",
        outcome.downloaded.len(),
        down_bytes.len()
    );
    assert_eq!(outcome.policed, 0);
    assert!(outcome.took > 23 * HOUR && outcome.took < 24 * HOUR + HOUR / 2, "{:?}", outcome.took);
    // An idle session has no timers of its own accord: every event is a send.
    let messages = outcome.arrivals.len() + down_bytes.len() / 1024 + 24 * 60 * 8;
    assert!(outcome.steps < messages * 10, "{} steps for some {messages} messages", outcome.steps);
}

/// A few bytes a few times a minute, and every hour a hundred kilobytes.
fn traffic(seed: u64) -> (Traffic, Vec<u8>) {
    let mut draw = fastrand::Rng::with_seed(seed);
    let (mut traffic, mut all, mut at) = (Vec::new(), Vec::new(), Duration::ZERO);
    let mut bulks = 0;
    while at < 24 * HOUR {
        let mut size = draw.usize(1..60);
        if at > HOUR * bulks {
            bulks += 1;
            size = 100_000;
        }
        let bytes = Bytes::from(noise(draw.u64(..), size));
        all.extend_from_slice(&bytes);
        traffic.push((at, bytes));
        at += MS * draw.u32(1..20_000);
    }
    (traffic, all)
}
