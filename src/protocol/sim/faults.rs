//! The fault matrix: for each fault all bytes arrive once and in order, the upload keeps a stated share of what
//! the wire would allow, and what is unacknowledged stays in its bound.

use std::time::Duration;

use super::super::congestion::DEFAULT_MAX_WINDOW;
use super::{Bottleneck, MS, Outcome, Wire, config, every, noise, run};
use crate::protocol::Config;

const SECOND: Duration = Duration::from_secs(1);
/// A message's header and what a full default message weighs with it, in bytes.
const FULL_MESSAGE: f64 = 1024.0 + 120.0;

/// Uploads `size` bytes with some output the other way, checks what must always hold, and gives the share of `ideal`
/// (bytes a second) that was reached.
#[track_caller]
fn upload(what: &str, config: Config, wire: Wire, size: usize, ideal: f64) -> (f64, Outcome) {
    let (up, down) = (noise(1, size), noise(2, 20_000));
    let window = config.max_window;
    let outcome = run(size as u64, config, wire, &up, &down, SECOND * 1000);
    assert_eq!(outcome.closed, None, "{what}");
    assert!(outcome.uploaded == up, "{what}: {} of {size} bytes up", outcome.uploaded.len());
    assert!(outcome.downloaded == down, "{what}: {} bytes down", outcome.downloaded.len());
    assert!(outcome.most_outstanding <= window, "{what}: {} unacknowledged", outcome.most_outstanding);
    // Nothing spins: a handful of wake-ups for each message, and some for each second.
    let most_steps = outcome.arrivals.len() * 8 + 200 * (outcome.took.as_secs() as usize + 1) + 1000;
    assert!(outcome.steps < most_steps, "{what}: {} steps in {:?}", outcome.steps, outcome.took);
    let share = size as f64 / outcome.upload_took.as_secs_f64() / ideal;
    println!(
        "{what}: {share:.2} of {ideal:.0} B/s in {:?}, {} duplicates",
        outcome.upload_took, outcome.duplicates
    );
    (share, outcome)
}

/// What the default rate and window allow over a round trip, in bytes a second.
fn ideal_by_default(delay: Duration) -> f64 {
    (900.0 * 1024.0f64).min(DEFAULT_MAX_WINDOW as f64 / (2.0 * delay.as_secs_f64()).max(0.001))
}

fn unlimited() -> Config {
    Config { message_rate: 0, ..config() }
}

#[test]
fn loss_from_a_thousandth_to_a_fifth() {
    for (loss, delay, least) in [
        (0.001, 1, 0.95),
        (0.01, 20, 0.9),
        (0.02, 100, 0.4),
        (0.05, 20, 0.85),
        (0.1, 50, 0.75),
        (0.2, 20, 0.6),
        (0.2, 100, 0.3),
    ] {
        let what = format!("loss {loss}, {delay} ms");
        let wire = Wire::losing(loss, MS * delay);
        let ideal = ideal_by_default(MS * delay) * (1.0 - loss);
        let (share, _) = upload(&what, config(), wire, 2_000_000, ideal);
        assert!(share > least, "{what}: {share}");
    }
}

#[test]
fn loss_one_way_only() {
    for (up, down) in [(0.05, 0.0), (0.0, 0.05)] {
        let what = format!("loss {up} up, {down} down");
        let wire = Wire { loss_up: up, loss_down: down, delay: 20 * MS, ..Wire::default() };
        let (share, _) = upload(&what, config(), wire, 2_000_000, ideal_by_default(20 * MS) * (1.0 - up));
        assert!(share > 0.85, "{what}: {share}");
    }
}

#[test]
fn only_acknowledgements_lost() {
    for (loss, least) in [(0.05, 0.85), (0.3, 0.5), (0.6, 0.3)] {
        let what = format!("{loss} of the acknowledgements lost");
        let wire = Wire { loss_acks: loss, delay: 20 * MS, ..Wire::default() };
        let (share, _) = upload(&what, config(), wire, 1_000_000, ideal_by_default(20 * MS));
        assert!(share > least, "{what}: {share}");
    }
}

