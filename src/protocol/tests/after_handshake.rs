//! The moment after the handshake: the agent still ignores what it acknowledges.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::{Channel, Config, Event, Flag, Input, SessionKind, TerminalSize, Transmit};

const MS: Duration = Duration::from_millis(1);
const START: Duration = Duration::from_millis(100);

/// Messages that a channel sends until `until`, with the time of each data message.
fn sent(channel: &mut Channel, mut now: Instant, until: Instant) -> Vec<(Instant, PayloadType)> {
    let mut sent = Vec::new();
    loop {
        while let Some(transmit) = channel.poll_transmit(now) {
            let Transmit::Binary(frame) = transmit else { continue };
            let message = Message::decode(frame).unwrap();
            if message.message_type == MessageType::InputStreamData {
                sent.push((now, message.payload_type));
            }
        }
        match channel.poll_timeout() {
            Some((at, _)) if at.max(now) <= until => now = at.max(now),
            _ => return sent,
        }
        channel.handle_timeout(now);
    }
}

/// A channel whose handshake has just completed, at the time given back; our response was acknowledged after `rtt`.
fn completed(rate: u32, rtt: Duration) -> (Channel, Instant) {
    completed_in_order(rate, rtt, true)
}

/// The same; with `is_acknowledged` false the acknowledgement is still to come.
fn completed_in_order(rate: u32, rtt: Duration, is_acknowledged: bool) -> (Channel, Instant) {
    let start = Instant::now() + START;
    let mut channel = Channel::new(Config { message_rate: rate, ..Config::default() }, 1);
    channel.handle_open(start, 0, "token");
    let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"type":"LocalPortForwarding"}}}]}"#;
    let data = |sequence, payload_type, body: &'static [u8]| {
        from_agent(MessageType::OutputStreamData, sequence, payload_type, Bytes::from_static(body))
    };
    channel.handle_frame(start, data(0, PayloadType::HandshakeRequest, request));
    assert_eq!(sent(&mut channel, start, start).len(), 1);
    let now = start + rtt;
    if is_acknowledged {
        channel.handle_frame(now, ack(0));
    }
    channel.handle_frame(now, data(1, PayloadType::HandshakeComplete, b"{}"));
    assert!(matches!(channel.poll_event(), Some(Event::Ready(SessionKind::Port(_)))));
    (channel, now)
}

fn ack(number: i64) -> Bytes {
    let body = format!(
        r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"00000000-0000-0000-0000-000000000001","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#
    );
    from_agent(MessageType::Acknowledge, 0, PayloadType::Other(0), body.into())
}

#[test]
fn the_first_data_waits_until_the_agent_listens() {
    for rate in [900, 0] {
        for input in [Input::Bytes(Bytes::from_static(b"x")), Input::Flag(Flag::TerminateSession)] {
            let (mut channel, now) = completed(rate, MS);
            assert!(channel.wants_input());
            channel.send(input);
            assert_eq!(sent(&mut channel, now, now + 10 * MS), []);
            let sent = sent(&mut channel, now + 10 * MS, now + 30 * MS);
            assert_eq!(sent.len(), 1);
            assert!(sent[0].0 <= now + 20 * MS);
        }
    }
}

/// A server that speaks first, as sshd does: the agent has connected to it.
#[test]
fn the_first_output_ends_the_wait() {
    let (mut channel, now) = completed(900, MS);
    channel.send(Input::Bytes(Bytes::from_static(b"x")));
    assert_eq!(sent(&mut channel, now + 2 * MS, now + 2 * MS), []);
    let banner = Bytes::from_static(b"SSH-2.0-x");
    channel.handle_frame(
        now + 3 * MS,
        from_agent(MessageType::OutputStreamData, 2, PayloadType::Output, banner),
    );
    assert_eq!(sent(&mut channel, now + 3 * MS, now + 3 * MS).len(), 1);
}

/// The agent has had that time while its message and ours were on their way.
#[test]
fn a_long_path_costs_no_time() {
    let (mut channel, now) = completed(900, 25 * MS);
    channel.send(Input::Bytes(Bytes::from_static(b"x")));
    assert_eq!(sent(&mut channel, now, now).len(), 1);
}

/// The agent sends both at the same time, from two threads.
#[test]
fn an_acknowledgement_after_the_end_of_the_handshake_changes_nothing() {
    for (rtt, waits) in [(MS, 19 * MS), (15 * MS, 5 * MS), (25 * MS, Duration::ZERO)] {
        let (mut channel, now) = completed_in_order(900, rtt, false);
        assert!(channel.is_held(), "the round trip is unknown");
        channel.send(Input::Bytes(Bytes::from_static(b"x")));
        assert_eq!(sent(&mut channel, now, now), []);
        channel.handle_frame(now, ack(0));
        assert_eq!(sent(&mut channel, now, now + 20 * MS), [(now + waits, PayloadType::Output)]);
    }
}

