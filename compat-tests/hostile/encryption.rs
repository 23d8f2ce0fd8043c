//! A gateway that wants to read or to forge what an encrypted session carries.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{DATA_KEY, Gateway, Socket};
use crate::harness::http::read_operation;
use crate::harness::net::Server;
use crate::harness::process::{Finished, Running};
use crate::harness::wire::{self, Frame};

/// The agent's half of a session's encryption.
pub(super) struct Agent {
    seals: Aes256Gcm,
    opens: Aes256Gcm,
    sent: u32,
}

impl Agent {
    pub(super) fn new() -> Agent {
        let (agents, clients) = DATA_KEY.split_at(32);
        let cipher = |key| Aes256Gcm::new_from_slice(key).expect("32 bytes");
        Agent { seals: cipher(agents), opens: cipher(clients), sent: 0 }
    }

    pub(super) fn seal(&mut self, plaintext: &str) -> Vec<u8> {
        self.sent += 1;
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&self.sent.to_be_bytes());
        let sealed = self.seals.encrypt(&Nonce::from(nonce), plaintext.as_bytes()).expect("encrypt");
        [&nonce[..], &sealed].concat()
    }

    /// Input that the client has encrypted; `None` if it has not.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<String> {
        let (nonce, rest) = sealed.split_first_chunk::<12>()?;
        let plaintext = self.opens.decrypt(&Nonce::from(*nonce), rest).ok()?;
        String::from_utf8(plaintext).ok()
    }
}

pub(super) fn request(with_encryption: bool) -> String {
    let mut actions = vec![
        json!({"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream", "Properties": {}}}),
    ];
    if with_encryption {
        actions.push(json!({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "alias/test"}}));
    }
    json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions}).to_string()
}

pub(super) fn challenge(sealed: &[u8]) -> String {
    json!({ "Challenge": BASE64_STANDARD.encode(sealed) }).to_string()
}

const ENCRYPTED: &str = "This session is encrypted using AWS KMS.";

pub(super) fn complete(message: &str) -> Value {
    json!({"HandshakeTimeToComplete": 1_000_000, "CustomerMessage": message})
}

/// The handshake of an encrypted shell, as the agent has it.
pub(super) fn encrypted_shell(socket: &mut Socket) -> Agent {
    let mut agent = Agent::new();
    socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(true));
    socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
    let proof = agent.seal("proof");
    socket.data(wire::PAYLOAD_CHALLENGE, challenge(&proof));
    let answer = socket.input_of(wire::PAYLOAD_CHALLENGE_RESPONSE).expect("an answer to the challenge");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    let answer = BASE64_STANDARD.decode(answer["Challenge"].as_str().expect("a text")).expect("base64");
    assert_eq!(agent.open(&answer).as_deref(), Some("proof"));
    socket.handshake_complete(&complete(ENCRYPTED));
    socket.data(wire::PAYLOAD_OUTPUT, agent.seal("$ "));
    agent
}

/// A gateway that completes the handshake of an encrypted shell, attacks, and passes on what is typed afterwards.
struct Attack {
    plugin: Running,
    seen: mpsc::Receiver<Frame>,
    _gateway: Gateway,
    _world: World,
}

impl Attack {
    fn start(attack: impl Fn(&mut Socket, &mut Agent) + Send + Sync + 'static) -> Attack {
        let (sees, seen) = mpsc::channel();
        let gateway = Gateway::scripted(move |socket| {
            let mut agent = encrypted_shell(socket);
            attack(socket, &mut agent);
            while let Some(frame) = socket.input() {
                let _ = sees.send(frame);
            }
        });
        let world = world(&gateway);
        let plugin = Running::spawn(&mut Started::of(&gateway).command(&world));
        plugin.stdout.wait_for("$ ");
        Attack { plugin, seen, _gateway: gateway, _world: world }
    }

    /// Types a line, and returns what the client has sent up to it: all of it must be encrypted.
    #[track_caller]
    fn assert_typed_is_encrypted(&mut self) {
        self.plugin.send("a secret word\n");
        let agent = Agent::new();
        let mut typed = String::new();
        while !typed.contains("a secret word") {
            let frame = self.seen.recv_timeout(Duration::from_secs(20)).expect("what was typed");
            if frame.payload_type == wire::PAYLOAD_OUTPUT {
                assert!(!frame.payload.windows(6).any(|bytes| bytes == b"secret"), "sent in plaintext");
                typed.push_str(&agent.open(&frame.payload).expect("input is encrypted"));
            }
        }
    }
}

pub(super) fn world(gateway: &Gateway) -> World {
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL_KMS", &gateway.endpoint());
    world
}

/// Runs the plugin to its end.
fn finish(gateway: &Gateway, world: &World) -> Finished {
    let mut plugin = Running::spawn(&mut Started::of(gateway).command(world));
    let _stdin = plugin.take_stdin();
    plugin.finish()
}

#[test]
fn a_second_request_does_not_turn_the_encryption_off() {
    for with_encryption in [true, false] {
        let mut attack = Attack::start(move |socket, _| {
            let number = socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(with_encryption));
            socket.acknowledged(number);
            let number = socket.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, complete("again").to_string());
            socket.acknowledged(number);
        });
        attack.assert_typed_is_encrypted();
        assert!(!attack.plugin.stdout.text().contains("again"));
    }
}