#[test]
fn repeated_messages() {
    let wire = Wire { repeat: 0.3, delay: 10 * MS, ..Wire::default() };
    let (share, outcome) = upload("30 % twice", config(), wire, 2_000_000, ideal_by_default(10 * MS));
    assert!(share > 0.95, "{share}");
    assert!(outcome.duplicates > 100);
}

#[test]
fn delay_jitter_and_reordering() {
    for (delay, jitter, least) in
        [(1, 0, 0.98), (1, 10, 0.95), (30, 30, 0.95), (100, 20, 0.5), (150, 100, 0.4), (300, 50, 0.4)]
    {
        let what = format!("{delay} ms and up to {jitter} ms more");
        let wire = Wire { delay: MS * delay, jitter: MS * jitter, ..Wire::default() };
        let ideal = ideal_by_default(MS * (delay + jitter / 2));
        let (share, outcome) = upload(&what, config(), wire, 3_000_000, ideal);
        assert!(share > least, "{what}: {share}");
        let needless = outcome.duplicates as f64 / outcome.arrivals.len() as f64;
        assert!(needless < 0.1, "{what}: {} sent twice for nothing", outcome.duplicates);
    }
}

#[test]
fn a_bottleneck_with_a_queue() {
    for (rate, delay, least) in [(200e3, 20, 0.9), (1e6, 50, 0.9), (20e3, 20, 0.8), (5e6, 5, 0.9)] {
        let what = format!("{rate} bytes a second with a queue, {delay} ms");
        let bottleneck = Some(Bottleneck { rate, drops_after: None });
        let wire = Wire { bottleneck, delay: MS * delay, ..Wire::default() };
        let ideal =
            (rate * 1024.0 / FULL_MESSAGE).min(DEFAULT_MAX_WINDOW as f64 / (0.002 * f64::from(delay)));
        let size = (rate * 8.0) as usize;
        let (share, outcome) = upload(&what, unlimited(), wire, size.clamp(100_000, 6_000_000), ideal);
        assert!(share > least, "{what}: {share}");
        let needless = outcome.duplicates as f64 / outcome.arrivals.len() as f64;
        assert!(needless < 0.1, "{what}: {} of {} again", outcome.duplicates, outcome.arrivals.len());
    }
}

#[test]
fn a_bottleneck_that_drops() {
    for (rate, queue, delay, least) in [(200e3, 100, 20, 0.6), (1e6, 50, 20, 0.6), (500e3, 20, 50, 0.5)] {
        let what = format!("{rate} bytes a second, a queue of {queue} ms, {delay} ms");
        let bottleneck = Some(Bottleneck { rate, drops_after: Some(MS * queue) });
        let wire = Wire { bottleneck, delay: MS * delay, ..Wire::default() };
        let (share, _) =
            upload(&what, unlimited(), wire, (rate * 6.0) as usize, rate * 1024.0 / FULL_MESSAGE);
        assert!(share > least, "{what}: {share}");
    }
}

#[test]
fn the_services_limit_is_never_met_by_default() {
    let wire = Wire { service_limit: Some(1000), delay: 15 * MS, ..Wire::default() };
    let (share, outcome) =
        upload("the service's limit", config(), wire, 6_000_000, ideal_by_default(15 * MS));
    assert_eq!(outcome.policed, 0);
    assert!(share > 0.97, "{share}");
    // Resends count, too.
    let wire = Wire { service_limit: Some(1000), ..Wire::losing(0.1, 15 * MS) };
    let (_, outcome) =
        upload("the service's limit and loss", config(), wire, 4_000_000, 900.0 * 1024.0 * 0.9);
    assert_eq!(outcome.policed, 0);
}

