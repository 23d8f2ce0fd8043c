//! Peers of an encrypted session that try everything in turn, in an order that a seed decides.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::encryption::{Agent, challenge, complete, encrypted_shell, request, world};
use super::text::ATTACK;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::process::Running;
use crate::harness::wire::{self, Frame};

/// Plays one session after another for `time`. Returns how many there were.
///
/// Fails when a word that was typed is sent in a readable form, when text of the peer's is printed as the remote's, in the
/// plugin's name or with control characters, or when the plugin panics.
#[track_caller]
pub(super) fn encrypted_sessions(seed: u64, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut sessions, mut typed) = (0, 0);
    while Instant::now() < end {
        typed += usize::from(session(random.u64(..)));
        sessions += 1;
    }
    assert!(typed > 0, "no session of {sessions} got as far as to send what was typed");
    sessions
}

/// One session. Returns whether what was typed has arrived, encrypted.
#[track_caller]
fn session(seed: u64) -> bool {
    let peer = Arc::new(Peer::new(seed));
    let plays = Arc::clone(&peer);
    let gateway = Gateway::scripted(move |socket| plays.play(socket));
    let mut world = world(&gateway);
    for (name, value) in [("STATUS", "always"), ("RECONNECT_TIMEOUT", "3")] {
        world.set(&format!("SSM_PLUGIN_{name}"), value);
    }
    // Without an answer of ResumeSession the first token opens the next websocket, too.
    let started = Started { endpoint: "http://127.0.0.1:1".to_owned(), ..Started::of(&gateway) };
    let mut plugin = Running::spawn(&mut started.command(&world));
    plugin.send("a secret word\n");
    let outcome = plugin.finish_or_give_up(SESSION);
    let (text, errors) = (String::from_utf8_lossy(&outcome.stdout).into_owned(), outcome.errors());
    let printed = format!("seed {seed}: {text:?} and {errors:?}");
    assert!(!errors.contains("panicked at") && !errors.contains("internal error"), "{printed}");
    let is_control = |char: char| char.is_control() && !matches!(char, '\n' | '\r');
    assert!(!text.contains(is_control) && !errors.contains(is_control), "{printed}");
    for line in text.lines() {
        assert!(!line.starts_with("session-manager-plugin: ") && !line.starts_with("forged"), "{printed}");
    }
    let is_ours = |line: &str| line.is_empty() || line.starts_with("session-manager-plugin: ");
    assert!(errors.lines().all(is_ours) && !errors.contains("\nsession-manager-plugin: forged"), "{printed}");
    assert!(!peer.has_seen_plaintext(), "{printed}");
    peer.has_seen_typed()
}

/// The gateway and the agent of one session, across its websockets.
struct Peer {
    random: Mutex<fastrand::Rng>,
    agent: Mutex<Option<Agent>>,
    /// Messages that the agent has sent on earlier websockets.
    sent: AtomicUsize,
    seen: Mutex<Vec<Frame>>,
}

impl Peer {
    fn new(seed: u64) -> Peer {
        Peer {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            agent: Mutex::default(),
            sent: AtomicUsize::new(0),
            seen: Mutex::default(),
        }
    }

    fn below(&self, limit: usize) -> usize {
        self.random.lock().expect("random").usize(..limit)
    }

    fn play(&self, socket: &mut Socket) {
        let mut agent = self.agent.lock().expect("agent");
        for _ in 0..self.sent.load(Ordering::SeqCst) {
            socket.skip();
        }
        let agent = agent.get_or_insert_with(|| encrypted_shell(socket));
        for _ in 0..self.below(6) {
            MOVES[self.below(MOVES.len())](socket, agent);
        }
        if let Some(frame) = socket.input_of(wire::PAYLOAD_OUTPUT) {
            self.seen.lock().expect("seen").push(frame);
        }
        MOVES[self.below(MOVES.len())](socket, agent);
        self.sent.store(usize::try_from(socket.next_number()).expect("a number"), Ordering::SeqCst);
        match self.below(3) {
            0 => socket.hang_up(),
            1 => socket.close_websocket(ATTACK.split("\n2026").next().expect("a part")),
            _ => socket.close(ATTACK),
        }
    }

    fn has_seen_plaintext(&self) -> bool {
        let seen = self.seen.lock().expect("seen");
        seen.iter().any(|frame| frame.payload.windows(6).any(|bytes| bytes == b"secret"))
    }

    fn has_seen_typed(&self) -> bool {
        let seen = self.seen.lock().expect("seen");
        let opened: String = seen.iter().filter_map(|frame| Agent::new().open(&frame.payload)).collect();
        opened.contains("secret word")
    }
}

/// One thing that a peer does out of turn.
type Move = fn(&mut Socket, &mut Agent);

/// Most of them are ignored; plain output ends the session.
const MOVES: &[Move] = &[
    |socket, _| send(socket, wire::PAYLOAD_HANDSHAKE_REQUEST, request(true)),
    |socket, _| send(socket, wire::PAYLOAD_HANDSHAKE_REQUEST, request(false)),
    |socket, _| send(socket, wire::PAYLOAD_HANDSHAKE_COMPLETE, complete(ATTACK).to_string()),
    |socket, agent| {
        let genuine = agent.seal("rm -rf /\r");
        socket.data(wire::PAYLOAD_CHALLENGE, challenge(&genuine));
    },
    |socket, _| send(socket, wire::PAYLOAD_CHALLENGE, challenge(b"forged")),
    |socket, _| send(socket, wire::PAYLOAD_FLAG, 3_u32.to_be_bytes()),
    |socket, _| send(socket, 99, "forged\n"),
    |socket, _| socket.send(&Frame::control(wire::PAUSE_PUBLICATION, "")),
    |socket, _| socket.send(&Frame::control(wire::START_PUBLICATION, "")),
    |socket, _| socket.send_text("forged\n"),
    |socket, agent| send(socket, wire::PAYLOAD_OUTPUT, agent.seal("$ ")),
    |socket, _| send(socket, wire::PAYLOAD_OUTPUT, "forged\n"),
    |socket, _| send(socket, wire::PAYLOAD_EXIT_CODE, "EXIT_CODE: 0\nforged\n"),
];

fn send(socket: &mut Socket, payload_type: u32, payload: impl AsRef<[u8]>) {
    socket.data(payload_type, payload);
}

/// Time that one session may last before the next.
const SESSION: Duration = Duration::from_secs(8);
