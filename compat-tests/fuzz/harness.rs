//! Bodies of the fuzz targets. The same functions run under proptest in the normal tests
//! (`compat-tests/hostile`), so that they cannot rot.
//!
//! Each takes any bytes, must not panic, and checks that what came in bounds what is kept and given out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
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
            1 => channel.handle_lost(now),
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
            14 => channel.handle_data_key(
                now,
                match argument % 2 {
                    0 => Err("denied".into()),
                    _ => Ok(DataKey { plaintext: [7; 64].into(), ciphertext: vec![1, 2, 3] }),
                },
            ),
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
        let held = channel.held_bytes();
        assert!(held <= HELD_PER_BYTE * (data.len() + 64), "{held} bytes are held for {} bytes", data.len());
        let stats = channel.stats();
        // A flag or a size is sent although the window is full: one at a time, and smaller than a message of data.
        let limit = stats.window.max(config().max_window) + config().max_payload;
        assert!(stats.outstanding_bytes <= limit, "{stats:?}");
        let _ = channel.poll_timeout();
    }
}

/// Bytes of memory that a channel may hold for a byte of [`channel`]'s data: a step of two bytes brings a frame and its
/// acknowledgement.
const HELD_PER_BYTE: usize = 1024;

/// A gateway that sends any message of the handshake at any time, and data of all kinds between. From the first data key
/// on, input leaves encrypted and nothing unencrypted is delivered; while a key is missing, nothing leaves or is
/// delivered; a challenge is answered at most once, before the session is ready. Each step is an operation byte and an
/// argument byte.
pub fn secrecy(data: &[u8]) {
    let mut gateway = HostileGateway::new();
    for step in data.chunks_exact(2) {
        gateway.step(step[0], step[1]);
        gateway.check();
    }
}

struct HostileGateway {
    now: Instant,
    channel: Channel,
    agent: Aes256Gcm,
    client: Aes256Gcm,
    next: i64,
    sealed: Vec<Vec<u8>>,
    /// A data key was requested, and not given or refused yet.
    is_key_due: bool,
    /// A data key was requested, whatever became of it.
    is_protected: bool,
    is_encrypted: bool,
    is_ready: bool,
    challenge_answers: BTreeSet<i64>,
}

impl HostileGateway {
    fn new() -> HostileGateway {
        let now = Instant::now();
        let mut channel = Channel::new(config(), 1);
        channel.handle_open(now, 1, "token");
        let cipher = |key: &[u8]| Aes256Gcm::new_from_slice(key).expect("32 bytes");
        let (agent, client) = KEY.split_at(32);
        HostileGateway {
            now,
            channel,
            agent: cipher(agent),
            client: cipher(client),
            next: 0,
            sealed: Vec::new(),
            is_key_due: false,
            is_protected: false,
            is_encrypted: false,
            is_ready: false,
            challenge_answers: BTreeSet::new(),
        }
    }

    fn step(&mut self, operation: u8, argument: u8) {
        let bit = |number: u8| argument >> number & 1 == 1;
        match operation % 14 {
            0 => self.request(bit(0), argument >> 1),
            1 => {
                let text = ["", "This session is encrypted using AWS KMS.", "FORGED\u{1b}[2J"];
                let text = text[usize::from(argument) % 3];
                let body = serde_json::json!({"HandshakeTimeToComplete": 1, "CustomerMessage": text});
                self.data(PayloadType::HandshakeComplete, body.to_string().as_bytes());
            }
            2 => self.challenge(argument),
            3 if self.is_key_due || bit(7) => {
                // Without a request, and with another key: nothing may come of it.
                let plaintext = if self.is_key_due { KEY } else { [argument; 64] };
                self.is_encrypted |= self.is_key_due;
                self.is_key_due = false;
                let key = DataKey { plaintext: plaintext.into(), ciphertext: vec![1, 2, 3] };
                self.channel.handle_data_key(self.now, Ok(key));
            }
            4 if self.is_key_due => {
                self.is_key_due = false;
                self.channel.handle_data_key(self.now, Err("denied".into()));
            }
            5 => self.data(payload_type(argument), b"FORGED"),
            6 => {
                let sealed = self.seal(b"genuine");
                self.data(payload_type(argument), &sealed);
            }
            // Replayed, and under another type.
            7 => {
                let sealed = self.sealed.get(usize::from(argument) / 3).cloned().unwrap_or_default();
                self.data(payload_type(argument), &sealed);
            }
            8 if self.channel.wants_input() || bit(0) => {
                self.channel.send(Input::Bytes(Bytes::from_static(TYPED)));
            }
            9 => self.data(PayloadType::from(u32::from(argument)), b"{}"),
            10 if bit(0) => self.channel.handle_lost(self.now),
            10 => self.channel.handle_open(self.now, 1, "token"),
            11 => {
                self.now += Duration::from_millis(u64::from(argument) * u64::from(argument));
                self.channel.handle_timeout(self.now);
            }
            12 => self.acknowledge(i64::from(argument)),
            _ => self.channel.send(Input::Size(TerminalSize { cols: 80, rows: u16::from(argument) })),
        }
    }

