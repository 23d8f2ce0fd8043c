//! Agents that send nothing at first.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::{Channel, Config, Event, SessionKind, Transmit, payload};

fn channel(now: Instant) -> Channel {
    let mut channel = Channel::new(Config::default(), 1);
    channel.handle_open(now, 0, "token");
    assert!(matches!(channel.poll_transmit(now), Some(Transmit::Text(_))));
    assert_eq!(channel.poll_transmit(now), None);
    channel
}

/// Lets the next deadline come, and gives what is sent then.
fn step(channel: &mut Channel, now: &mut Instant) -> Option<Message> {
    *now = (*now).max(channel.poll_timeout().unwrap().0);
    channel.handle_timeout(*now);
    match channel.poll_transmit(*now)? {
        Transmit::Binary(frame) => Some(Message::decode(frame).unwrap()),
        Transmit::Text(text) => panic!("{text}"),
    }
}

#[test]
fn a_command_that_prints_nothing_gets_its_input() {
    let start = Instant::now();
    let (mut channel, mut now) = (channel(start), start);
    let probe = step(&mut channel, &mut now).unwrap();
    assert_eq!((probe.payload_type, now - start), (PayloadType::Size, Duration::from_secs(2)));
    assert!(!channel.wants_input());
    let ack =
        from_agent(MessageType::Acknowledge, 0, PayloadType::Other(0), payload::acknowledgement_of(&probe));
    channel.handle_frame(now, ack);
    assert!(channel.poll_event().is_none());
    assert_eq!(step(&mut channel, &mut now), None);
    assert!(matches!(channel.poll_event(), Some(Event::Ready(SessionKind::Shell))));
    assert!(channel.wants_input() && now - start == Duration::from_secs(4));
}

#[test]
fn a_late_handshake_is_still_a_handshake() {
    let start = Instant::now();
    let (mut channel, mut now) = (channel(start), start);
    let probe = step(&mut channel, &mut now).unwrap();
    let request = Bytes::from_static(
        br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"type":"LocalPortForwarding"}}}]}"#,
    );
    let ack = payload::acknowledgement_of(&probe);
    channel.handle_frame(
        now,
        from_agent(MessageType::OutputStreamData, 0, PayloadType::HandshakeRequest, request),
    );
    channel.handle_frame(now, from_agent(MessageType::Acknowledge, 0, PayloadType::Other(0), ack));
    for _ in 0..4 {
        step(&mut channel, &mut now);
    }
    assert!(channel.poll_event().is_none() && !channel.wants_input());
}

#[test]
fn an_agent_that_is_not_there_is_not_taken_for_a_shell() {
    let start = Instant::now();
    let (mut channel, mut now) = (channel(start), start);
    let event = loop {
        step(&mut channel, &mut now);
        if let Some(event) = channel.poll_event().filter(|event| !matches!(event, Event::Stalled(_))) {
            break event;
        }
    };
    assert!(matches!(event, Event::Closed(_)), "{event:?}");
    assert_eq!(now - start, Duration::from_secs(60));
}

/// Its session was taken for a plain shell, because it had acknowledged a message and asked for no handshake.
#[test]
fn a_handshake_after_that_is_answered_for_a_shell_and_ends_the_rest() {
    let requests: [(&'static [u8], bool); 3] = [
        (br#"{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"InteractiveCommands"}}]}"#, true),
        (br#"{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}}]}"#, false),
        (br#"{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}},{"ActionType":"KMSEncryption"}]}"#, false),
    ];
    for (request, is_answered) in requests {
        let start = Instant::now();
        let (mut channel, mut now) = (channel(start), start);
        let probe = step(&mut channel, &mut now).unwrap();
        let ack = payload::acknowledgement_of(&probe);
        channel.handle_frame(now, from_agent(MessageType::Acknowledge, 0, PayloadType::Other(0), ack));
        step(&mut channel, &mut now);
        assert!(matches!(channel.poll_event(), Some(Event::Ready(SessionKind::Shell))));
        let request = Bytes::from_static(request);
        channel.handle_frame(
            now,
            from_agent(MessageType::OutputStreamData, 0, PayloadType::HandshakeRequest, request),
        );
        let event = channel.poll_event();
        assert_eq!(event.is_none(), is_answered, "{event:?}");
        assert_eq!(channel.wants_input(), is_answered);
    }
}
