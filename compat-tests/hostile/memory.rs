//! Memory that a hostile peer can make the program hold: each limit with the input that is worst for it.
//!
//! A [`Burst`] sends a few hundred of one kind of message; an attack repeats one burst, the mixture draws from all of them.
//! The figures are for the debug binary, whose code alone is larger than the release binary's memory at rest.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{mixture, starts};
use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Flood, Gateway, SESSION, Socket};
use crate::harness::net::{Server, connect, opened_port};
use crate::harness::output::Output;
use crate::harness::retry::uninterrupted;
use crate::harness::wire::{self, Frame};

/// Sends some messages of one kind; false when the plugin has gone.
type Burst = fn(&mut Flood<'_>) -> bool;

/// The session that the peer announces before it attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Shell,
    /// A port of an agent that forwards one connection at a time.
    Basic,
    Multiplexed,
}

/// The end of the plugin that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Nothing,
    Stdout,
    Stderr,
    /// Stdout and stderr.
    Both,
    /// A local client of the port.
    Client,
}

/// Messages that are repeated.
struct Attack<'a> {
    session: Session,
    unread: Unread,
    settings: &'static [(&'static str, &'static str)],
    /// Attacks and their counts, one after the other.
    bursts: &'a [(&'static str, Burst, usize)],
    /// MiB that the process may have held at most.
    below: usize,
}

impl Attack<'_> {
    /// Plays the attack until all bursts are sent or the plugin stops reading. Fails when the memory exceeds the limit.
    fn run(&self, name: &str) -> Result<(), String> {
        let (gateway, progress) = self.gateway();
        let mut world = World::new();
        for (name, value) in self.settings {
            world.set(name, value);
        }
        let mut victim = Victim::start(world, &gateway, self.unread);
        let _client = (self.unread == Unread::Client).then(|| victim.client());
        progress.await_end(&victim);
        victim.check_memory(name, self.below)
    }

    fn gateway(&self) -> (Gateway, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        let (session, bursts) = (self.session, self.bursts.to_vec());
        let (waits, seen) = (self.unread == Unread::Client, Arc::clone(&progress));
        let gateway = Gateway::scripted(move |socket| {
            announce(socket, session);
            if waits && socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
                return;
            }
            let mut flood = socket.flood();
            for (name, burst, times) in &bursts {
                println!("{name}");
                let mut play = || {
                    seen.bursts.fetch_add(1, Ordering::SeqCst);
                    burst(&mut flood)
                };
                if !each(*times, &mut play) {
                    break;
                }
            }
            flood.flush();
            seen.is_done.store(true, Ordering::SeqCst);
        });
        (gateway, progress)
    }
}

fn announce(socket: &mut Socket, session: Session) {
    match session {
        Session::Shell => {
            let number = socket.data(wire::PAYLOAD_OUTPUT, "$ ");
            socket.acknowledged(number);
        }
        Session::Basic => socket.port_session("3.0.100.0"),
        Session::Multiplexed => socket.port_session("3.3.1000.0"),
    }
}

#[derive(Default)]
struct Progress {
    bursts: AtomicUsize,
    is_done: AtomicBool,
}

