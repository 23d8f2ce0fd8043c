//! A gateway that follows a test's script, malformed frames included.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::PATIENCE;
use super::http;
use super::retry::uninterrupted;
use super::wire::{self, Frame};

/// The session every scripted gateway plays.
pub const SESSION: &str = "sim-0a1b2c3d4e5f60718";

/// The token of that session: it must appear in nothing the plugin prints.
pub const TOKEN: &str = "AAEAAVSecretTokenValue";

/// The data key that a scripted gateway's KMS generates each time.
pub const DATA_KEY: [u8; 64] = *b"agent-to-client: 32 bytes of keyclient-to-agent: 32 bytes of key";

/// API operations that were called.
type Calls = Arc<Mutex<Vec<String>>>;

/// Time without an acknowledgement after which the script resends its oldest message, as agents do.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// Time that the end of a script waits for acknowledgements that may never come.
const SETTLE: Duration = Duration::from_secs(3);

/// A gateway on a free port. It answers API calls on the same port: GenerateDataKey with [`DATA_KEY`], others
/// (ResumeSession, TerminateSession) with an empty object. When dropped, it fails the test if a script has panicked.
pub struct Gateway {
    port: u16,
    ended: Arc<AtomicBool>,
    panicked: Arc<AtomicBool>,
    opens: Arc<AtomicUsize>,
    calls: Calls,
    starts_after: Arc<Mutex<Option<Duration>>>,
}

impl Gateway {
    /// Runs `script` on every websocket that opens.
    pub fn scripted(script: impl Fn(&mut Socket) + Send + Sync + 'static) -> Gateway {
        let calls = Calls::default();
        let log = Arc::clone(&calls);
        Gateway::serve(log, move |stream| {
            let Ok(ws) = tungstenite::accept(stream) else { return };
            let _ = ws.get_ref().set_read_timeout(Some(RESEND_AFTER));
            let mut socket = Socket {
                ws,
                open: Value::Null,
                next: 0,
                received: Vec::new(),
                unacknowledged: VecDeque::new(),
                calls: Arc::clone(&calls),
                closed: false,
                reader: None,
            };
            if let Some(open) = socket.open() {
                socket.open = open;
                script(&mut socket);
                socket.drain();
            }
        })
    }

    /// Runs `script` on every connection that asks for a websocket, before any answer.
    pub fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Gateway {
        Gateway::serve(Calls::default(), script)
    }

    fn serve(calls: Calls, script: impl Fn(TcpStream) + Send + Sync + 'static) -> Gateway {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (ended, panicked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let opens = Arc::new(AtomicUsize::new(0));
        let failed = Arc::clone(&panicked);
        let (flag, count, script) = (Arc::clone(&ended), Arc::clone(&opens), Arc::new(script));
        let log = Arc::clone(&calls);
        let starts_after = Arc::new(Mutex::new(None));
        let start = Arc::clone(&starts_after);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (script, count, log) = (Arc::clone(&script), Arc::clone(&count), Arc::clone(&log));
                let (start, failed) = (Arc::clone(&start), Arc::clone(&failed));
                std::thread::spawn(move || {
                    // No timeout yet: the handshake of the websocket does not bear one that a signal cuts short.
                    let mut head = [0; 4];
                    if uninterrupted(|| stream.peek(&mut head)).is_ok() && &head == b"POST" {
                        let starts_after = *start.lock().expect("start lock");
                        answer_api(stream, &log, starts_after.map(|delay| (delay, response(port))));
                    } else {
                        count.fetch_add(1, Ordering::SeqCst);
                        if catch_unwind(AssertUnwindSafe(|| script(stream))).is_err() {
                            failed.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        Gateway { port, ended, panicked, opens, calls, starts_after }
    }

    /// From now on StartSession and ResumeSession are answered as they should be, so much later.
    pub fn start_sessions_after(&self, delay: Duration) {
        *self.starts_after.lock().expect("start lock") = Some(delay);
    }

    /// Number of websocket requests.
    pub fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    /// The API operations that were called.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("calls lock").clone()
    }

    /// Endpoint for API calls.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// StartSession's answer.
    pub fn response(&self) -> Value {
        response(self.port)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let panicked = self.panicked.load(Ordering::SeqCst);
        assert!(!panicked || std::thread::panicking(), "a script of the gateway has panicked");
    }
}

/// The gateway's end of an open data channel. Errors end the script quietly: what the plugin did is judged by
/// its output.
pub struct Socket {
    ws: WebSocket<TcpStream>,
    /// The client's first frame.
    pub open: Value,
    next: i64,
    received: Vec<Frame>,
    unacknowledged: VecDeque<Frame>,
    calls: Calls,
    closed: bool,
    /// Reads instead of us during a flood.
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Socket {
    fn open(&mut self) -> Option<Value> {
        loop {
            match self.read()?.unwrap_or(Message::Ping(Default::default())) {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Binary(_) => return None,
                _ => {}
            }
        }
    }

    /// Sends bytes as one binary frame.
    pub fn send_bytes(&mut self, bytes: impl Into<Vec<u8>>) {
        let _ = self.ws.send(Message::binary(bytes.into()));
    }

    /// Sends a text frame.
    pub fn send_text(&mut self, text: &str) {
        let _ = self.ws.send(Message::text(text.to_owned()));
    }

    /// Sends a frame as it is.
    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(frame.encode());
    }

    /// Sends the next data message of the agent, and answers its number.
    pub fn data(&mut self, payload_type: u32, payload: impl AsRef<[u8]>) -> i64 {
        let number = self.next;
        let frame = Frame::output(number, payload_type, payload);
        self.send(&frame);
        self.unacknowledged.push_back(frame);
        self.next += 1;
        number
    }

    /// Counts a data message that was sent by hand and is not sent again.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Sends data messages as fast as they are taken: acknowledgements are read on a thread and dropped, so nothing else can
    /// be read from here on.
    pub fn flood(&mut self) -> Flood<'_> {
        let mut incoming = self.ws.get_ref().try_clone().expect("clone");
        let _ = incoming.set_read_timeout(None);
        self.reader = Some(std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(1..) = uninterrupted(|| std::io::Read::read(&mut incoming, &mut buffer)) {}
        }));
        Flood { socket: self }
    }

