//! Shared test code: sessions whose agent is the test, and local connections.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::live::LiveSession;
use super::lane::ConnectionNumber;
use super::local::Journal;
use super::local::LocalStream;
use super::local::{Budget, Limits};
use super::local::{Connection, FromConnection};
use super::proxy::{Handshake, MAX_REQUEST, Preface, Protocol, Refusal, Request, Step};
use crate::link::Link;
use crate::protocol::tests::agent_frames;
use crate::settings::Settings;

/// The agent of one session.
pub(super) struct Agent {
    frames: mpsc::UnboundedSender<Bytes>,
    sequence: i64,
}

impl Agent {
    /// An agent that says nothing yet, and its session as StartSession gives it.
    pub(super) fn silent(id: &str) -> (Agent, LiveSession) {
        let (frames, received) = mpsc::unbounded_channel();
        let aws = std::sync::Arc::new(crate::aws::Client::new(crate::aws::AwsContext::default()));
        let mut session = LiveSession::new(id.to_owned(), Link::scripted(received), aws);
        (session.has_credentials, session.reads_flags) = (false, true);
        (Agent { frames, sequence: 0 }, session)
    }

    /// The same, with its handshake on the way.
    pub(super) fn ready(id: &str) -> (Agent, LiveSession) {
        let (mut agent, session) = Agent::silent(id);
        agent_frames::handshake().into_iter().for_each(|frame| agent.send(frame));
        agent.sequence = 2;
        (agent, session)
    }

    /// Bytes of the destination's.
    pub(super) fn write(&mut self, stream: u32, bytes: &[u8]) {
        self.smux(2, stream, bytes);
    }

    /// The destination has closed.
    pub(super) fn finish(&mut self, stream: u32) {
        self.smux(1, stream, b"");
    }

    /// The destination could not be reached.
    pub(super) fn refuse(&mut self, stream: u32) {
        self.send(agent_frames::refused(self.sequence));
        self.sequence += 1;
        self.finish(stream);
    }

    /// Ends the session.
    pub(super) fn close(&self, reason: &str) {
        self.send(agent_frames::closed(reason));
    }

    fn smux(&mut self, command: u8, stream: u32, bytes: &[u8]) {
        let length = (bytes.len() as u16).to_le_bytes();
        let frame = [&[1, command], &length[..], &stream.to_le_bytes(), bytes].concat();
        self.send(agent_frames::output(self.sequence, &frame));
        self.sequence += 1;
    }

    fn send(&self, frame: Bytes) {
        self.frames.send(frame).unwrap();
    }
}

/// A local connection's reports, with its number.
pub(super) type Reports = mpsc::Sender<(ConnectionNumber, FromConnection)>;

/// A local connection, and its client.
pub(super) fn connection(number: ConnectionNumber, reports: &Reports) -> (Connection, TcpStream) {
    connection_with(Preface::default(), number, reports)
}

/// The connection of a proxy client.
pub(super) fn proxied(
    protocol: Protocol,
    number: ConnectionNumber,
    reports: &Reports,
) -> (Connection, TcpStream) {
    connection_with(Preface { protocol: Some(protocol), ..Preface::default() }, number, reports)
}

fn connection_with(preface: Preface, number: ConnectionNumber, reports: &Reports) -> (Connection, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    for stream in [&client, &stream] {
        stream.set_nonblocking(true).unwrap();
    }
    let stream = LocalStream::Tcp(tokio::net::TcpStream::from_std(stream).unwrap());
    let entry = Journal::new(&Settings::default()).open(&stream, None);
    (Connection::start(stream, preface, number, reports.clone(), entry), client)
}

/// Memory for readers.
pub(super) fn budget() -> std::sync::Arc<Budget> {
    Budget::new(Limits::new(1 << 20))
}

/// Lets the tasks of connections run, with all that clients and connections have sent to each other so far.
pub(super) async fn settle() {
    for _ in 0..TURNS {
        // Only Linux delivers on loopback before a write returns.
        if cfg!(not(target_os = "linux")) {
            std::thread::sleep(Duration::from_millis(5));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets the tasks of connections run, in virtual time only: what is under way on sockets may come later.
pub(super) async fn turn() {
    for _ in 0..TURNS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Plays a client that has sent `bytes`, of which up to `piece` arrive at a time: what was sent to it, how it ended
/// (`None`: more is wanted), and the number of bytes that were not read.
pub(super) fn play(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Step>, usize) {
    let (mut handshake, mut rest, mut sent) = (Handshake::default(), bytes, Vec::new());
    let (mut step, mut total) = (handshake.start(), 0);
    loop {
        let wanted = match step {
            Step::Read(count) if rest.len() < count => return (sent, None, rest.len()),
            Step::Read(count) => count,
            Step::ReadSome(_) if rest.is_empty() => return (sent, None, 0),
            Step::ReadSome(most) => most.min(rest.len()).min(piece),
            Step::Send(bytes) => {
                sent.extend_from_slice(bytes);
                step = handshake.handle(&[]);
                continue;
            }
            end => return (sent, Some(end), rest.len()),
        };
        assert!(wanted > 0);
        total += wanted;
        assert!(total <= MAX_REQUEST + 262, "{total} bytes");
        let (now, later) = rest.split_at(wanted);
        rest = later;
        step = handshake.handle(now);
    }
}

/// Returns the request and its early data, or panics.
#[track_caller]
pub(super) fn request_of(bytes: &[u8], piece: usize) -> (String, Protocol, Vec<u8>) {
    match play(bytes, piece) {
        (_, Some(Step::Connect(Request { destination, preface })), left) => {
            let early = [&preface.early[..], &bytes[bytes.len() - left..]].concat();
            (destination.to_string(), preface.protocol.unwrap(), early)
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Returns the answer and the reason of a refusal, or panics.
#[track_caller]
pub(super) fn refusal_of(bytes: &[u8]) -> (Vec<u8>, Refusal) {
    match play(bytes, usize::MAX).1 {
        Some(Step::Refuse(answer, refusal)) => (answer, refusal),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Turns of the runtime that a byte needs from one end to the other.
const TURNS: usize = 4;