impl Progress {
    /// Waits until the attack is over, or stands still because the plugin reads no more, and its memory with it.
    #[track_caller]
    fn await_end(&self, victim: &Victim) {
        let (mut before, mut since) = ((0, None), Instant::now());
        let deadline = Instant::now() + ATTACK;
        loop {
            let now = (self.bursts.load(Ordering::SeqCst), victim.peak_memory());
            if now != before || !victim.is_asleep() {
                (before, since) = (now, Instant::now());
            }
            let quiet = if self.is_done.load(Ordering::SeqCst) { SETTLED } else { STANDSTILL };
            if now.0 > 0 && since.elapsed() > quiet {
                return;
            }
            assert!(Instant::now() < deadline, "the attack lasts longer than {ATTACK:?}: {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The plugin under attack.
struct Victim {
    child: Child,
    stdout: Option<Output>,
    unread: (Option<ChildStdout>, Option<ChildStderr>),
    _world: World,
}

impl Victim {
    fn start(world: World, gateway: &Gateway, unread: Unread) -> Victim {
        Victim::start_session(world, &Started::of(gateway), unread)
    }

    fn start_session(world: World, started: &Started, unread: Unread) -> Victim {
        let mut command = started.command(&world);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let has_stderr = matches!(unread, Unread::Stderr | Unread::Both);
        command.stderr(if has_stderr { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().expect("start the plugin");
        let stdout = child.stdout.take().expect("stdout");
        let (output, pipe) = match unread {
            Unread::Stdout | Unread::Both => (None, Some(stdout)),
            _ => (Some(Output::read(stdout)), None),
        };
        let stderr = child.stderr.take();
        Victim { child, stdout: output, unread: (pipe, stderr), _world: world }
    }

    fn stdout(&self) -> &Output {
        self.stdout.as_ref().expect("stdout is read")
    }

    /// The local port, from an stdout that is read no further.
    fn port_of_unread_stdout(&mut self) -> u16 {
        let stdout = self.unread.0.as_mut().expect("stdout");
        let mut text = String::new();
        while !text.ends_with(" opened for sessionId") {
            let mut byte = [0];
            uninterrupted(|| stdout.read(&mut byte)).expect("read");
            text.push(char::from(byte[0]));
        }
        let number = text.trim_end_matches(" opened for sessionId").rsplit(' ').next().expect("a number");
        number.parse().expect("a port")
    }

    /// Begins to read both streams.
    fn take_unread(&mut self) -> (Output, Output) {
        let stdout = self.unread.0.take().expect("stdout");
        (Output::read(stdout), Output::read(self.unread.1.take().expect("stderr")))
    }

    /// A local client that sends once and never reads.
    fn client(&self) -> TcpStream {
        let mut client = connect(opened_port(self.stdout()));
        client.write_all(b"hello").expect("write");
        client
    }

    /// Returns whether it waits: with something to read it would be running, or waiting for a processor.
    fn is_asleep(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('R'))
    }

    /// The most memory it ever had, in KiB; `None` where the system does not report it, or when it has ended.
    fn peak_memory(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").trim().parse().ok()
    }

    /// Ending a session is within a peer's rights; killing the program is not.
    fn check_end(&mut self, name: &str) -> Result<(), String> {
        let status = self.child.wait().expect("the plugin's end");
        if status.success() { Ok(()) } else { Err(format!("{name}: the plugin has ended with {status}")) }
    }

    /// Fails when the process was killed, or has held `below` MiB or more.
    fn check_memory(&mut self, name: &str, below: usize) -> Result<(), String> {
        if cfg!(not(target_os = "linux")) {
            return Ok(());
        }
        let Some(peak) = self.peak_memory() else { return self.check_end(name) };
        let peak = peak >> 10;
        println!("{name}: {peak} MiB, {below} allowed");
        if peak < below { Ok(()) } else { Err(format!("{name}: {peak} MiB, not less than {below}")) }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails with all that has failed.
#[track_caller]
fn assert_all(results: impl IntoIterator<Item = Result<(), String>>) {
    let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Sends `count` messages made by `message`.
fn each(count: usize, mut message: impl FnMut() -> bool) -> bool {
    (0..count).all(|_| message())
}

/// smux frames for the first stream, each with `payload`.
fn frames(count: usize, payload: &[u8]) -> Vec<u8> {
    wire::smux(1, 2, FIRST_STREAM, payload).repeat(count)
}

/// A message that is dropped, after which the plugin's read buffer holds little but the message before.
fn ballast(flood: &mut Flood<'_>) -> bool {
    flood.frame(&Frame::control("unknown", [b'x'; 60_000]))
}

fn one_byte_frames_in_large_messages(flood: &mut Flood<'_>) -> bool {
    flood.data(wire::PAYLOAD_OUTPUT, &frames(100_000, b"x"))
}

fn one_byte_frames(flood: &mut Flood<'_>) -> bool {
    let message = frames(1, b"x");
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, &message))
}

fn frames_in_nearly_empty_buffers(flood: &mut Flood<'_>) -> bool {
    let message = frames(1, &[b'x'; 1000]);
    each(50, || flood.data(wire::PAYLOAD_OUTPUT, &message) && ballast(flood))
}

fn largest_frames(flood: &mut Flood<'_>) -> bool {
    flood.data(wire::PAYLOAD_OUTPUT, &frames(63, &[b'x'; 65_535]))
}

fn empty_frames(flood: &mut Flood<'_>) -> bool {
    // PSH without payload, NOP, and SYN and FIN of streams that do not exist.
    let kinds = [(2, FIRST_STREAM), (3, 0), (0, 77), (1, 99)];
    let frames: Vec<u8> = kinds.iter().flat_map(|&(kind, id)| wire::smux(1, kind, id, b"")).collect();
    flood.data(wire::PAYLOAD_OUTPUT, &frames.repeat(25_000))
}

fn one_byte_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, b"x"))
}

fn bytes_in_nearly_empty_buffers(flood: &mut Flood<'_>) -> bool {
    each(50, || flood.data(wire::PAYLOAD_OUTPUT, b"x") && ballast(flood))
}

fn largest_messages(flood: &mut Flood<'_>) -> bool {
    flood.data(wire::PAYLOAD_OUTPUT, &vec![b'x'; LARGEST])
}

fn refusals(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_FLAG, &3_u32.to_be_bytes()))
}

fn exit_codes(flood: &mut Flood<'_>) -> bool {
    each(50, || flood.data(wire::PAYLOAD_EXIT_CODE, &[b'7'; 20_000]))
}

fn customer_messages(flood: &mut Flood<'_>) -> bool {
    let text = json!({"HandshakeTimeToComplete": 1, "CustomerMessage": "x".repeat(20_000)}).to_string();
    each(50, || flood.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, text.as_bytes()))
}

