//! The handshake of an encrypted session, and peers that do not keep to it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::{Channel, CloseReason, Config, DataKey, Event, Input, SessionKind, Transmit};

const SECOND: Duration = Duration::from_secs(1);
const REQUEST: &str = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}},{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}]}"#;
const PLAIN_REQUEST: &str = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}"#;

fn data(sequence: i64, payload_type: PayloadType, payload: &'static str) -> Bytes {
    from_agent(MessageType::OutputStreamData, sequence, payload_type, Bytes::from_static(payload.as_bytes()))
}

fn open(now: Instant) -> Channel {
    let mut channel = Channel::new(Config::default(), 1);
    channel.handle_open(now, 0, "token");
    channel
}

/// A channel whose agent has asked for encryption.
fn asked(now: Instant) -> Channel {
    let mut channel = open(now);
    channel.handle_frame(now, data(0, PayloadType::HandshakeRequest, REQUEST));
    assert!(matches!(channel.poll_event(), Some(Event::DataKeyNeeded(_))));
    channel
}

fn key() -> DataKey {
    DataKey { plaintext: [7; 64].into(), ciphertext: vec![1] }
}

fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

#[track_caller]
fn assert_closed(channel: &mut Channel, reason: &str) {
    match &events(channel)[..] {
        [Event::Closed(closed)] => assert_eq!(closed.to_string(), reason),
        events => panic!("{events:?}"),
    }
}

/// Types of the data messages that are sent now.
fn sent(channel: &mut Channel, now: Instant) -> Vec<PayloadType> {
    let transmits = std::iter::from_fn(|| channel.poll_transmit(now));
    let messages = transmits.filter_map(|transmit| match transmit {
        Transmit::Binary(frame) => Some(Message::decode(frame).unwrap()),
        Transmit::Text(_) => None,
    });
    let is_data = |message: &Message| message.message_type == MessageType::InputStreamData;
    messages.filter(is_data).map(|message| message.payload_type).collect()
}

#[test]
fn without_a_key_the_session_ends_with_the_reason_whatever_comes_next() {
    let start = Instant::now();
    let payload_types = [
        PayloadType::Output,
        PayloadType::HandshakeRequest,
        PayloadType::HandshakeComplete,
        PayloadType::EncryptionChallengeRequest,
        PayloadType::Flag,
    ];
    for payload_type in payload_types {
        let mut channel = asked(start);
        channel.send(Input::Bytes(Bytes::from_static(b"typed")));
        channel.handle_data_key(start, Err("denied".into()));
        assert_eq!(sent(&mut channel, start), [PayloadType::HandshakeResponse], "the agent gets the reason");
        assert!(events(&mut channel).is_empty());
        channel.handle_frame(start, data(1, payload_type, "{}"));
        assert_closed(&mut channel, "encryption failed: denied");
        assert_eq!(sent(&mut channel, start + SECOND), []);
    }
}

#[test]
fn without_a_key_the_session_ends_in_time_and_with_its_websocket() {
    let start = Instant::now();
    let mut channel = asked(start);
    channel.handle_data_key(start, Err("denied".into()));
    channel.handle_timeout(start + SECOND * 4);
    assert!(events(&mut channel).is_empty());
    channel.handle_timeout(start + SECOND * 5);
    assert_closed(&mut channel, "encryption failed: denied");

    let mut channel = asked(start);
    channel.handle_data_key(start, Err("denied".into()));
    channel.handle_lost(start);
    assert_closed(&mut channel, "encryption failed: denied");

    // The reason may come when there is no websocket, and perhaps never will be.
    let mut channel = asked(start);
    channel.handle_lost(start);
    channel.handle_data_key(start, Err("denied".into()));
    assert_closed(&mut channel, "encryption failed: denied");
}

