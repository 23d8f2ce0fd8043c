//! What the fuzz targets do with their bytes. The same functions run under proptest in the normal tests
//! (`compat-tests/hostile`), so that they cannot rot.
//!
//! Each takes any bytes, must not panic, and checks that what came in bounds what is kept and given out.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use bytes::Bytes;
use session_manager_plugin::protocol::message::{Message, MessageType, PayloadType};
use session_manager_plugin::protocol::{Channel, Config, DataKey, Event, Input, TerminalSize, Transmit};
use session_manager_plugin::smux;

/// One frame of the data channel.
pub fn envelope(data: &[u8]) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    assert!(message.payload.len() <= data.len());
    if message.message_type != MessageType::Other && !is_publication(message.message_type) {
        let again = Message::decode(message.encode()).expect("what we write we can read");
        assert_eq!(again, message);
    }
}

/// A channel and a peer that does anything, at any time. Each step is an operation byte, an argument byte, and for
/// frames as many bytes as the argument says.
pub fn channel(data: &[u8]) {
    let mut now = Instant::now();
    let mut channel = Channel::new(config(), 1);
    let (mut rest, mut next, mut given) = (data, 0i64, 0usize);
    while let [operation, argument, tail @ ..] = rest {
        let number = next + i64::from(*argument) - 4;
        let (body, after) = tail.split_at(tail.len().min(usize::from(*argument)));
        rest = tail;
        match operation % 16 {
            0 => channel.handle_open(now, 1, "token"),
            1 => channel.handle_lost(),
            2 => {
                channel.handle_frame(now, Bytes::copy_from_slice(body));
                rest = after;
            }
            // Good frames of every payload type and odd numbers.
            3..=6 => {
                let payload_type = PayloadType::from(u32::from(operation >> 4));
                channel.handle_frame(now, frame(MessageType::OutputStreamData, next, payload_type, body));
                next += 1;
                rest = after;
            }
            7 => channel
                .handle_frame(now, frame(MessageType::OutputStreamData, number, PayloadType::Output, b"x")),
            8 => {
                let body = format!(
                    r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"x","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#
                );
                channel.handle_frame(
                    now,
                    frame(MessageType::Acknowledge, 0, PayloadType::Other(0), body.as_bytes()),
                );
            }
            9 => {
                channel.handle_frame(now, frame(MessageType::PausePublication, 0, PayloadType::Other(0), b""))
            }
            10 => {
                channel.handle_frame(now, frame(MessageType::StartPublication, 0, PayloadType::Other(0), b""))
            }
            11 => {
                now += Duration::from_millis(u64::from(*argument) * u64::from(*argument));
                channel.handle_timeout(now);
            }
            12 if channel.wants_input() => {
                let room = channel.input_room();
                channel.send(Input::Bytes(vec![*argument; usize::from(*argument).min(room)].into()));
            }
            13 => channel.send(Input::Size(TerminalSize { cols: 80, rows: u16::from(*argument) })),
            14 => channel.handle_data_key(match argument % 2 {
                0 => Err("denied".into()),
                _ => Ok(DataKey { plaintext: [7; 64].into(), ciphertext: vec![1, 2, 3] }),
            }),
            _ => {
                let mut frames = 0;
                while let Some(transmit) = channel.poll_transmit(now) {
                    frames += 1;
                    if let Transmit::Binary(frame) = transmit {
                        Message::decode(frame).expect("we send what can be read");
                    }
                }
                assert!(frames <= data.len(), "{frames} frames for {} bytes", data.len());
            }
        }
        while let Some(event) = channel.poll_event() {
            if let Event::Output(bytes) | Event::Stderr(bytes) = event {
                given += bytes.len();
            }
        }
        assert!(given <= data.len(), "more came out than went in");
        let stats = channel.stats();
        assert!(stats.outstanding_bytes <= stats.window.max(config().max_window), "{stats:?}");
        let _ = channel.poll_timeout();
    }
}

