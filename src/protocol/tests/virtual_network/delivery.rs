//! Properties that hold on any wire: all bytes once and in order, the rate, the handling of a silent agent.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::agent::Agent;
use super::{MS, Wire, config, every, noise, run};
use crate::protocol::congestion::DEFAULT_MAX_WINDOW;
use crate::protocol::message::MessageType;
use crate::protocol::{Channel, CloseReason, Config, Event, Input};

#[test]
fn all_bytes_once_and_in_order_for_a_thousand_seeds() {
    for seed in 0..1000 {
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let loss = draw.f64() * 0.2;
        let mut wire = Wire {
            repeat: draw.f64() * 0.1,
            delay: MS * draw.u32(0..150),
            jitter: MS * draw.u32(0..60),
            pauses: draw.bool(),
            ..Wire::losing(loss, Duration::ZERO)
        };
        if draw.bool() {
            wire.outages = every(MS * draw.u32(300..3000), MS * draw.u32(1..2000));
        }
        let mut config = config();
        config.max_payload = [64, 1024, 8192][draw.usize(..3)];
        config.message_rate = [0, 900][draw.usize(..2)];
        let (up, down) = (noise(seed, draw.usize(1..60_000)), noise(!seed, draw.usize(1..20_000)));
        let outcome = run(seed, config, wire.clone(), &up, &down, Duration::from_secs(900));
        wire.outages.truncate(1);
        assert_eq!(outcome.closed, None, "seed {seed}, {wire:?}");
        assert!(outcome.uploaded == up, "seed {seed}, {wire:?}: upload in {:?}", outcome.took);
        assert!(outcome.downloaded == down, "seed {seed}, {wire:?}: download in {:?}", outcome.took);
        assert!(outcome.most_outstanding <= DEFAULT_MAX_WINDOW);
    }
}

#[test]
fn the_default_upload_keeps_to_nine_hundred_messages_a_second_and_fills_them() {
    let up = noise(7, 4_000_000);
    let wire = Wire { delay: 20 * MS, ..Wire::default() };
    let outcome = run(1, config(), wire, &up, b"x", Duration::from_secs(60));
    assert!(outcome.uploaded == up);
    let rate = up.len() as f64 / outcome.took.as_secs_f64();
    assert!(rate > 0.88e6, "{rate} bytes a second");
    for (index, at) in outcome.arrivals.iter().enumerate() {
        let within = outcome.arrivals[index..].iter().take_while(|o| **o - *at < 2000 * MS).count();
        assert!(within < 2000, "{within} messages in two seconds");
    }
    let groups = groups(&outcome.arrivals);
    assert!(groups * 7 < outcome.arrivals.len() * 2, "{groups} groups");
}

/// Number of groups that arrived, with a millisecond between them.
fn groups(arrivals: &[Instant]) -> usize {
    arrivals.chunk_by(|one, next| *next - *one < MS).count()
}

/// Of a download at the agent's pace, one write in four milliseconds acknowledges what came in them.
#[test]
fn acknowledgements_of_a_download_share_their_writes() {
    let down = noise(7, 1_000_000);
    let wire = Wire { delay: 20 * MS, ..Wire::default() };
    let outcome = run(1, config(), wire, b"", &down, Duration::from_secs(60));
    assert!(outcome.downloaded == down);
    let (acks, writes) = (outcome.acknowledged.len(), groups(&outcome.acknowledged));
    assert_eq!(acks, 1_000_000usize.div_ceil(1024));
    assert!(writes * 7 < acks * 2, "{writes} writes for {acks}");
}

#[test]
fn a_hundred_kilobytes_go_out_in_one_burst() {
    let up = noise(8, 100 * 1024);
    let wire = Wire { delay: 30 * MS, ..Wire::default() };
    let outcome = run(1, config(), wire, &up, b"x", Duration::from_secs(10));
    assert!(outcome.uploaded == up);
    // Two one-way delays to learn that the session is ready and to be acknowledged, plus one for the data.
    assert!(outcome.took < 110 * MS, "{:?}", outcome.took);
}

#[test]
fn a_fifth_of_everything_lost_costs_seconds_not_minutes() {
    let up = noise(9, 2_000 * 1024);
    for delay in [20, 100] {
        let wire = Wire::losing(0.2, delay * MS);
        let config = Config { message_rate: 0, max_window: 1 << 20, ..config() };
        let outcome = run(3, config, wire, &up, b"x", Duration::from_secs(300));
        assert!(outcome.uploaded == up);
        assert!(outcome.took < Duration::from_secs(10), "{:?} at {delay} ms", outcome.took);
    }
}

#[test]
fn a_silent_agent_is_given_up() {
    let wire = Wire::losing(1.0, Duration::ZERO);
    let outcome = run(1, config(), wire, b"", b"x", Duration::from_secs(100));
    assert_eq!(outcome.closed, Some(CloseReason::HandshakeTimeout(Duration::from_secs(60))));
}

#[test]
fn an_agent_that_stops_acknowledging_is_given_up_and_not_flooded() {
    let mut channel = Channel::new(config(), 1);
    let start = Instant::now();
    channel.handle_open(start, 0, "token");
    let agent = Agent::new([]);
    channel.handle_frame(
        start,
        agent.envelope(MessageType::OutputStreamData, Bytes::from_static(b"$ ")).encode(),
    );
    let (mut now, mut sent, mut closed) = (start, 0, None);
    for _ in 0..100_000 {
        channel.send(Input::Bytes(Bytes::from(vec![0; channel.input_room()])));
        while channel.poll_transmit(now).is_some() {
            sent += 1;
        }
        let Some((at, _)) = channel.poll_timeout() else { break };
        now = now.max(at);
        channel.handle_timeout(now);
        while let Some(event) = channel.poll_event() {
            if let Event::Closed(reason) = event {
                closed = Some(reason);
            }
        }
    }
    assert!(matches!(closed, Some(CloseReason::GaveUp(_))), "{closed:?}");
    assert!(now - start < Duration::from_secs(20 * 60 + 2));
    assert!(sent < 128 + 2 + 700, "{sent} messages into a silent path");
}