/// The agent's text about it is printed as the official plugin prints it.
#[test]
fn without_a_key_the_agent_closes_the_session_with_the_reason() {
    let start = Instant::now();
    let mut channel = asked(start);
    channel.handle_data_key(start, Err("denied".into()));
    let body = Bytes::from_static(br#"{"Output":"KMSEncryption failed on client: denied\u001b[2J"}"#);
    channel.handle_frame(start, from_agent(MessageType::ChannelClosed, 0, PayloadType::Other(0), body));
    assert_closed(&mut channel, "the session has ended");
}

#[test]
fn output_before_the_end_of_the_handshake_is_not_delivered() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_frame(start, data(0, PayloadType::Stderr, "early"));
    channel.handle_frame(start, data(1, PayloadType::HandshakeRequest, PLAIN_REQUEST));
    for (number, payload_type) in
        [(2, PayloadType::Output), (3, PayloadType::Stderr), (4, PayloadType::ExitCode)]
    {
        channel.handle_frame(start, data(number, payload_type, "early"));
    }
    assert!(events(&mut channel).is_empty());
    channel.handle_frame(start, data(5, PayloadType::HandshakeComplete, "{}"));
    channel.handle_frame(start, data(6, PayloadType::Output, "$ "));
    let events = events(&mut channel);
    assert!(matches!(&events[..], [Event::Ready(SessionKind::Shell), Event::Output(_)]), "{events:?}");
}

#[test]
fn requests_and_new_websockets_do_not_extend_the_time_for_the_handshake() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_frame(start, data(0, PayloadType::HandshakeRequest, PLAIN_REQUEST));
    let (mut now, mut number) = (start, 1);
    let mut connected = Duration::ZERO;
    let closed = loop {
        now += SECOND * 7;
        connected += SECOND * 7;
        channel.handle_frame(now, data(number, PayloadType::HandshakeRequest, PLAIN_REQUEST));
        number += 1;
        channel.handle_timeout(now);
        let _ = sent(&mut channel, now);
        if let Some(event) = channel.poll_event() {
            break event;
        }
        assert!(connected < SECOND * 70, "extended without end");
        channel.handle_lost(now);
        // An outage is not the agent's time.
        now += SECOND * 100;
        channel.handle_open(now, 0, "token");
    };
    assert!(matches!(closed, Event::Closed(CloseReason::HandshakeTimeout(_))), "{closed:?}");
    assert!(connected >= SECOND * 60, "{connected:?}");
}

#[test]
fn text_outside_the_encryption_is_marked_and_does_not_control_the_terminal() {
    let start = Instant::now();
    let texts = [
        ("This session is encrypted using AWS KMS.", "This session is encrypted using AWS KMS.", false),
        ("\\u001b]0;x\\u0007$ ", "\\x1b]0;x\\x07$ ", true),
        ("one\\r\\nPort 1 opened\\n", "one\\x0d\\x0aPort 1 opened", true),
    ];
    for (sent, printed, mark) in texts {
        let mut channel = asked(start);
        channel.handle_data_key(start, Ok(key()));
        let body = format!(r#"{{"CustomerMessage":"{sent}"}}"#);
        let message =
            from_agent(MessageType::OutputStreamData, 1, PayloadType::HandshakeComplete, body.into());
        channel.handle_frame(start, message);
        match &events(&mut channel)[..] {
            [Event::Notice { text, is_unprotected }, Event::Ready(SessionKind::Shell)] => {
                assert_eq!((text.as_str(), *is_unprotected), (printed, mark));
            }
            events => panic!("{events:?}"),
        }
        let body = Bytes::from_static(br#"{"Output":"\u001b[2Jend"}"#);
        channel.handle_frame(start, from_agent(MessageType::ChannelClosed, 0, PayloadType::Other(0), body));
        let events = events(&mut channel);
        let Some(Event::Closed(CloseReason::ByService(output))) = events.first() else {
            panic!("{events:?}")
        };
        assert_eq!(output, "\\x1b[2Jend");
    }
}

#[test]
fn a_session_that_only_claims_to_be_encrypted_ends() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_frame(start, data(0, PayloadType::HandshakeRequest, PLAIN_REQUEST));
    let claim = r#"{"CustomerMessage":"This session is encrypted using AWS KMS."}"#;
    channel.handle_frame(start, data(1, PayloadType::HandshakeComplete, claim));
    assert_closed(&mut channel, "the agent's message claims that the session is encrypted, but it is not");
}

#[test]
fn a_handshake_that_is_too_large_ends_the_session() {
    let start = Instant::now();
    let mut channel = open(start);
    let body = format!(r#"{{"AgentVersion":"{}"}}"#, "3".repeat((1 << 20) - 200));
    let request = from_agent(MessageType::OutputStreamData, 0, PayloadType::HandshakeRequest, body.into());
    channel.handle_frame(start, request);
    assert_closed(&mut channel, "the agent's handshake message is too large");
}
