//! The frames recorded between the official plugin and the real agent: they decode, they encode back to the same
//! bytes, and a channel fed with the agent's side answers as the official plugin did.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::{Channel, Config, Event, Flag, Input, SessionKind, TerminalSize, Transmit};

const RECORDINGS: [(&str, &str); 6] = [
    ("shell", include_str!("../../../compat-tests/vectors/shell.json")),
    ("stdio", include_str!("../../../compat-tests/vectors/stdio.json")),
    ("port-mux", include_str!("../../../compat-tests/vectors/port-mux.json")),
    ("port-refused", include_str!("../../../compat-tests/vectors/port-refused.json")),
    ("separate-false", include_str!("../../../compat-tests/vectors/noninteractive-separate-false.json")),
    ("separate-true", include_str!("../../../compat-tests/vectors/noninteractive-separate-true.json")),
];

struct Frame {
    is_client: bool,
    bytes: Bytes,
    message: Message,
}

fn frames(recording: &str) -> Vec<Frame> {
    let recording: Value = serde_json::from_str(recording).unwrap();
    let mut frames = Vec::new();
    for frame in recording["frames"].as_array().unwrap() {
        let Some(hex) = frame["hex"].as_str() else { continue };
        let bytes = Bytes::from(hex::decode(hex).unwrap());
        let message = Message::decode(bytes.clone()).unwrap();
        frames.push(Frame { is_client: frame["from"] == "client", bytes, message });
    }
    assert!(frames.len() >= 10);
    frames
}

#[test]
fn every_recorded_frame_decodes_and_encodes_back_to_the_same_bytes() {
    for (name, recording) in RECORDINGS {
        for frame in frames(recording) {
            if frame.message.message_type != MessageType::Other {
                assert_eq!(frame.message.encode(), frame.bytes, "{name}: {:?}", frame.message);
            }
        }
    }
}

/// Comparable part of a sent frame; ids and times differ by nature.
fn essence(message: &Message, version: &str) -> (MessageType, u64, PayloadType, String) {
    let body = String::from_utf8_lossy(&message.payload).replace(version, "VERSION");
    (message.message_type, message.flags, message.payload_type, body)
}

#[test]
fn a_channel_answers_the_recorded_agent_as_the_official_plugin_did() {
    for (name, recording) in RECORDINGS {
        let mut now = Instant::now();
        let config = Config {
            client_version: "1.2.896.0".into(),
            message_rate: 0,
            max_payload: 1024,
            max_window: 1 << 20,
            handshake_timeout: Duration::from_secs(60),
            initial_size: TerminalSize { cols: 300, rows: 100 },
            give_up_after: Duration::from_secs(300),
        };
        let mut channel = Channel::new(config, 1);
        channel.handle_open(now, 1_700_000_000_000, "token");
        assert!(matches!(channel.poll_transmit(now), Some(Transmit::Text(_))));
        let (mut kind, mut ours, mut theirs) = (None, Vec::new(), Vec::new());
        for frame in frames(recording) {
            // Long enough for no acknowledgement to wait for another.
            now += Duration::from_millis(5);
            if !frame.is_client {
                // The agent's acknowledgements name messages of the recording by number, as ours are numbered.
                channel.handle_frame(now, frame.bytes);
            } else {
                theirs.push(essence(&frame.message, "1.2.677.0"));
                match (frame.message.message_type, frame.message.payload_type) {
                    (MessageType::Acknowledge, _) | (_, PayloadType::HandshakeResponse) => {}
                    (_, PayloadType::Size) => {
                        channel.send(Input::Size(TerminalSize { cols: 300, rows: 100 }))
                    }
                    (_, PayloadType::Flag) => channel.send(Input::Flag(Flag::TerminateSession)),
                    _ => channel.send(Input::Bytes(frame.message.payload)),
                }
            }
            while let Some(event) = channel.poll_event() {
                if let Event::Ready(ready) = event {
                    kind = Some(ready);
                }
            }
            while let Some(Transmit::Binary(frame)) = channel.poll_transmit(now) {
                ours.push(essence(&Message::decode(frame).unwrap(), "1.2.896.0"));
            }
        }
        let is_data = |frame: &&(MessageType, u64, PayloadType, String)| frame.0 != MessageType::Acknowledge;
        assert_eq!(
            ours.iter().filter(is_data).collect::<Vec<_>>(),
            theirs.iter().filter(is_data).collect::<Vec<_>>(),
            "{name}"
        );
        let acks = |frames: &[(MessageType, u64, PayloadType, String)]| {
            let mut acks: Vec<_> = frames
                .iter()
                .filter(|frame| frame.0 == MessageType::Acknowledge)
                .map(|frame| (frame.1, frame.2, frame.3.clone()))
                .collect();
            acks.sort_by(|a, b| a.2.cmp(&b.2));
            // A recorded agent repeated a message: we acknowledge that again, the official plugin does not.
            acks.dedup();
            acks
        };
        assert_eq!(acks(&ours), acks(&theirs), "{name}");
        match kind.unwrap() {
            SessionKind::Shell => assert_eq!(name, "shell"),
            SessionKind::Command => assert!(name.starts_with("separate")),
            SessionKind::Port(port) => assert_eq!(port.is_forwarding(), name.starts_with("port"), "{name}"),
        }
    }
}