fn pauses(flood: &mut Flood<'_>) -> bool {
    let messages = [wire::PAUSE_PUBLICATION, wire::START_PUBLICATION].map(|kind| Frame::control(kind, ""));
    each(250, || messages.iter().all(|message| flood.frame(message)))
}

fn empty_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, b""))
}

fn repeated_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.frame(&Frame::output(0, wire::PAYLOAD_OUTPUT, b"x")))
}

fn early_messages(flood: &mut Flood<'_>) -> bool {
    // The number in between never comes.
    let first = flood.next_number() + 1;
    (0..500).all(|number| flood.frame(&Frame::output(first + number, wire::PAYLOAD_OUTPUT, b"x")))
}

fn acknowledgements_of_nothing(flood: &mut Flood<'_>) -> bool {
    let body = json!({"AcknowledgedMessageType": "input_stream_data", "AcknowledgedMessageId": "x",
        "AcknowledgedMessageSequenceNumber": 1_i64 << 40, "IsSequentialMessage": true});
    let frame = Frame::control(wire::ACKNOWLEDGE, body.to_string());
    each(500, || flood.frame(&frame))
}

fn unknown_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.frame(&Frame::control("unknown", "")) && flood.data(99, b""))
}

/// Bursts that any session survives, and how many of them are an attack: 100,000 messages or more, where they are small.
const CONTROL: &[(&str, Burst, usize)] = &[
    ("refusals", refusals, 400),
    ("exit codes", exit_codes, 100),
    ("pauses", pauses, 400),
    ("empty messages", empty_messages, 200),
    ("repeated messages", repeated_messages, 200),
    ("early messages", early_messages, 200),
    ("acknowledgements of nothing", acknowledgements_of_nothing, 200),
    ("unknown messages", unknown_messages, 200),
    // Last, since a session may end on them.
    ("customer messages", customer_messages, 100),
];

/// Bursts of the session's own bytes.
const BYTES: &[(&str, Burst, usize)] = &[
    ("one-byte messages", one_byte_messages, 400),
    ("bytes in nearly empty buffers", bytes_in_nearly_empty_buffers, 200),
    ("the largest messages", largest_messages, 40),
];