/// The payloads of the handshake, two of them parted by a zero byte.
pub fn handshake(data: &[u8]) {
    let now = Instant::now();
    let mut channel = Channel::new(config(), 1);
    channel.handle_open(now, 1, "token");
    for (number, part) in data.splitn(2, |byte| *byte == 0).enumerate() {
        let payload_type =
            if number == 0 { PayloadType::HandshakeRequest } else { PayloadType::HandshakeComplete };
        channel.handle_frame(now, frame(MessageType::OutputStreamData, number as i64, payload_type, part));
        let mut wants_key = false;
        while let Some(event) = channel.poll_event() {
            wants_key |= matches!(event, Event::DataKeyNeeded(_));
        }
        if wants_key {
            channel.handle_data_key(Ok(DataKey { plaintext: [7; 64].into(), ciphertext: vec![9; 20] }));
        }
    }
    while let Some(transmit) = channel.poll_transmit(now) {
        let Transmit::Binary(frame) = transmit else { continue };
        let message = Message::decode(frame).expect("we send what can be read");
        if message.payload_type == PayloadType::HandshakeResponse {
            let _: serde_json::Value = serde_json::from_slice(&message.payload).expect("a response is JSON");
        }
    }
}

/// A smux peer; the first byte says in pieces of which size its bytes come.
pub fn smux_frames(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let now = Instant::now();
    let mut session = smux::Session::new(smux::Config::new(smux::Role::Client), now);
    let ids: Vec<_> = (0..4).filter_map(|_| session.open().ok()).collect();
    let mut given = 0;
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        let handled = session.handle_bytes(now, Bytes::copy_from_slice(piece));
        while let Some(event) = session.poll_event() {
            if let smux::Event::Data(id, bytes) = event {
                assert!(ids.contains(&id), "data of a stream that was never opened");
                given += bytes.len();
            }
        }
        if handled.is_err() {
            break;
        }
        if let Some(id) = ids.first() {
            let _ = session.send(*id, &piece[..piece.len().min(session.send_capacity(*id))]);
        }
        while session.poll_transmit(1024).is_some() {}
    }
    assert!(given <= stream.len(), "more came out than went in");
    assert!(session.stream_count() <= ids.len());
}

/// A command line; its words are parted by zero bytes, the first is looked up in the environment, too.
pub fn argv(data: &[u8]) {
    let words =
        data.split(|byte| *byte == 0).map(|word| OsString::from(String::from_utf8_lossy(word).as_ref()));
    let words: Vec<OsString> = std::iter::once("session-manager-plugin".into()).chain(words).collect();
    let response = words.get(1).cloned();
    let _ = session_manager_plugin::cli::parse(words.clone().into_iter(), |_| None);
    let mut by_name = words;
    if let Some(word) = by_name.get_mut(1) {
        *word = "AWS_SSM_START_SESSION_RESPONSE".into();
    }
    let _ = session_manager_plugin::cli::parse(by_name.into_iter(), |_| response.clone());
}

/// A frame whose digest and lengths are right.
pub fn frame(message_type: MessageType, sequence: i64, payload_type: PayloadType, payload: &[u8]) -> Bytes {
    Message {
        message_type,
        created_ms: 1,
        sequence,
        flags: 0,
        id: uuid::Uuid::from_u128(sequence as u128),
        payload_type,
        payload: Bytes::copy_from_slice(payload),
    }
    .encode()
}

/// The defaults, with a small window so that its bound is met.
pub fn config() -> Config {
    Config {
        client_version: "1.2.896.0".into(),
        message_rate: 0,
        max_payload: 1024,
        max_window: 64 << 10,
        handshake_timeout: Duration::from_secs(60),
        initial_size: session_manager_plugin::protocol::TerminalSize { cols: 80, rows: 24 },
        give_up_after: Duration::from_secs(300),
    }
}

fn is_publication(message_type: MessageType) -> bool {
    matches!(message_type, MessageType::StartPublication | MessageType::PausePublication)
}
