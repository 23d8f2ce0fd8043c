//! A peer that lies costs bounded memory and time. The fuzz targets' functions on generated input, and floods.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use session_manager_plugin::protocol::Channel;
use session_manager_plugin::protocol::message::{MessageType, PayloadType};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{connect, eventually, opened_port};
use crate::harness::output::Output;
use crate::harness::process::Running;
use crate::harness::wire::{self, Frame};
use crate::harness::{Aws, PATIENCE, TARGET, World};

mod encryption;
mod files;
#[path = "../fuzz/harness.rs"]
mod fuzz;
mod limits;
mod memory;
mod mixture;
mod starts;
mod text;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_envelope(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz::envelope(&data);
    }

    #[test]
    fn any_course_of_a_channel(data in proptest::collection::vec(any::<u8>(), 0..1500)) {
        // Most draws would never open it.
        fuzz::channel(&[&[0, 0, 0x13, 1, b'$'], &data[..]].concat());
    }

    #[test]
    fn any_gateway_of_an_encrypted_session(
        start in 0..3usize,
        data in proptest::collection::vec((0..14u8, any::<u8>()), 0..80),
    ) {
        // Most draws would never ask for a key.
        let start = [&[][..], &[0, 1], &[0, 1, 3, 0]][start];
        let data: Vec<u8> = data.into_iter().flat_map(|(operation, argument)| [operation, argument]).collect();
        fuzz::secrecy(&[start, &data].concat());
    }

    #[test]
    fn any_handshake(data in "[\\PC\\x00]{0,200}", session in any::<bool>()) {
        fuzz::handshake(data.as_bytes());
        let action = if session { "SessionType" } else { "KMSEncryption" };
        let request = serde_json::json!({"AgentVersion": data, "RequestedClientActions":
            [{"ActionType": action, "ActionParameters": {"SessionType": data, "KMSKeyId": data, "Properties": data}}]});
        fuzz::handshake(format!("{request}\0{data}").as_bytes());
    }

    #[test]
    fn any_smux_peer(
        piece in any::<u8>(),
        frames in proptest::collection::vec((0..5u8, 0..8u32, proptest::collection::vec(any::<u8>(), 0..80)), 0..40),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut data = vec![piece];
        for (command, stream, payload) in frames {
            data.extend(wire::smux(1, command, stream, &payload));
        }
        data.extend(rest);
        fuzz::smux_frames(&data);
    }

    #[test]
    fn any_command_line(data in "[\\PC\\x00]{0,300}") {
        fuzz::argv(data.as_bytes());
    }
}

#[test]
fn the_seeds_of_the_fuzz_targets() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 6] = [
        ("envelope", fuzz::envelope),
        ("channel", fuzz::channel),
        ("handshake", fuzz::handshake),
        ("secrecy", fuzz::secrecy),
        ("smux_frames", fuzz::smux_frames),
        ("argv", fuzz::argv),
    ];
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/fuzz/corpus");
    for (name, run) in targets {
        let seeds: Vec<_> = std::fs::read_dir(corpus.join(name)).expect("a corpus").collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            run(&std::fs::read(seed.expect("an entry").path()).expect("a seed"));
        }
    }
}

/// A channel whose agent has spoken once.
fn open_channel(now: Instant) -> Channel {
    let mut channel = Channel::new(fuzz::config(), 1);
    channel.handle_open(now, 0, "token");
    channel.handle_frame(now, fuzz::frame(MessageType::OutputStreamData, 0, PayloadType::Output, b"$ "));
    channel
}

fn pending_frames(channel: &mut Channel, now: Instant) -> usize {
    std::iter::from_fn(|| channel.poll_transmit(now)).count()
}

#[test]
fn acknowledgements_that_are_not_taken_are_bounded() {
    let now = Instant::now();
    let mut channel = open_channel(now);
    let repeated = fuzz::frame(MessageType::OutputStreamData, 0, PayloadType::Output, b"$ ");
    for _ in 0..30_000 {
        channel.handle_frame(now, repeated.clone());
        while channel.poll_event().is_some() {}
    }
    let frames = pending_frames(&mut channel, now);
    assert!(frames <= 16_384, "{frames} frames wait");
}

#[test]
fn handshakes_without_end_are_answered_within_bounds() {
    let now = Instant::now();
    let mut channel = open_channel(now);
    for number in 1..5_000 {
        let body = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[]}"#;
        let frame = fuzz::frame(MessageType::OutputStreamData, number, PayloadType::HandshakeRequest, body);
        channel.handle_frame(now, frame);
        while channel.poll_event().is_some() {}
        // The acknowledgements go out, our answers are never acknowledged.
        let _ = pending_frames(&mut channel, now);
    }
    let (outstanding, limit) = (channel.stats().outstanding_bytes, fuzz::config().max_window + 1024);
    assert!(outstanding <= limit, "{outstanding} bytes are unacknowledged");
}

#[test]
fn acknowledgements_of_nothing_change_nothing() {
    let now = Instant::now();
    let mut channel = open_channel(now);
    let before = channel.stats();
    for number in (0..50_000i64).chain([i64::MAX, i64::MIN, -1]) {
        let body = format!(
            r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"x","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#
        );
        channel.handle_frame(
            now,
            fuzz::frame(MessageType::Acknowledge, 0, PayloadType::Other(0), body.as_bytes()),
        );
    }
    assert_eq!(channel.stats(), before);
}

/// The plugin on its own, so that its memory can be looked at.
struct Plugin {
    child: Child,
    stdout: Output,
    _world: World,
}