#[test]
fn a_client_that_does_not_read() {
    let attacks: [(&str, Burst, usize, usize); 5] = [
        ("one-byte frames in large messages", one_byte_frames_in_large_messages, 100, 64),
        ("one-byte frames", one_byte_frames, 400, 40),
        ("frames in nearly empty buffers", frames_in_nearly_empty_buffers, 200, 64),
        ("the largest frames", largest_frames, 100, ONE_READER),
        ("empty frames", empty_frames, 20, 40),
    ];
    assert_all(attacks.map(|(name, burst, times, below)| {
        let (session, unread, bursts) = (Session::Multiplexed, Unread::Client, &[(name, burst, times)]);
        Attack { session, unread, settings: &[], bursts, below }.run(name)
    }));
}

/// The memory that all of them hold is limited, too.
#[test]
fn clients_that_do_not_read_together() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        // One message may carry what several of them have sent.
        let mut sent = Vec::new();
        while sent.windows(5).filter(|bytes| bytes == b"hello").count() < CLIENTS as usize {
            let Some(message) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            sent.extend(message.payload);
        }
        let streams = (0..CLIENTS).map(|number| FIRST_STREAM + 2 * number);
        let frames: Vec<u8> =
            streams.flat_map(|id| wire::smux(1, 2, id, &[b'x'; 60_000]).repeat(12)).collect();
        let mut flood = socket.flood();
        for _ in 0..150 {
            if !flood.data(wire::PAYLOAD_OUTPUT, &frames) {
                break;
            }
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    let port = opened_port(victim.stdout());
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(port)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("write");
    }
    progress.await_end(&victim);
    assert_all([victim.check_memory("five clients", 330)]);
}

/// Acknowledgements wait for a peer that repeats its messages and never reads.
#[test]
fn a_peer_that_reads_nothing() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let mut flood = socket.deaf_flood();
        while seen.bursts.load(Ordering::SeqCst) < 400 && repeated_messages(&mut flood) {
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
        flood.hold();
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    progress.await_end(&victim);
    assert_all([victim.check_memory("a peer that reads nothing", 56)]);
}

/// The websocket is closed, and opened again.
#[test]
fn frames_that_are_too_large() {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        socket.flood().frame(&Frame::output(9, wire::PAYLOAD_OUTPUT, vec![b'x'; 64 << 20]));
        seen.bursts.fetch_add(1, Ordering::SeqCst);
    });
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    progress.await_end(&victim);
    assert_all([victim.check_memory("a frame of 64 MiB", 48)]);
}

#[test]
fn stdout_of_a_shell_that_is_not_read() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let (session, unread) = (Session::Shell, Unread::Stdout);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below: 48 }.run(name)
    }));
}

/// The destination speaks first, and nobody connects.
#[test]
fn a_basic_port_without_a_client() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let (session, unread) = (Session::Basic, Unread::Nothing);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below: 48 }.run(name)
    }));
}

#[test]
fn a_basic_port_with_a_client_that_does_not_read() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let below = if *name == "the largest messages" { ONE_READER } else { 40 };
        let (session, unread) = (Session::Basic, Unread::Client);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below }.run(name)
    }));
}

#[test]
fn control_messages_while_stdout_is_not_read() {
    for session in [Session::Multiplexed, Session::Basic, Session::Shell] {
        control_messages(session, Unread::Stdout, &[]);
    }
}

#[test]
fn control_messages_while_json_on_stderr_is_not_read() {
    for session in [Session::Multiplexed, Session::Basic] {
        control_messages(session, Unread::Stderr, &[("SSM_PLUGIN_STATUS", "json")]);
    }
}

#[track_caller]
fn control_messages(session: Session, unread: Unread, settings: &'static [(&'static str, &'static str)]) {
    let attack = Attack { session, unread, settings, bursts: CONTROL, below: 44 };
    assert_all([attack.run(&format!("control messages in a session of the kind {session:?}"))]);
}

