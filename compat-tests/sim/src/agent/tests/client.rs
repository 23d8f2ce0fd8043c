//! The scripted client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::codec::{self, Message, MessageType};
use super::super::crypto::Cipher;
use super::super::{
    AgentEnd, AgentOptions, AgentSpec, Counters, CountersSnapshot, Document, FromGateway, Generation, run,
};

pub(super) struct Client {
    pub(super) to_agent: mpsc::Sender<FromGateway>,
    pub(super) from_agent: mpsc::Receiver<Bytes>,
    pub(super) agent: JoinHandle<AgentEnd>,
    pub(super) acknowledged: BTreeSet<i64>,
    pub(super) cipher: Option<Cipher>,
    counters: Arc<Counters>,
    next: i64,
    expected: i64,
    /// Messages that arrived before an earlier one.
    early: BTreeMap<i64, Message>,
}

pub(super) fn spec(document: Document) -> AgentSpec {
    let options = AgentOptions { pacing: false, ..AgentOptions::default() };
    AgentSpec {
        session_id: "sid-1".to_owned(),
        target_id: "i-0123456789abcdef0".to_owned(),
        document,
        options,
        kms: None,
    }
}

pub(super) fn forward(port: u16, generation: Generation) -> AgentSpec {
    let properties = properties(json!({"portNumber": port.to_string(), "type": "LocalPortForwarding"}));
    let mut spec = spec(Document::PortForward { host: "127.0.0.1".to_owned(), port, properties });
    spec.options.generation = generation;
    spec
}

pub(super) fn properties(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

impl Client {
    pub(super) fn start(spec: AgentSpec) -> Client {
        let (to_agent, inbound) = mpsc::channel(64);
        let (outbound, from_agent) = mpsc::channel(64);
        let counters = Arc::new(Counters::default());
        let agent = tokio::spawn(run(spec, inbound, outbound, Arc::clone(&counters)));
        Client {
            to_agent,
            from_agent,
            agent,
            acknowledged: BTreeSet::new(),
            cipher: None,
            counters,
            next: 0,
            expected: 0,
            early: BTreeMap::new(),
        }
    }

    pub(super) fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// Sends a data message; gives its number.
    pub(super) async fn send(&mut self, payload_type: u32, payload: &[u8]) -> i64 {
        let number = self.next;
        self.next += 1;
        let sealed = self.cipher.as_ref().filter(|_| payload_type == 1).map(|cipher| cipher.seal(payload));
        self.raw(frame(number, payload_type, sealed.as_deref().unwrap_or(payload))).await;
        number
    }

    /// Sends until it is acknowledged, like a client does while the agent is not ready.
    pub(super) async fn deliver(&mut self, payload_type: u32, payload: &[u8]) {
        let number = self.send(payload_type, payload).await;
        loop {
            let acked = self.until(|client| client.acknowledged.contains(&number));
            if timeout(Duration::from_millis(50), acked).await.is_ok() {
                return;
            }
            self.raw(frame(number, payload_type, payload)).await;
        }
    }

    pub(super) async fn raw(&self, frame: Bytes) {
        self.to_agent.send(FromGateway::Frame(frame)).await.unwrap();
    }

    /// The next new data message, which is acknowledged; `None` when the agent has ended.
    pub(super) async fn message(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            if let Some(message) = self.early.remove(&self.expected) {
                self.expected += 1;
                let payload = match &self.cipher {
                    Some(cipher) if matches!(message.payload_type, 1 | 11 | 12) => {
                        cipher.open(&message.payload).unwrap()
                    }
                    _ => message.payload.to_vec(),
                };
                return Some((message.payload_type, payload));
            }
            self.step().await?;
        }
    }

    /// Takes one frame.
    async fn step(&mut self) -> Option<()> {
        let frame = timeout(Duration::from_secs(20), self.from_agent.recv()).await.expect("nothing comes")?;
        let message = Message::decode(&frame).unwrap();
        match message.message_type {
            MessageType::Acknowledge => {
                let content: Value = serde_json::from_slice(&message.payload).unwrap();
                let number = content["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
                self.acknowledged.insert(number);
            }
            MessageType::OutputStreamData => {
                self.acknowledge(&message).await;
                if message.sequence_number >= self.expected {
                    self.early.insert(message.sequence_number, message);
                }
            }
            other => panic!("{other:?}"),
        }
        Some(())
    }

    pub(super) async fn acknowledge(&self, message: &Message) {
        let frame = codec::acknowledge(1, message.message_type, message.id, message.sequence_number);
        // Fails when the agent has just ended.
        let _ = self.to_agent.send(FromGateway::Frame(frame)).await;
    }

    /// A data message was taken from the channel by hand.
    pub(super) fn skip(&mut self, message: &Message) {
        assert_eq!(message.sequence_number, self.expected);
        self.expected += 1;
    }

    /// Takes frames, but no new data, until the condition holds.
    pub(super) async fn until(&mut self, condition: impl Fn(&Client) -> bool) {
        while !condition(self) {
            let frame = self.from_agent.recv().await.expect("the agent has ended");
            let message = Message::decode(&frame).unwrap();
            assert_eq!(message.message_type, MessageType::Acknowledge, "{message:?}");
            let content: Value = serde_json::from_slice(&message.payload).unwrap();
            self.acknowledged.insert(content["AcknowledgedMessageSequenceNumber"].as_i64().unwrap());
        }
    }

    pub(super) async fn acked(&mut self, number: i64) {
        self.until(|client| client.acknowledged.contains(&number)).await;
    }

    /// Collects output of type 1 until it ends so.
    pub(super) async fn output_until(&mut self, end: &str) -> String {
        let mut output = Vec::new();
        while !output.ends_with(end.as_bytes()) {
            let (payload_type, payload) = self
                .message()
                .await
                .unwrap_or_else(|| panic!("ended after {:?}", String::from_utf8_lossy(&output)));
            assert_eq!(payload_type, 1);
            output.extend(payload);
        }
        String::from_utf8(output).unwrap()
    }

    /// Answers the handshake successfully; gives the request and the completion.
    pub(super) async fn handshake(&mut self, version: &str) -> (Value, Value) {
        let (payload_type, request) = self.message().await.unwrap();
        assert_eq!(payload_type, 5);
        let response = json!({
            "ClientVersion": version,
            "ProcessedClientActions": [
                {"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": null, "Error": ""}
            ],
            "Errors": null,
        });
        self.send(6, response.to_string().as_bytes()).await;
        let (payload_type, complete) = self.message().await.unwrap();
        assert_eq!(payload_type, 7);
        (serde_json::from_slice(&request).unwrap(), serde_json::from_slice(&complete).unwrap())
    }

    /// Everything up to the end, and the end.
    pub(super) async fn rest(&mut self) -> (Vec<(u32, Vec<u8>)>, AgentEnd) {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        (messages, (&mut self.agent).await.unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

pub(super) fn frame(number: i64, payload_type: u32, payload: &[u8]) -> Bytes {
    Message {
        message_type: MessageType::InputStreamData,
        schema_version: 1,
        created: 1,
        sequence_number: number,
        flags: 0,
        id: codec::new_id(),
        payload_type,
        payload: Bytes::copy_from_slice(payload),
    }
    .encode()
}
