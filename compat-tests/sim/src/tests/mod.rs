//! The whole simulator, by raw HTTP and a scripted websocket client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::{Config, DEFAULT_TARGET, SessionReport, Sim, frame};

mod api;
mod control;
mod encryption;
mod gateway;
mod instances;
mod link;
mod reference;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDSIM/20260101/us-east-1/ssm/aws4_request, \
     SignedHeaders=host, Signature=0000000000000000000000000000000000000000000000000000000000000000";

fn start(config: Config) -> Sim {
    Sim::start(config).expect("the simulator starts")
}

/// One HTTP request: status and body.
async fn http(sim: &Sim, head: &str, body: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(("127.0.0.1", sim.port())).await.expect("connects");
    let request = format!(
        "{head}\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// One API request.
async fn call(sim: &Sim, target: &str, body: Value) -> (u16, Value) {
    let head = format!("POST / HTTP/1.1\r\nX-Amz-Target: {target}\r\nAuthorization: {AUTHORIZATION}");
    let (status, body) = http(sim, &head, &body.to_string()).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// A session with a document: StartSession's answer.
async fn start_session(sim: &Sim, document: Option<&str>, parameters: Value) -> Value {
    let mut request = json!({ "Target": DEFAULT_TARGET, "Parameters": parameters });
    if let Some(document) = document {
        request["DocumentName"] = document.into();
    }
    let (status, answer) = call(sim, "AmazonSSM.StartSession", request).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn resume(sim: &Sim, id: &str) -> Value {
    call(sim, "AmazonSSM.ResumeSession", json!({ "SessionId": id })).await.1
}

fn id(answer: &Value) -> &str {
    answer["SessionId"].as_str().expect("a session id")
}

fn report(sim: &Sim, answer: &Value) -> SessionReport {
    sim.session(id(answer)).expect("a report")
}

/// Waits for something that happens on the simulator's threads.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A client that follows its instructions.
struct Client {
    socket: WebSocketStream<TcpStream>,
    next: i64,
}

/// End of a client's connection.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Close(u16, String),
    Broken,
}

impl Client {
    async fn upgrade(answer: &Value) -> Result<Client, Error> {
        let url = answer["StreamUrl"].as_str().expect("a stream URL");
        let address = url.strip_prefix("ws://").and_then(|u| u.split('/').next()).expect("an address");
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Client { socket: client_async(url, tcp).await?.0, next: 0 })
    }

    /// Upgrades and sends the first frame.
    async fn open(answer: &Value) -> Client {
        let mut client = Client::upgrade(answer).await.expect("the upgrade is accepted");
        client.text(&open_request(answer)).await;
        client
    }

    async fn text(&mut self, value: &Value) {
        self.socket.send(Message::text(value.to_string())).await.expect("sends");
    }

    /// A data message with the next number.
    async fn data(&mut self, payload_type: u32, payload: &[u8]) -> Result<Bytes, Error> {
        let mut bytes =
            frame::encode("input_stream_data", uuid::Uuid::new_v4(), payload_type, payload).to_vec();
        bytes[48..56].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let frame = Bytes::from(bytes);
        self.socket.send(Message::Binary(frame.clone())).await?;
        Ok(frame)
    }

    async fn type_line(&mut self, line: &str) {
        self.data(1, format!("{line}\n").as_bytes()).await.expect("sends");
    }

    /// The next frame, or how the connection ended.
    async fn frame(&mut self) -> Result<Bytes, Ended> {
        let mut ended = Ended::Broken;
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes");
            match next {
                Some(Ok(Message::Binary(frame))) => return Ok(frame),
                Some(Ok(Message::Close(Some(close)))) => {
                    ended = Ended::Close(close.code.into(), close.reason.to_string());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(ended),
            }
        }
    }

    /// Reads, and acknowledges data, until a frame of this type.
    async fn frame_of(&mut self, kind: &str) -> Bytes {
        loop {
            let frame = self.frame().await.unwrap_or_else(|ended| panic!("{kind} expected, but {ended:?}"));
            self.acknowledge(&frame).await;
            if kind_of(&frame) == kind {
                return frame;
            }
        }
    }

    /// Reads, and acknowledges, output (some, at least) until it contains this.
    async fn output(&mut self, wanted: &str) -> String {
        let mut output = String::new();
        loop {
            let frame = self.frame_of("output_stream_data").await;
            output.push_str(&String::from_utf8_lossy(&frame[120..]));
            if output.contains(wanted) {
                return output;
            }
        }
    }

    /// Reads to the connection's end.
    async fn end(&mut self) -> Ended {
        loop {
            match self.frame().await {
                Ok(frame) => self.acknowledge(&frame).await,
                Err(ended) => return ended,
            }
        }
    }

    async fn acknowledge(&mut self, frame: &Bytes) {
        if kind_of(frame) != "output_stream_data" {
            return;
        }
        let (low, high) = frame[64..80].split_at(8);
        let id = uuid::Uuid::from_slice(&[high, low].concat()).expect("an id");
        let payload = json!({
            "AcknowledgedMessageType": "output_stream_data",
            "AcknowledgedMessageId": id.to_string(),
            "AcknowledgedMessageSequenceNumber": i64::from_be_bytes(frame[48..56].try_into().expect("eight")),
            "IsSequentialMessage": true,
        });
        let mut bytes =
            frame::encode("acknowledge", uuid::Uuid::new_v4(), 0, payload.to_string().as_bytes()).to_vec();
        bytes[63] = 3;
        // A connection that is gone shows itself at the next read.
        let _ = self.socket.send(Message::binary(bytes)).await;
    }
}

fn open_request(answer: &Value) -> Value {
    json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": uuid::Uuid::new_v4().to_string(),
        "TokenValue": answer["TokenValue"],
        "ClientId": uuid::Uuid::new_v4().to_string(),
        "ClientVersion": "1.2.896.0",
    })
}

fn kind_of(frame: &Bytes) -> String {
    String::from_utf8_lossy(&frame[4..36]).trim_end_matches(['\0', ' ']).to_owned()
}