/// Both streams are full of what can be repeated. What callers wait for comes through, once each, and so does the end.
#[test]
fn the_lines_that_callers_parse_arrive_when_others_were_dropped() {
    let (progress, resume) = (Arc::new(Progress::default()), Arc::new(AtomicBool::new(false)));
    let (seen, may_go_on) = (Arc::clone(&progress), Arc::clone(&resume));
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let mut flood = socket.flood();
        for _ in 0..100 {
            let _ = refusals(&mut flood);
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
        while !may_go_on.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = refusals(&mut flood);
        flood.frame(&wire::closed(SESSION, "because"));
        flood.flush();
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    let mut victim = Victim::start(world, &gateway, Unread::Both);
    progress.await_end(&victim);
    let (stdout, stderr) = victim.take_unread();
    // What was full has room before more comes.
    stderr.wait_for("\"event\":\"destination_refused\"");
    resume.store(true, Ordering::SeqCst);
    let (text, errors) = (lossy(&stdout.wait_closed()), lossy(&stderr.wait_closed()));
    for line in ["Starting session with SessionId:", "Port ", "Waiting for connections...", " : because"] {
        assert_eq!(text.matches(line).count(), 1, "{line:?} in {} bytes", text.len());
    }
    let refused = text.matches("Connection to destination port failed").count();
    assert!((1..50_000).contains(&refused), "{refused} of 50,000 refusals were printed");
    assert!(text.len() < 2 << 20, "{} bytes", text.len());
    assert!(
        errors.contains("lines for stderr were dropped because it was not read"),
        "{} bytes",
        errors.len()
    );
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.contains("\"event\":\"end\""), "{last}");
    assert!(errors.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "whole lines only");
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Memory held for an endless answer of the API, of a metadata service or of KMS.
#[test]
fn endless_answers() {
    let container = |world: &mut World, at: &str| {
        world.unset(KEYS);
        world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{at}/"));
    };
    let metadata = |world: &mut World, at: &str| {
        world.unset(KEYS);
        world.unset(&["AWS_EC2_METADATA_DISABLED"]);
        world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at);
    };
    let sts = |world: &mut World, at: &str| {
        world.unset(KEYS);
        let token = world.path("token");
        std::fs::write(&token, "a token").expect("write the token");
        world.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string());
        world.set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
        world.set("AWS_ENDPOINT_URL_STS", at);
    };
    let kms = |world: &mut World, at: &str| world.set("AWS_ENDPOINT_URL_KMS", at);
    let nothing = |_: &mut World, _: &str| {};
    type Prepare = fn(&mut World, &str);
    type Play = fn(&mut Socket);
    let cases: [(&str, Prepare, Play); 5] = [
        ("ResumeSession", nothing, |socket| {
            announce(socket, Session::Multiplexed);
            socket.hang_up();
        }),
        ("credentials of a container", container, |socket| announce(socket, Session::Multiplexed)),
        ("metadata service", metadata, |socket| announce(socket, Session::Multiplexed)),
        ("AssumeRoleWithWebIdentity", sts, |socket| announce(socket, Session::Multiplexed)),
        ("GenerateDataKey", kms, |socket| {
            let parameters = json!({"KMSKeyId": "alias/ssm"});
            let action = json!({"ActionType": "KMSEncryption", "ActionParameters": parameters});
            let request = json!({"AgentVersion": "3.3.1000.0", "RequestedClientActions": [action]});
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        }),
    ];
    assert_all(cases.map(|(name, prepare, play)| {
        let endless = Endless::start();
        let gateway = Gateway::scripted(play);
        let mut world = World::new();
        prepare(&mut world, &endless.url());
        let started = Started { endpoint: endless.url(), ..Started::of(&gateway) };
        let mut victim = Victim::start_session(world, &started, Unread::Nothing);
        endless.progress.await_end(&victim);
        victim.check_memory(name, 48)
    }));
}

/// An HTTP service whose answers do not end.
struct Endless {
    server: Server,
    progress: Arc<Progress>,
}

impl Endless {
    fn start() -> Endless {
        let progress = Arc::new(Progress::default());
        let seen = Arc::clone(&progress);
        let server = Server::start(move |mut stream| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n";
            let mut request = [0; 4096];
            let _ = uninterrupted(|| stream.read(&mut request));
            let mut answer = stream.write_all(head.as_bytes());
            for _ in 0..ENDLESS_PARTS {
                if answer.is_err() {
                    return;
                }
                seen.bursts.fetch_add(1, Ordering::SeqCst);
                answer = stream.write_all(&[b' '; 64 << 10]);
            }
            // No end: the reader waits.
            let _ = uninterrupted(|| stream.read(&mut request));
        });
        Endless { server, progress }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }
}

