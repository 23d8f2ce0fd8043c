//! Plays the agent's side of a recorded session to a plugin: a wire log (`SSM_PLUGIN_WIRE_LOG`) or one of
//! `compat-tests/vectors`.
//!
//! The order of the recording is kept: what the agent had sent before the client's third message is sent before the
//! third message is waited for. The user need not type the same: after [`Replay`]'s patience the
//! next message of the agent comes anyway. Acknowledgements are made anew, since message ids differ each time.
//!
//! Payloads that were not recorded become dots of the same length. So a recording without payloads replays shells and
//! commands as far as numbers, sizes and timing go, but no forwarded port, whose payloads have a structure; and an
//! encrypted session cannot be replayed at all, for want of the key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info};

use crate::agent::codec::{self, MessageType};
use crate::background::listen;
use crate::frame;

/// A recorded session that waits for a plugin, on the loopback interface. Dropping it ends it.
pub struct Replay {
    port: u16,
    runtime: Option<Runtime>,
}

impl Replay {
    /// Reads a recording and listens. `patience` is how long a message of the client's is waited for.
    ///
    /// # Errors
    /// When the file is no recording, or the port cannot be bound.
    pub fn start(path: &Path, port: u16, patience: Duration) -> anyhow::Result<Replay> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let steps = steps(&lines(&text)?)?;
        info!(steps = steps.len(), "recording read");
        let (runtime, listener, port) = listen("ssm-sim-replay", port, 1)?;
        let player =
            Player { steps, at: 0, unacknowledged: BTreeMap::new(), received: BTreeSet::new(), patience };
        runtime.spawn(serve(listener, port, Arc::new(Mutex::new(player))));
        Ok(Replay { port, runtime: Some(runtime) })
    }

    /// For `--endpoint-url` of the AWS CLI: StartSession of any target gives the recorded session.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Response of StartSession.
    #[must_use]
    pub fn response(&self) -> Value {
        response(self.port)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A line of a recording; other fields are for people.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    from: String,
    #[serde(default)]
    channel: u32,
    hex: Option<String>,
    head: Option<String>,
    payload: Option<Withheld>,
}

#[derive(Debug, Deserialize)]
struct Withheld {
    length: usize,
}

/// One recorded session as a whole, as in `compat-tests/vectors`.
#[derive(Deserialize)]
struct Vector {
    frames: Vec<Line>,
}

/// The frames of the file: of its last recording, if it is a wire log.
fn lines(text: &str) -> anyhow::Result<Vec<Line>> {
    if let Ok(vector) = serde_json::from_str::<Vector>(text) {
        return Ok(vector.frames);
    }
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("line {} is no JSON", number + 1))?;
        if value.get("recording").is_some() {
            lines.clear();
        }
        lines.push(serde_json::from_value(value).with_context(|| format!("line {}", number + 1))?);
    }
    Ok(lines)
}

/// Steps of a replay, in order.
enum Step {
    /// A data message of the agent's with its number.
    Send(i64, Bytes),
    /// Another message, which is not acknowledged.
    Tell(Bytes),
    /// Until so many messages have come from the client.
    Wait(usize),
    /// The end of the session.
    Close(Bytes),
}

fn steps(lines: &[Line]) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let (mut sent, mut received) = (BTreeSet::new(), BTreeSet::new());
    for line in lines.iter().filter(|line| line.channel == 0) {
        let Some(frame) = bytes(line)? else { continue };
        let Ok(message) = codec::Message::decode(&frame) else {
            debug!("left out a frame that is no message");
            continue;
        };
        match (line.from.as_str(), message.message_type) {
            ("agent", MessageType::OutputStreamData) if sent.insert(message.sequence_number) => {
                steps.push(Step::Send(message.sequence_number, frame));
            }
            ("agent", MessageType::ChannelClosed) => steps.push(Step::Close(frame)),
            ("agent", MessageType::StartPublication | MessageType::PausePublication) => {
                steps.push(Step::Tell(frame));
            }
            ("client", MessageType::InputStreamData) if received.insert(message.sequence_number) => {
                steps.push(Step::Wait(received.len()));
            }
            _ => {}
        }
    }
    anyhow::ensure!(!sent.is_empty(), "there is no message of an agent in it");
    if !steps.iter().any(|step| matches!(step, Step::Close(_))) {
        steps.push(Step::Close(frame::channel_closed(SESSION, "", 0)));
    }
    Ok(steps)
}

/// The frame of a line, if it has one; with dots where the payload was not recorded.
fn bytes(line: &Line) -> anyhow::Result<Option<Bytes>> {
    if let Some(hex) = &line.hex {
        return Ok(Some(hex::decode(hex).context("hex")?.into()));
    }
    let (Some(head), Some(payload)) = (&line.head, &line.payload) else { return Ok(None) };
    anyhow::ensure!(payload.length <= LONGEST, "a payload of {} bytes", payload.length);
    let mut frame = hex::decode(head).context("head")?;
    let filling = vec![b'.'; payload.length];
    frame.get_mut(80..112).context("a head that is too short")?.copy_from_slice(&Sha256::digest(&filling));
    frame.extend_from_slice(&filling);
    Ok(Some(frame.into()))
}

async fn serve(listener: TcpListener, port: u16, player: Arc<Mutex<Player>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let player = Arc::clone(&player);
        tokio::spawn(async move {
            let mut start = [0; 4];
            match stream.peek(&mut start).await {
                Ok(4) if &start == b"POST" => drop(answer_api(&mut stream, port).await),
                Ok(_) => match tokio_tungstenite::accept_async(stream).await {
                    Ok(socket) => player.lock().await.play(socket).await,
                    Err(error) => debug!(%error, "no websocket"),
                },
                Err(error) => debug!(%error, "connection failed"),
            }
        });
    }
}