#[test]
fn a_challenge_after_the_handshake_is_not_answered() {
    let mut attack = Attack::start(|socket, agent| {
        let typed = agent.seal("rm -rf /\r");
        let number = socket.data(wire::PAYLOAD_CHALLENGE, challenge(&typed));
        socket.acknowledged(number);
    });
    attack.plugin.send("x\n");
    loop {
        let frame = attack.seen.recv_timeout(Duration::from_secs(20)).expect("what was typed");
        assert_ne!(frame.payload_type, wire::PAYLOAD_CHALLENGE_RESPONSE, "an oracle");
        if Agent::new().open(&frame.payload).is_some_and(|typed| typed.contains('x')) {
            return;
        }
    }
}

#[test]
fn unencrypted_output_of_an_encrypted_session_is_not_printed() {
    for payload_type in [wire::PAYLOAD_OUTPUT, wire::PAYLOAD_STDERR, wire::PAYLOAD_EXIT_CODE] {
        let attack = Attack::start(move |socket, _| {
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(true));
            socket.data(payload_type, "EXIT_CODE: 0 forged\r\n");
        });
        let finished = attack.plugin.finish();
        assert!(!finished.text().contains("forged") && !finished.errors().contains("forged"));
        assert!(
            finished.errors().contains("message cannot be decrypted with this session's key"),
            "{}",
            finished.errors()
        );
    }
}

/// The agent asks for encryption, the user may not use the key, and the gateway continues as if nothing had been requested.
#[test]
fn without_the_key_a_session_ends_and_nothing_is_sent_or_printed() {
    for goes_on_with in [wire::PAYLOAD_HANDSHAKE_COMPLETE, wire::PAYLOAD_OUTPUT, wire::PAYLOAD_CHALLENGE] {
        let (sees, seen) = mpsc::channel();
        let gateway = Gateway::scripted(move |socket| {
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(true));
            socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
            match goes_on_with {
                wire::PAYLOAD_HANDSHAKE_COMPLETE => socket.data(goes_on_with, complete("forged").to_string()),
                _ => socket.data(goes_on_with, "forged"),
            };
            while let Some(frame) = socket.input() {
                let _ = sees.send(frame);
            }
        });
        let mut world = world(&gateway);
        // A name without an endpoint: there is no key.
        world.set("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1");
        let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&world));
        plugin.send("a secret word\n");
        let finished = plugin.finish();
        let (text, errors) = (finished.text(), finished.errors());
        assert!(!text.contains("forged"), "{text}");
        assert!(errors.contains("cannot encrypt the session: kms:GenerateDataKey failed"), "{errors}");
        assert!(text.contains("Cannot perform start session: encryption failed: kms:"), "{text}");
        let sent: Vec<_> = seen.try_iter().collect();
        assert!(sent.iter().all(|frame| frame.payload_type != wire::PAYLOAD_OUTPUT), "{sent:?}");
    }
}

#[test]
fn text_outside_the_encryption_is_marked_and_does_not_control_the_terminal() {
    let gateway = Gateway::scripted(|socket| {
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(true));
        socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
        socket.handshake_complete(&complete("\x1b]0;title\x07# "));
        socket.close("\x1b[2Jdone");
    });
    let finished = finish(&gateway, &world(&gateway));
    let text = finished.text();
    assert!(text.contains("\n\\x1b]0;title\\x07# \n") && text.contains(" : \\x1b[2Jdone\n\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let mark = "session-manager-plugin: the message above arrived unencrypted, so it may not come from the instance\n";
    assert!(finished.errors().contains(mark), "{}", finished.errors());
}

#[test]
fn a_session_that_only_claims_to_be_encrypted_ends() {
    let gateway = Gateway::scripted(|socket| {
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(false));
        socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
        socket.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, complete(ENCRYPTED).to_string());
        while socket.input().is_some() {}
    });
    let text = finish(&gateway, &world(&gateway)).text();
    assert!(
        text.contains("the agent's message claims that the session is encrypted, but it is not"),
        "{text}"
    );
    assert!(!text.contains(ENCRYPTED), "{text}");
}

/// The end of the handshake, before there is a key.
#[test]
fn a_handshake_that_ends_before_the_key_is_there_ends_the_session() {
    let gateway = Gateway::scripted(|socket| {
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request(true));
        socket.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, complete("forged").to_string());
        socket.data(wire::PAYLOAD_OUTPUT, "forged");
        while socket.input().is_some() {}
    });
    let finished = finish(&gateway, &world(&gateway));
    let text = finished.text();
    assert!(!text.contains("forged"), "{text}");
    let reason = "the agent ended the handshake before it had the data key";
    assert!(text.contains(&format!("Cannot perform start session: {reason}")), "{text}");
}

/// The gateway breaks the connection off while the key is being fetched, and lets no other be opened.
#[test]
fn a_key_that_is_refused_without_a_connection_ends_the_session() {
    let (cuts, cut) = (Arc::new(Barrier::new(2)), AtomicBool::new(false));
    let waits = Arc::clone(&cuts);
    let kms = Server::start(move |mut stream| {
        let _ = read_operation(&mut stream);
        waits.wait();
        // The plugin sees the end of the websocket first.
        std::thread::sleep(Duration::from_millis(500));
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let gateway = Gateway::raw(move |stream| {
        if cut.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut ws = tungstenite::accept(stream).expect("a websocket");
        let _ = ws.read();
        let _ = ws
            .send(Message::binary(Frame::output(0, wire::PAYLOAD_HANDSHAKE_REQUEST, request(true)).encode()));
        cuts.wait();
    });
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL_KMS", &format!("http://127.0.0.1:{}", kms.port()));
    let started = Started { endpoint: "http://127.0.0.1:1".to_owned(), ..Started::of(&gateway) };
    let mut plugin = Running::spawn(&mut started.command(&world));
    let _stdin = plugin.take_stdin();
    let text = plugin.finish().text();
    assert!(text.contains("Cannot perform start session: encryption failed: kms:"), "{text}");
}
