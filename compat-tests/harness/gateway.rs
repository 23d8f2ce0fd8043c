//! A gateway that does what a test's script says, malformed things included.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::PATIENCE;
use super::wire::{self, Frame};

/// The session every scripted gateway plays.
pub const SESSION: &str = "sim-0a1b2c3d4e5f60718";

/// The token of that session: it must appear in nothing the plugin prints.
pub const TOKEN: &str = "AAEAAVSecretTokenValue";

/// A gateway on a free port. It answers API calls (ResumeSession, TerminateSession) on the same port with an
/// empty object.
pub struct Gateway {
    port: u16,
    ended: Arc<AtomicBool>,
    opens: Arc<AtomicUsize>,
}

impl Gateway {
    /// Runs `script` on every websocket that opens.
    pub fn scripted(script: impl Fn(&mut Socket) + Send + Sync + 'static) -> Gateway {
        Gateway::raw(move |stream| {
            let Ok(ws) = tungstenite::accept(stream) else { return };
            let mut socket = Socket { ws, next: 0, received: Vec::new() };
            if socket.open().is_some() {
                script(&mut socket);
                socket.drain();
            }
        })
    }

    /// Runs `script` on every connection that asks for a websocket, before any answer.
    pub fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Gateway {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let opens = Arc::new(AtomicUsize::new(0));
        let (flag, count, script) = (Arc::clone(&ended), Arc::clone(&opens), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (script, count) = (Arc::clone(&script), Arc::clone(&count));
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
                    let mut head = [0; 4];
                    if stream.peek(&mut head).is_ok() && &head == b"POST" {
                        answer_api(stream);
                    } else {
                        count.fetch_add(1, Ordering::SeqCst);
                        script(stream);
                    }
                });
            }
        });
        Gateway { port, ended, opens }
    }

    /// How many websockets were asked for.
    pub fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    /// Where API calls go.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// StartSession's answer.
    pub fn response(&self) -> Value {
        let url =
            format!("ws://127.0.0.1:{}/v1/data-channel/{SESSION}?role=publish_subscribe&cell-number=1", self.port);
        json!({"SessionId": SESSION, "TokenValue": TOKEN, "StreamUrl": url})
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// The gateway's end of an open data channel. Errors end the script quietly: what the plugin did is judged by
/// its output.
pub struct Socket {
    ws: WebSocket<TcpStream>,
    next: i64,
    received: Vec<Frame>,
}

impl Socket {
    fn open(&mut self) -> Option<Value> {
        loop {
            match self.ws.read().ok()? {
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
        self.send(&Frame::output(number, payload_type, payload));
        self.next += 1;
        number
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
            self.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, complete.to_string());
        }
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

    /// Reads until the client has acknowledged data message `number`.
    pub fn acknowledged(&mut self, number: i64) {
        while let Some(frame) = self.any() {
            let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            if frame.message_type == wire::ACKNOWLEDGE && ack["AcknowledgedMessageSequenceNumber"] == number {
                return;
            }
        }
    }

    /// Ends the session.
    pub fn close(&mut self, output: &str) {
        self.send(&wire::closed(SESSION, output));
    }

    /// Closes the connection without a word.
    pub fn cut(&mut self) {
        let _ = self.ws.get_ref().shutdown(Shutdown::Both);
    }

    fn any(&mut self) -> Option<Frame> {
        loop {
            match self.ws.read().ok()? {
                Message::Binary(bytes) => return Some(Frame::decode(&bytes)),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Keeps acknowledging until the client has gone.
    fn drain(&mut self) {
        let _ = self.ws.get_ref().set_read_timeout(Some(Duration::from_secs(60)));
        while self.input().is_some() {}
    }
}

fn answer_api(mut stream: TcpStream) {
    let _ = super::api::read_request(&mut stream);
    let body = format!("{{\"SessionId\":\"{SESSION}\"}}");
    let _ = super::api::write_response(&mut stream, &body);
}