/// Everything at once, in an order that the seed decides, while a client reads a little now and then and nothing else is
/// read at all.
#[test]
fn a_seeded_mixture() {
    const KINDS: [Burst; 5] = [
        one_byte_frames,
        frames_in_nearly_empty_buffers,
        largest_frames,
        empty_frames,
        one_byte_frames_in_large_messages,
    ];
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        if socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
            return;
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut flood = socket.flood();
        let end = Instant::now() + MIXTURE;
        while Instant::now() < end {
            let control = CONTROL.get(random.usize(..4 * CONTROL.len())).map(|(_, burst, _)| *burst);
            let burst = control.unwrap_or_else(|| KINDS[random.usize(..KINDS.len())]);
            if !burst(&mut flood) {
                break;
            }
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
    });
    // At the same time, other runs of the plugin.
    let sessions = std::thread::spawn(|| mixture::encrypted_sessions(SEED, MIXTURE));
    let starts = std::thread::spawn(|| starts::ever_new_destinations(MIXTURE));
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_LOG_CONNECTIONS", "1");
    let mut victim = Victim::start(world, &gateway, Unread::Both);
    let mut client = connect(victim.port_of_unread_stdout());
    client.write_all(b"hello").expect("write");
    let end = Instant::now() + MIXTURE;
    let mut buffer = vec![0; 256 << 10];
    while Instant::now() < end {
        let _ = uninterrupted(|| client.read(&mut buffer));
        std::thread::sleep(Duration::from_millis(20));
    }
    let bursts = progress.bursts.load(Ordering::SeqCst);
    let checked = victim.check_memory(&format!("a mixture of {bursts} bursts, seed {SEED}"), MIXED);
    let _ = victim.child.kill();
    let errors = lossy(&victim.take_unread().1.wait_closed());
    let sessions = sessions.join().expect("the encrypted sessions");
    let starts = starts.join().expect("the clients of a SOCKS proxy");
    println!("{sessions} encrypted sessions, {starts} starts");
    assert!(bursts > 10 && !errors.contains("panicked at"), "{bursts} bursts: {errors}");
    assert_all([checked]);
}

#[test]
fn a_forward_at_rest() {
    let gateway = Gateway::scripted(|socket| announce(socket, Session::Multiplexed));
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    opened_port(victim.stdout());
    victim.stdout().wait_for("Waiting for connections...");
    assert_all([victim.check_memory("at rest", AT_REST)]);
}

/// The first stream that the plugin opens.
const FIRST_STREAM: u32 = 3;
/// Local clients at a time: more than the limit for all has room for.
const CLIENTS: u32 = 5;
/// The payload of a frame of 4 MiB, the largest that is read.
const LARGEST: usize = (4 << 20) - 120;
/// Memory of the process with one stalled reader, in MiB: 64 for the reader, one message of 4 on its way, and the rest.
const ONE_READER: usize = 110;
/// Memory of a forward that does nothing, in MiB. The release binary has about 10.
const AT_REST: usize = 36;
/// The keys that every world has.
const KEYS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// Parts of 64 KiB of an endless answer, so that even a program without a limit leaves the machine alone: 1 GiB.
const ENDLESS_PARTS: usize = 16 << 10;
/// Memory of the process in the mixture, in MiB: as with one stalled reader, and both standard streams.
const MIXED: usize = 128;
/// The order of the mixture.
const SEED: u64 = 17;
/// Duration of the mixture.
const MIXTURE: Duration = Duration::from_secs(60);
/// Time limit of an attack.
const ATTACK: Duration = Duration::from_secs(120);
/// Quiet time after which the plugin has stopped reading.
const STANDSTILL: Duration = Duration::from_secs(3);
/// Quiet time after which everything sent has been read.
const SETTLED: Duration = Duration::from_secs(1);