#[test]
fn later_data_goes_at_once() {
    let (mut channel, now) = completed(900, MS);
    let later = now + 25 * MS;
    channel.handle_timeout(later);
    channel.send(Input::Bytes(Bytes::from_static(b"x")));
    assert_eq!(sent(&mut channel, later, later).len(), 1);
}

/// The session repeats it, so that it may be ignored.
#[test]
fn tentative_input_does_not_wait() {
    let (mut channel, now) = completed(900, MS);
    assert!(channel.is_settling() && channel.is_held());
    channel.send(Input::Tentative(Bytes::from_static(b"a")));
    channel.send(Input::Tentative(Bytes::from_static(b"b")));
    channel.send(Input::Bytes(Bytes::from_static(b"c")));
    let sent = sent(&mut channel, now, now);
    assert_eq!(sent.len(), 2, "separate messages, and the rest waits");
    for number in 1..3 {
        channel.handle_frame(now + MS, ack(number));
    }
    let later = self::sent(&mut channel, now + MS, now + 19 * MS);
    assert_eq!(
        later,
        [(now + 19 * MS, PayloadType::Output)],
        "20 ms after the end of the handshake was sent"
    );
    assert!(!channel.is_held() && channel.is_settling());
    channel.handle_frame(now + 20 * MS, ack(3));
    assert!(channel.poll_event().is_none());
    self::sent(&mut channel, now + 20 * MS, now + 300 * MS);
    assert!(matches!(channel.poll_event(), Some(Event::Listening)));
    assert!(!channel.is_settling() && channel.poll_event().is_none());
}

/// An agent whose port handler does not run yet refuses input without an acknowledgement, for less than a millisecond.
#[test]
fn tentative_input_that_is_refused_is_resent_soon() {
    let (mut channel, now) = completed(900, MS);
    channel.send(Input::Tentative(Bytes::from_static(b"a")));
    let times: Vec<_> = sent(&mut channel, now, now + 19 * MS).into_iter().map(|(at, _)| at - now).collect();
    assert!(times.len() >= 6 && times[1] <= 3 * MS, "{times:?}");
    // An agent that takes longer is not one that has just begun.
    let later = sent(&mut channel, now + 19 * MS, now + 200 * MS);
    assert!(later.len() <= 2, "{later:?}");
}

#[test]
fn the_first_output_shows_that_the_agent_listens() {
    for (payload_type, body) in [(PayloadType::Output, &b"x"[..]), (PayloadType::Flag, &[0, 0, 0, 3])] {
        let (mut channel, now) = completed(900, MS);
        channel.send(Input::Tentative(Bytes::from_static(b"a")));
        assert_eq!(sent(&mut channel, now, now).len(), 1);
        let answer = from_agent(MessageType::OutputStreamData, 2, payload_type, Bytes::copy_from_slice(body));
        channel.handle_frame(now + MS, answer);
        assert!(matches!(channel.poll_event(), Some(Event::Listening)));
        assert!(matches!(channel.poll_event(), Some(Event::Output(_) | Event::PortRefused)));
        assert!(!channel.is_settling() && !channel.is_held());
    }
}

/// An agent that its machine keeps from running acknowledges and ignores a size that comes before it listens.
#[test]
fn a_size_sent_before_the_first_output_is_sent_again() {
    let start = Instant::now();
    let mut channel = Channel::new(Config::default(), 1);
    channel.handle_open(start, 0, "token");
    let data = |sequence, payload_type, body: &'static [u8]| {
        from_agent(MessageType::OutputStreamData, sequence, payload_type, Bytes::from_static(body))
    };
    let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"InteractiveCommands"}}]}"#;
    channel.handle_frame(start, data(0, PayloadType::HandshakeRequest, request));
    channel.handle_frame(start, data(1, PayloadType::HandshakeComplete, b"{}"));
    channel.send(Input::Size(TerminalSize { cols: 80, rows: 24 }));
    assert_eq!(sent(&mut channel, start, start + 20 * MS).len(), 2);
    channel.handle_frame(start + 30 * MS, data(2, PayloadType::Output, b"$ "));
    let size = sent(&mut channel, start + 30 * MS, start + 40 * MS);
    assert_eq!(size, [(start + 30 * MS, PayloadType::Size)]);
    channel.handle_frame(start + 50 * MS, data(3, PayloadType::Output, b"$ "));
    channel.send(Input::Size(TerminalSize { cols: 90, rows: 24 }));
    let size = sent(&mut channel, start + 50 * MS, start + 60 * MS);
    assert_eq!(size, [(start + 50 * MS, PayloadType::Size)], "once");
}
