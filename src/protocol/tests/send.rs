//! The sender by example.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn sender_with(count: usize, now: Instant) -> Sender {
    let mut sender = Sender::default();
    for number in 0..count {
        sender.push(now, Bytes::from(vec![number as u8]), 10);
    }
    sender
}

fn drain(sender: &mut Sender, now: Instant) -> Vec<u8> {
    std::iter::from_fn(|| sender.poll_lost(now)).map(|frame| frame[0]).collect()
}

#[test]
fn acknowledgements_are_selective_and_count_once() {
    let now = Instant::now();
    let mut sender = sender_with(3, now);
    assert_eq!(sender.handle_ack(now, 1).map(|acked| acked.bytes), Some(10));
    assert_eq!(sender.handle_ack(now, 1), None);
    for unknown in [-1, 3, i64::MIN, i64::MAX] {
        assert_eq!(sender.handle_ack(now, unknown), None);
    }
    assert_eq!((sender.outstanding_bytes(), sender.span()), (20, 3));
    sender.handle_ack(now, 0);
    assert_eq!((sender.outstanding_bytes(), sender.span()), (10, 1));
    assert_eq!(sender.next_sequence(), 3);
    sender.assert_invariants();
}

#[test]
fn every_expired_message_is_sent_again_while_acknowledgements_flow() {
    let start = Instant::now();
    let mut sender = sender_with(5, start);
    sender.handle_ack(start + 20 * MS, 1);
    let mut again = Vec::new();
    while again.len() < 4 {
        let (at, why) = sender.poll_timeout().unwrap();
        sender.handle_timeout(at);
        again.extend(drain(&mut sender, at).into_iter().map(|number| (number, why)));
    }
    let why = "retransmission timeout";
    assert_eq!(again, [(0, "tail loss probe"), (2, why), (3, why), (4, why)]);
    sender.assert_invariants();
}

#[test]
fn a_silent_path_is_probed_with_the_oldest_at_growing_intervals() {
    let start = Instant::now();
    let mut sender = sender_with(5, start);
    let mut gaps = Vec::new();
    let mut last = start;
    for _ in 0..8 {
        let (at, why) = sender.poll_timeout().unwrap();
        assert_eq!(why, "retransmission timeout");
        sender.handle_timeout(at);
        assert_eq!(drain(&mut sender, at).len(), 1);
        gaps.push((at - last).as_millis());
        last = at;
    }
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert_eq!(*gaps.last().unwrap(), MAX_BACKOFF.as_millis());
    // The first acknowledgement sets the rest in motion.
    sender.handle_ack(last + MS, 0);
    let (at, _) = sender.poll_timeout().unwrap();
    sender.handle_timeout(at);
    assert_eq!(drain(&mut sender, at).len(), 4);
}

#[test]
fn three_later_arrivals_make_a_message_lost_before_its_timeout() {
    let start = Instant::now();
    let mut sender = Sender::default();
    for number in 0..5u8 {
        sender.push(start + MS * u32::from(number), Bytes::from(vec![number]), 1);
    }
    for number in 1..=3 {
        sender.handle_ack(start + 20 * MS, number);
    }
    let (at, why) = sender.poll_timeout().unwrap();
    assert_eq!(why, "loss detection");
    assert!(at < start + 60 * MS);
    sender.handle_timeout(at);
    assert_eq!(drain(&mut sender, at), [0]);
}

#[test]
fn a_lost_tail_is_probed_once_before_its_timeout() {
    let (mut sender, resent_at) = resent_after(Instant::now(), 20 * MS);
    assert_eq!(sender.resent(), 1);
    assert!(sender.is_tail_probed);
    let (at, why) = sender.poll_timeout().unwrap();
    assert_eq!((at - resent_at, why), (200 * MS, "retransmission timeout"));
    // On a path that is quicker than that, no sooner than an agent may take over an acknowledgement.
    let start = Instant::now();
    let mut sender = sender_with(1, start);
    sender.handle_ack(start + MS, 0);
    sender.push(start + MS, Bytes::new(), 10);
    assert_eq!(sender.poll_timeout(), Some((start + MS + MIN_TAIL_PROBE, "tail loss probe")));
}