    fn request(&mut self, asks_for_key: bool, kind: u8) {
        let kinds = ["Standard_Stream", "NonInteractiveCommands", "Port", "Telepathy"];
        let kind = kinds[usize::from(kind) % kinds.len()];
        let mut actions =
            vec![serde_json::json!({"ActionType": "SessionType", "ActionParameters": {"SessionType": kind}})];
        if asks_for_key {
            actions.push(
                serde_json::json!({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}}),
            );
        }
        let body = serde_json::json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions});
        self.data(PayloadType::HandshakeRequest, body.to_string().as_bytes());
    }

    /// The agent's own ciphertext, new or replayed, or none at all. The protocol does not protect a message's type: what
    /// was a challenge can come again as output, and is as genuine as that.
    fn challenge(&mut self, argument: u8) {
        let sealed = match argument % 3 {
            0 => self.seal(b"genuine"),
            1 => self.sealed.first().cloned().unwrap_or_default(),
            _ => TYPED.to_vec(),
        };
        let body = serde_json::json!({ "Challenge": BASE64_STANDARD.encode(sealed) });
        self.data(PayloadType::EncryptionChallengeRequest, body.to_string().as_bytes());
    }

    fn data(&mut self, payload_type: PayloadType, body: &[u8]) {
        let frame = frame(MessageType::OutputStreamData, self.next, payload_type, body);
        self.next += 1;
        self.channel.handle_frame(self.now, frame);
    }

    fn acknowledge(&mut self, number: i64) {
        let body = format!(
            r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"x","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#
        );
        let frame = frame(MessageType::Acknowledge, 0, PayloadType::Other(0), body.as_bytes());
        self.channel.handle_frame(self.now, frame);
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(self.sealed.len() as u64).to_be_bytes());
        let sealed = self.agent.encrypt(&nonce.into(), plaintext).expect("encrypt");
        self.sealed.push([&nonce[..], &sealed].concat());
        self.sealed[self.sealed.len() - 1].clone()
    }

    fn check(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::DataKeyNeeded(_) => {
                    assert!(!self.is_protected, "a key was requested twice");
                    assert!(!self.is_ready, "a key was requested in a running session");
                    (self.is_key_due, self.is_protected) = (true, true);
                }
                Event::Ready(_) => {
                    assert!(self.is_encrypted || !self.is_protected, "ready without its key");
                    self.is_ready = true;
                }
                Event::Output(bytes) | Event::Stderr(bytes) | Event::ExitCode { text: bytes, .. } => {
                    assert!(self.is_ready, "output of a session that is not ready");
                    assert!(!self.is_protected || bytes == "genuine", "unencrypted output was delivered");
                }
                Event::Notice { text, is_unprotected } if self.is_protected => {
                    assert!(!text.contains('\u{1b}') && is_unprotected == text.contains("FORGED"));
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.channel.poll_transmit(self.now) {
            let Transmit::Binary(frame) = transmit else { continue };
            let message = Message::decode(frame).expect("we send what can be read");
            self.check_sent(&message);
        }
    }

    fn check_sent(&mut self, message: &Message) {
        match message.payload_type {
            PayloadType::Output if self.is_protected => {
                assert!(self.is_encrypted, "input left without a key");
                let (nonce, rest) = message.payload.split_first_chunk::<12>().expect("a nonce");
                let typed = self.client.decrypt(&(*nonce).into(), rest).expect("input is encrypted");
                // A full message ends within a repetition, and the next one begins there.
                let is_typed = (0..TYPED.len()).any(|start| {
                    typed.iter().zip(TYPED.iter().cycle().skip(start)).all(|(left, right)| left == right)
                });
                assert!(
                    is_typed && !message.payload.ends_with(TYPED),
                    "{:?}",
                    String::from_utf8_lossy(&typed)
                );
            }
            PayloadType::EncryptionChallengeResponse => {
                self.challenge_answers.insert(message.sequence);
                assert_eq!(self.challenge_answers.len(), 1, "a second challenge was answered");
            }
            _ => {}
        }
    }
}

fn payload_type(argument: u8) -> PayloadType {
    [PayloadType::Output, PayloadType::Stderr, PayloadType::ExitCode][usize::from(argument) % 3]
}

const KEY: [u8; 64] = *b"agent-to-client: 32 bytes of keyclient-to-agent: 32 bytes of key";
const TYPED: &[u8] = b"typed and secret";

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
            channel.handle_data_key(now, Ok(DataKey { plaintext: [7; 64].into(), ciphertext: vec![9; 20] }));
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
        let shared = Bytes::copy_from_slice(piece);
        let range = shared.as_ptr_range();
        let handled = session.handle_bytes(now, shared.clone());
        let mut events = 0;
        while let Some(event) = session.poll_event() {
            events += 1;
            if let smux::Event::Data(id, bytes) = event {
                assert!(ids.contains(&id), "data of a stream that was never opened");
                let is_slice = range.contains(&bytes.as_ptr());
                assert!(
                    !is_slice || bytes.len() >= piece.len() / 4,
                    "few bytes keep a large piece in memory"
                );
                given += bytes.len();
            }
        }
        // Each has a header of its own, but for the rest of a payload that began before.
        assert!(events <= piece.len() / smux::HEADER_LEN + 1, "{events} events of {} bytes", piece.len());
        assert!(session.buffered_out() <= ids.len() * (32 << 10), "{} bytes wait", session.buffered_out());
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