    /// The same without a reader: the client's messages stay where they are.
    pub fn deaf_flood(&mut self) -> Flood<'_> {
        Flood { socket: self }
    }

    /// The number the next data message will have.
    pub fn next_number(&self) -> i64 {
        self.next
    }

    /// Plays the agent's handshake for a session type up to its end.
    pub fn handshake(&mut self, agent_version: &str, session_type: &str, properties: &Value) {
        let request = json!({"AgentVersion": agent_version, "RequestedClientActions": [{
            "ActionType": "SessionType",
            "ActionParameters": {"SessionType": session_type, "Properties": properties},
        }]});
        self.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        if self.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE).is_some() {
            let complete = json!({"HandshakeTimeToComplete": 1_000_000, "CustomerMessage": ""});
            self.handshake_complete(&complete);
        }
    }

    /// Ends the handshake. Waits for the acknowledgement: the official plugin can lose what comes right after.
    pub fn handshake_complete(&mut self, payload: &Value) {
        let number = self.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, payload.to_string());
        self.acknowledged(number);
    }

    /// A port session of the multiplexed kind, handshake done.
    pub fn port_session(&mut self, agent_version: &str) {
        let properties = json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "0"});
        self.handshake(agent_version, "Port", &properties);
    }

    /// The next data message from the client, acknowledged.
    pub fn input(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any()?;
            if frame.message_type == wire::INPUT {
                let fresh = !self.received.iter().any(|known| known.sequence == frame.sequence);
                self.send(&Frame::acknowledge(&frame));
                if fresh {
                    self.received.push(frame.clone());
                    return Some(frame);
                }
            }
        }
    }

    /// The next data message with this payload type.
    pub fn input_of(&mut self, payload_type: u32) -> Option<Frame> {
        loop {
            let frame = self.input()?;
            if frame.payload_type == payload_type {
                return Some(frame);
            }
        }
    }

    /// Reads until the client has acknowledged data message `number`, or has gone.
    pub fn acknowledged(&mut self, number: i64) {
        while self.unacknowledged.iter().any(|frame| frame.sequence == number) && self.any().is_some() {}
    }

    /// Waits for the client's next websocket ping, which is answered with the next read or write; false when the
    /// client has gone.
    pub fn ping(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.read() {
                Some(Some(Message::Ping(_))) => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// Ends the session, once all that was sent has been acknowledged or will not be.
    pub fn close(&mut self, output: &str) {
        let deadline = Instant::now() + SETTLE;
        while !self.unacknowledged.is_empty() && Instant::now() < deadline {
            match self.step() {
                None => return,
                Some(Some(frame)) if frame.message_type == wire::INPUT => {
                    self.send(&Frame::acknowledge(&frame));
                }
                Some(_) => {}
            }
        }
        self.closed = true;
        self.send(&wire::closed(SESSION, output));
    }

    /// Closes the websocket alone, with a reason of at most 123 bytes. The session continues.
    pub fn close_websocket(&mut self, reason: &str) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: reason.to_owned().into() };
        let _ = self.ws.close(Some(frame));
        let _ = self.ws.flush();
    }

    /// The next frame of the client; `None` when it has gone.
    fn any(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(frame) = self.step()? {
                return Some(frame);
            }
        }
        None
    }

    /// At most one frame of the client, within [`RESEND_AFTER`]; `None` when it has gone.
    fn step(&mut self) -> Option<Option<Frame>> {
        let Some(message) = self.read()? else {
            if let Some(oldest) = self.unacknowledged.front().cloned() {
                self.send(&oldest);
            }
            let terminated = |call: &String| call.ends_with(".TerminateSession");
            if !self.closed && self.calls.lock().expect("calls lock").iter().any(terminated) {
                self.closed = true;
                self.send(&wire::closed(SESSION, ""));
            }
            return Some(None);
        };
        let Message::Binary(bytes) = message else {
            return if matches!(message, Message::Close(_)) { None } else { Some(None) };
        };
        let frame = Frame::decode(&bytes);
        if frame.message_type == wire::ACKNOWLEDGE {
            let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            self.unacknowledged.retain(|sent| ack["AcknowledgedMessageSequenceNumber"] != sent.sequence);
        }
        Some(Some(frame))
    }

    /// One message: `None` when the connection has ended, `Some(None)` when nothing has come for a while.
    fn read(&mut self) -> Option<Option<Message>> {
        match self.ws.read() {
            Ok(message) => Some(Some(message)),
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Some(None)
            }
            Err(_) => None,
        }
    }

    /// Breaks the connection off.
    pub fn hang_up(&mut self) {
        let _ = self.ws.get_ref().shutdown(std::net::Shutdown::Both);
    }

    /// Keeps acknowledging until the client has gone.
    fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        while self.input().is_some() {}
    }
}