#[test]
fn a_sender_that_meets_the_services_limit_loses_nothing() {
    for limit in [1000, 300] {
        let wire = Wire { service_limit: Some(limit), delay: 10 * MS, ..Wire::default() };
        let what = format!("no pacing under a limit of {limit}");
        let (share, outcome) = upload(&what, unlimited(), wire, 6_000_000, limit as f64 * 1024.0);
        assert!(outcome.policed > 0, "the limit was never met");
        assert!(share > 0.3, "{share}");
    }
}

#[test]
fn outages_of_a_tenth_of_a_second_to_half_a_minute() {
    for (length, up, least) in [(100, 900, 0.75), (1000, 2000, 0.55), (5000, 5000, 0.4), (30_000, 3000, 0.05)]
    {
        for pauses in [false, true] {
            let what = format!("{length} ms away every {} ms, paused: {pauses}", up + length);
            let wire =
                Wire { outages: every(MS * up, MS * length), pauses, delay: 20 * MS, ..Wire::default() };
            let (share, _) = upload(&what, config(), wire, 4_000_000, ideal_by_default(20 * MS));
            assert!(share > least, "{what}: {share}");
        }
    }
}

#[test]
fn a_cut_at_any_moment() {
    let up = noise(3, 60_000);
    // Every half millisecond of the first round trips, and later ones at odd distances.
    for moment in (0..160).map(|n| MS / 2 * n).chain((0..60).map(|n| MS * (90 + 7 * n))) {
        let outages = [(moment, 30 * MS), (moment + 33 * MS, MS)].into();
        let wire = Wire { outages, delay: 20 * MS, loss_up: 0.02, ..Wire::default() };
        let outcome = run(5, config(), wire, &up, &up, 60 * SECOND);
        assert!(outcome.uploaded == up && outcome.downloaded == up, "cut at {moment:?}");
        assert!(outcome.took < 3 * SECOND, "cut at {moment:?}: {:?}", outcome.took);
    }
}

#[test]
fn a_full_window_at_the_cut_is_sent_again() {
    // A round trip in which the whole window fits: at the cut nothing of it has been acknowledged.
    let config = Config { max_window: 64 << 10, ..unlimited() };
    let wire = Wire { outages: [(1500 * MS, 700 * MS)].into(), delay: 300 * MS, ..Wire::default() };
    let (share, outcome) = upload("cut with a full window", config, wire, 400_000, 64.0 * 1024.0 / 0.6);
    assert!(outcome.most_outstanding > 60 << 10);
    assert!(share > 0.6, "{share}");
}

#[test]
fn an_agent_that_comes_and_goes() {
    for (length, least) in [(100, 0.6), (3000, 0.35), (20_000, 0.1)] {
        let what = format!("agent away for {length} ms every {} ms", length + 3000);
        let wire = Wire { away: every(3000 * MS, MS * length), delay: 20 * MS, ..Wire::default() };
        let (share, outcome) = upload(&what, config(), wire, 4_000_000, ideal_by_default(20 * MS));
        assert!(share > least, "{what}: {share}");
        assert!(outcome.duplicates < 1200, "{what}: {} duplicates", outcome.duplicates);
    }
}

#[test]
fn everything_at_once() {
    let wire = Wire {
        repeat: 0.05,
        jitter: 30 * MS,
        outages: every(7000 * MS, 1500 * MS),
        away: [(4000 * MS, 800 * MS), (20_000 * MS, 2000 * MS)].into(),
        bottleneck: Some(Bottleneck { rate: 600e3, drops_after: Some(150 * MS) }),
        service_limit: Some(1000),
        ..Wire::losing(0.05, 40 * MS)
    };
    let (share, outcome) =
        upload("everything at once", config(), wire, 4_000_000, 600e3 * 1024.0 / FULL_MESSAGE);
    assert_eq!(outcome.policed, 0);
    assert!(share > 0.3, "{share}");
}