#[test]
fn what_is_lost_is_not_in_flight() {
    let start = Instant::now();
    let mut sender = sender_with(4, start);
    assert_eq!(sender.in_flight_bytes(), 40);
    sender.handle_reopen(start);
    assert_eq!((sender.in_flight_bytes(), sender.outstanding_bytes()), (0, 40));
    sender.handle_ack(start, 3);
    assert!(sender.poll_lost(start).is_some());
    assert_eq!((sender.in_flight_bytes(), sender.outstanding_bytes()), (10, 30));
    sender.assert_invariants();
}

#[test]
fn acknowledgements_give_the_delivery_rate() {
    let start = Instant::now();
    let mut sender = sender_with(4, start);
    for number in 0..4 {
        let acked = sender.handle_ack(start + 20 * MS, number).unwrap();
        let delivery_rate = 500 * (number as u64 + 1);
        assert_eq!(acked.sample, Some(Sample { rtt: 20 * MS, delivery_rate }));
    }
    // A rest does not count.
    let later = start + 5000 * MS;
    sender.push(later, Bytes::new(), 10);
    let acked = sender.handle_ack(later + 20 * MS, 4).unwrap();
    assert_eq!(acked.sample, Some(Sample { rtt: 20 * MS, delivery_rate: 500 }));
}

/// A sender that has measured `rtt` and has resent one message at the time returned.
fn resent_after(start: Instant, rtt: Duration) -> (Sender, Instant) {
    let mut sender = sender_with(1, start);
    sender.handle_ack(start + rtt, 0);
    sender.push(start + rtt, Bytes::new(), 10);
    let (at, _) = sender.poll_timeout().unwrap();
    sender.handle_timeout(at);
    assert!(sender.poll_lost(at).is_some());
    (sender, at)
}

#[test]
fn an_ambiguous_acknowledgement_does_not_feed_the_round_trip_time() {
    let (mut sender, resent_at) = resent_after(Instant::now(), 20 * MS);
    sender.handle_ack(resent_at + 21 * MS, 1);
    assert_eq!(sender.rtt().latest(), 20 * MS);
}

#[test]
fn an_acknowledgement_too_early_for_the_resend_answers_the_first_sending() {
    let start = Instant::now();
    let (mut sender, resent_at) = resent_after(start, 20 * MS);
    sender.handle_ack(resent_at + 5 * MS, 1);
    assert_eq!(sender.rtt().latest(), resent_at + 5 * MS - (start + 20 * MS));
    assert!(sender.rtt().smoothed() > 25 * MS);
}

#[test]
fn the_first_sample_may_be_of_a_resent_message() {
    let start = Instant::now();
    let mut sender = sender_with(1, start);
    let (at, _) = sender.poll_timeout().unwrap();
    sender.handle_timeout(at);
    drain(&mut sender, at);
    sender.handle_ack(start + 600 * MS, 0);
    assert_eq!(sender.rtt().latest(), 600 * MS);
}

#[test]
fn messages_that_overtake_each_other_are_not_lost() {
    let start = Instant::now();
    let mut sender = Sender::default();
    let mut acks = std::collections::BTreeSet::new();
    for number in 0..500u32 {
        let now = start + MS * number;
        while let Some((at, _)) = acks.first()
            && *at <= now
        {
            let (at, number) = acks.pop_first().unwrap();
            sender.handle_ack(at, number);
        }
        sender.handle_timeout(now);
        sender.push(now, Bytes::new(), 1);
        acks.insert((now + MS * (2 + number * 7 % 20), i64::from(number)));
    }
    assert!(sender.resent() + sender.lost.len() as u64 <= 5, "{} lost", sender.lost.len());
}

#[test]
fn after_a_reconnect_everything_outstanding_goes_again_in_order() {
    let start = Instant::now();
    let mut sender = sender_with(4, start);
    sender.handle_ack(start, 2);
    sender.handle_reopen(start + 500 * MS);
    assert_eq!(drain(&mut sender, start + 500 * MS), [0, 1, 3]);
    assert_eq!(sender.unacknowledged_for(start + 600 * MS), 100 * MS);
    sender.assert_invariants();
}