/// A [`Socket`] that sends and no longer listens.
pub struct Flood<'a> {
    socket: &'a mut Socket,
}

impl Flood<'_> {
    /// Sends the next data message of the agent, no larger than a client reads; false when the client has gone.
    pub fn data(&mut self, payload_type: u32, payload: &[u8]) -> bool {
        assert!(
            payload.len() <= wire::LARGEST_PAYLOAD,
            "{} bytes are more than a client reads",
            payload.len()
        );
        let frame = Frame::output(self.socket.next, payload_type, payload);
        self.socket.next += 1;
        self.frame(&frame)
    }

    /// Sends a frame as it is; false when the client has gone.
    pub fn frame(&mut self, frame: &Frame) -> bool {
        self.socket.ws.write(Message::binary(frame.encode())).is_ok()
    }

    /// Keeps the connection, unread, for as long as the test runs.
    pub fn hold(&self) {
        std::thread::sleep(PATIENCE);
    }

    /// Sends what the writes before have gathered.
    pub fn flush(&mut self) {
        let _ = self.socket.ws.flush();
    }

    /// The number the next data message will have.
    pub fn next_number(&self) -> i64 {
        self.socket.next
    }
}

fn response(port: u16) -> Value {
    let url = format!("ws://127.0.0.1:{port}/v1/data-channel/{SESSION}?role=publish_subscribe&cell-number=1");
    json!({"SessionId": SESSION, "TokenValue": TOKEN, "StreamUrl": url})
}

/// With `start`: how long StartSession and ResumeSession take, and their answer.
fn answer_api(mut stream: TcpStream, calls: &Mutex<Vec<String>>, start: Option<(Duration, Value)>) {
    let operation = http::read_operation(&mut stream).unwrap_or_default();
    let is_start = operation.ends_with(".StartSession") || operation.ends_with(".ResumeSession");
    let start = start.filter(|_| is_start);
    if !operation.is_empty() {
        calls.lock().expect("calls lock").push(operation.clone());
    }
    let body = match start {
        Some((delay, answer)) => {
            std::thread::sleep(delay);
            answer.to_string()
        }
        None if operation.ends_with(".GenerateDataKey") => json!({
            "KeyId": "alias/test",
            "CiphertextBlob": BASE64_STANDARD.encode("the data key, encrypted"),
            "Plaintext": BASE64_STANDARD.encode(DATA_KEY),
        })
        .to_string(),
        None => format!("{{\"SessionId\":\"{SESSION}\"}}"),
    };
    let _ = http::write_response(&mut stream, &body);
}
