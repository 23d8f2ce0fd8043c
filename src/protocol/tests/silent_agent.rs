//! Agents that send nothing at first.

use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::super::message::{ACK_FLAGS, Message, MessageType, PayloadType};
use super::super::{Channel, Config, Event, SessionKind, TerminalSize, Transmit, payload};

fn channel(now: Instant) -> Channel {
    let mut channel = Channel::new(
        Config {
            client_version: "1.2.896.0".into(),
            message_rate: 900,
            max_payload: 1024,
            max_window: 1 << 18,
            handshake_timeout: Duration::from_secs(60),
            initial_size: TerminalSize { cols: 80, rows: 24 },
            give_up_after: Duration::from_secs(300),
        },
        1,
    );
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

fn from_agent(message_type: MessageType, payload_type: PayloadType, payload: Bytes) -> Bytes {
    let flags = if message_type == MessageType::Acknowledge { ACK_FLAGS } else { 0 };
    let (created_ms, sequence, id) = (1, 0, Uuid::from_u128(1));
    Message { message_type, created_ms, sequence, flags, id, payload_type, payload }.encode()
}

#[test]
fn a_command_that_prints_nothing_gets_its_input() {
    let start = Instant::now();
    let (mut channel, mut now) = (channel(start), start);
    let probe = step(&mut channel, &mut now).unwrap();
    assert_eq!((probe.payload_type, now - start), (PayloadType::Size, Duration::from_secs(2)));
    assert!(!channel.wants_input());
    let ack =
        from_agent(MessageType::Acknowledge, PayloadType::Other(0), payload::acknowledgement_of(&probe));
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
    channel
        .handle_frame(now, from_agent(MessageType::OutputStreamData, PayloadType::HandshakeRequest, request));
    channel.handle_frame(now, from_agent(MessageType::Acknowledge, PayloadType::Other(0), ack));
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