impl Plugin {
    fn start(gateway: &Gateway) -> Plugin {
        let mut plugin = Plugin::start_unread(gateway);
        plugin.stdout = Output::read(plugin.child.stdout.take().expect("stdout"));
        plugin
    }

    /// One whose stdout is not read.
    fn start_unread(gateway: &Gateway) -> Plugin {
        let world = World::new();
        let mut command = Started::of(gateway).command(&world);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().expect("start the plugin");
        Plugin { child, stdout: Output::read(std::io::empty()), _world: world }
    }

    /// The most memory it ever had, in bytes; `None` where the system does not say.
    fn peak_memory(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().ok().map(|kib| kib << 10)
    }

    #[track_caller]
    fn assert_memory_below(&self, mib: usize) {
        if let Some(peak) = self.peak_memory() {
            assert!(peak < mib << 20, "{} MiB", peak >> 20);
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends messages for as long as the plugin reads them, up to a number; stops when it has gone.
fn flood(socket: &mut Socket, payload_type: u32, payload: &[u8], count: usize) {
    for _ in 0..count {
        let number = socket.next_number();
        socket.send(&Frame::output(number, payload_type, payload));
        socket.skip();
    }
}

/// Output of a session that has asked for a handshake and does not end it, and that end again and again.
#[test]
fn a_handshake_full_of_output_costs_no_memory() {
    for is_complete in [false, true] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let gateway = Gateway::scripted(move |socket| {
            let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}"#;
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request);
            let _ = socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
            let (payload_type, payload) = if is_complete {
                let body = serde_json::json!({ "CustomerMessage": "x".repeat(32_000) });
                (wire::PAYLOAD_HANDSHAKE_COMPLETE, body.to_string().into_bytes())
            } else {
                (wire::PAYLOAD_OUTPUT, vec![b'x'; 32_000])
            };
            flood(socket, payload_type, &payload, 5_000);
            counter.store(5_000, Ordering::SeqCst);
        });
        let plugin = Plugin::start_unread(&gateway);
        eventually("all was sent", || sent.load(Ordering::SeqCst) == 5_000);
        plugin.assert_memory_below(48);
    }
}

#[test]
fn messages_far_too_early_cost_bounded_memory() {
    let gateway = Gateway::scripted(|socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "before\r\n");
        socket.acknowledged(number);
        for early in 0..12_000 {
            socket.send(&Frame::output(number + 3 + early, wire::PAYLOAD_OUTPUT, [b'x'; 2048]));
        }
        socket.data(wire::PAYLOAD_OUTPUT, "after\r\n");
    });
    let plugin = Plugin::start(&gateway);
    plugin.stdout.wait_for("after\r\n");
    plugin.assert_memory_below(48);
}

/// The request of the AWS CLI names no document: it starts a shell, and nothing listens on this machine.
#[test]
fn a_shell_does_not_become_a_port() {
    let gateway = Gateway::scripted(|socket| {
        socket.port_session("3.3.1000.0");
        while socket.input().is_some() {}
    });
    gateway.start_sessions_after(Duration::ZERO);
    let world = World::new();
    let words = ["ssm", "start-session", "--target", TARGET];
    let mut cli = Running::spawn(&mut world.aws(Aws::V1, &gateway.endpoint(), &words));
    let _stdin = cli.take_stdin();
    let text = cli.finish().text();
    let reason = "Cannot perform start session: the agent started a port session, but a shell was requested";
    assert!(text.contains(reason) && !text.contains("opened for sessionId"), "{text}");
    assert!(gateway.calls().iter().any(|call| call.ends_with(".TerminateSession")), "{:?}", gateway.calls());
}

fn push(socket: &mut Socket, stream: u32, size: usize) {
    let message = wire::smux(1, 2, stream, &vec![b'x'; size]);
    socket.data(wire::PAYLOAD_OUTPUT, message);
}

#[test]
fn data_of_unknown_streams_costs_no_memory() {
    let gateway = Gateway::scripted(|socket| {
        socket.port_session("3.3.1000.0");
        for stream in 0..2000 {
            push(socket, 1000 + stream, 16_000);
        }
        let _ = socket.input_of(wire::PAYLOAD_OUTPUT);
        push(socket, 3, 5);
    });
    let plugin = Plugin::start(&gateway);
    let mut local = connect(opened_port(&plugin.stdout));
    local.write_all(b"hello").expect("write");
    let mut answer = [0; 5];
    local.read_exact(&mut answer).expect("an answer after the flood");
    assert_eq!(&answer, b"xxxxx");
    plugin.assert_memory_below(32);
}

#[test]
fn a_flood_for_a_reader_that_does_not_read_costs_bounded_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let gateway = Gateway::scripted(move |socket| {
        socket.port_session("3.3.1000.0");
        if socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
            return;
        }
        // Blocks when the plugin reads no more; ends with its connection.
        for _ in 0..20_000 {
            push(socket, 3, 16_000);
            counter.fetch_add(16_000, Ordering::SeqCst);
        }
    });
    let plugin = Plugin::start(&gateway);
    let mut local = connect(opened_port(&plugin.stdout));
    local.write_all(b"hello").expect("write");
    // 64 MiB for one reader.
    let (mut before, mut since) = (0, Instant::now());
    eventually("the flood stands still", || {
        let now = sent.load(Ordering::SeqCst);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > Duration::from_secs(2)
    });
    assert!(before < 200_000_000, "the flood never stood still");
    plugin.assert_memory_below(128);
    // What has come is there, and reading sets the rest in motion.
    local.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut bytes = vec![0; before + 1_000_000];
    local.read_exact(&mut bytes).expect("read");
    assert!(bytes.iter().all(|byte| *byte == b'x'));
}