/// Answers StartSession and ResumeSession with the session, everything else with nothing.
async fn answer_api(stream: &mut TcpStream, port: u16) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if request.len() > LONGEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    while request.len() < head + length.unwrap_or(0).min(LONGEST) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let is_session = text.contains("amazonssm.startsession") || text.contains("amazonssm.resumesession");
    let body = if is_session { response(port).to_string() } else { "{}".to_owned() };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await
}

fn response(port: u16) -> Value {
    let url = format!("ws://127.0.0.1:{port}/v1/data-channel/{SESSION}?role=publish_subscribe");
    json!({"SessionId": SESSION, "TokenValue": "replay-token", "StreamUrl": url})
}

type Socket = WebSocketStream<TcpStream>;

/// Position of the replay; the next connection continues after a lost one.
struct Player {
    steps: Vec<Step>,
    at: usize,
    unacknowledged: BTreeMap<i64, Bytes>,
    /// Numbers of the client's messages.
    received: BTreeSet<i64>,
    patience: Duration,
}

impl Player {
    async fn play(&mut self, mut socket: Socket) {
        if self.try_play(&mut socket).await.is_none() {
            debug!(step = self.at, "the connection is lost");
        }
    }

    /// `None` when the connection was lost.
    async fn try_play(&mut self, socket: &mut Socket) -> Option<()> {
        // The opening text frame.
        while !matches!(socket.next().await?.ok()?, Message::Text(_)) {}
        for frame in self.unacknowledged.values() {
            socket.send(Message::Binary(frame.clone())).await.ok()?;
        }
        while let Some(step) = self.steps.get(self.at) {
            match step {
                Step::Send(number, frame) => {
                    let (number, frame) = (*number, frame.clone());
                    self.unacknowledged.insert(number, frame.clone());
                    socket.send(Message::Binary(frame)).await.ok()?;
                }
                Step::Tell(frame) => socket.send(Message::Binary(frame.clone())).await.ok()?,
                Step::Wait(count) => {
                    let count = *count;
                    self.listen(socket, |player| player.received.len() >= count).await?;
                }
                Step::Close(frame) => {
                    let frame = frame.clone();
                    self.listen(socket, |player| player.unacknowledged.is_empty()).await?;
                    socket.send(Message::Binary(frame)).await.ok()?;
                    // The client closes.
                    let _ = timeout(self.patience, async { while socket.next().await.is_some() {} }).await;
                    self.at = self.steps.len();
                    return Some(());
                }
            }
            self.at += 1;
        }
        Some(())
    }

    /// Takes messages until `done`, or until patience ends.
    async fn listen(&mut self, socket: &mut Socket, done: impl Fn(&Player) -> bool) -> Option<()> {
        let deadline = Instant::now() + self.patience;
        while !done(self) {
            let Ok(message) = timeout_at(deadline, socket.next()).await else { return Some(()) };
            let Message::Binary(frame) = message?.ok()? else { continue };
            let Ok(message) = codec::Message::decode(&frame) else { continue };
            match message.message_type {
                MessageType::InputStreamData => {
                    self.received.insert(message.sequence_number);
                    let (kind, number) = (message.message_type, message.sequence_number);
                    let ack = codec::acknowledge(message.created, kind, message.id, number);
                    socket.send(Message::Binary(ack)).await.ok()?;
                }
                MessageType::Acknowledge => {
                    let content: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
                    if let Some(number) = content["AcknowledgedMessageSequenceNumber"].as_i64() {
                        self.unacknowledged.remove(&number);
                    }
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// The id of every replayed session.
const SESSION: &str = "replay-0123456789abcdef0";
/// Bytes of a request or a payload.
const LONGEST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_recording_of_a_file_counts() {
        let frame = |number: i64| {
            let message = codec::Message {
                message_type: MessageType::OutputStreamData,
                schema_version: 1,
                created: 1,
                sequence_number: number,
                flags: 0,
                id: uuid::Uuid::nil(),
                payload_type: 1,
                payload: Bytes::from_static(b"abc"),
            };
            hex::encode(message.encode())
        };
        let text = format!(
            "{{\"recording\":1}}\n{{\"from\":\"agent\",\"hex\":\"{}\"}}\n{{\"recording\":1}}\n\
             {{\"from\":\"agent\",\"head\":\"{}\",\"payload\":{{\"length\":3}}}}\n\
             {{\"from\":\"agent\",\"channel\":1,\"hex\":\"{}\"}}\n{{\"ms\":1,\"event\":\"lost\"}}\n",
            frame(0),
            &frame(7)[..240],
            frame(8)
        );
        let steps = steps(&lines(&text).unwrap()).unwrap();
        assert_eq!(steps.len(), 2, "and an end of its own");
        let Step::Send(7, frame) = &steps[0] else { panic!("another step") };
        assert_eq!(codec::Message::decode(frame).unwrap().payload, "...");
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        assert!(lines("no JSON").is_err());
        assert!(steps(&lines("{}").unwrap()).is_err());
        let line = |text: &str| serde_json::from_str::<Line>(text).unwrap();
        assert!(bytes(&line(r#"{"hex":"0g"}"#)).is_err());
        assert!(bytes(&line(r#"{"head":"00","payload":{"length":1}}"#)).is_err());
        assert!(bytes(&line(r#"{"head":"00","payload":{"length":99999999}}"#)).is_err());
    }
}
