//! The agent's incoming half of the data channel: order, duplicates, and acknowledgement after the message was
//! taken.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::FromGateway;
use super::codec::{CodecError, Message, MessageType};
use super::counters::Counters;
use super::send::{Gone, Sender};

/// A data message in its turn. It has to be given back to [`Receiver::accept`] or [`Receiver::refuse`].
#[derive(Debug)]
pub(super) struct Input {
    pub(super) payload_type: u32,
    pub(super) payload: Bytes,
    sequence_number: i64,
    id: Uuid,
    /// It came early and was acknowledged then.
    acknowledged: bool,
}

/// Takes frames from the gateway and puts the client's data messages in order.
pub(super) struct Receiver {
    inbound: mpsc::Receiver<FromGateway>,
    sender: Arc<Sender>,
    expected: i64,
    early: HashMap<i64, Input>,
    /// True if to look among the early ones: after each accepted message, and at no other time. So one of them that was
    /// refused is never looked at again, and neither is anything after it, as with the real agent.
    look: bool,
    /// Nothing is acknowledged.
    silent: bool,
}

impl Receiver {
    pub(super) fn new(inbound: mpsc::Receiver<FromGateway>, sender: Arc<Sender>) -> Receiver {
        Receiver { inbound, sender, expected: 0, early: HashMap::new(), look: false, silent: false }
    }

    /// From now on nothing is acknowledged, or everything again.
    pub(super) fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// The next data message in order; `None` when the session is over. Everything else is dealt with inside.
    ///
    /// Until this is called, acknowledgements are not seen either: the real agent reads its websocket and
    /// handles input in one loop.
    pub(super) async fn next(&mut self) -> Option<Input> {
        loop {
            if self.look {
                self.look = false;
                if let Some(input) = self.early.remove(&self.expected) {
                    return Some(input);
                }
            }
            match self.inbound.recv().await? {
                FromGateway::ClientConnected => self.sender.set_active(true),
                FromGateway::ClientDisconnected => self.sender.set_active(false),
                FromGateway::Frame(frame) => match self.frame(&frame).await {
                    Ok(None) => {}
                    Ok(Some(input)) => return Some(input),
                    Err(Over) => return None,
                },
            }
        }
    }

    /// The message was taken: acknowledge it and continue with the next.
    pub(super) async fn accept(&mut self, input: Input) -> Result<(), Gone> {
        self.expected += 1;
        self.look = true;
        if input.acknowledged || self.silent {
            return Ok(());
        }
        self.sender.acknowledge(input.id, input.sequence_number).await
    }

    /// The message was not taken (`ErrHandlerNotReady`, or a failed write): it is not acknowledged, and the client
    /// sends it again, unless it was early and acknowledged then.
    pub(super) fn refuse(&mut self, input: Input) {
        if input.acknowledged {
            self.early.insert(input.sequence_number, input);
        }
    }

    async fn frame(&mut self, frame: &Bytes) -> Result<Option<Input>, Over> {
        let counters = Arc::clone(&self.sender);
        let counters = counters.counters();
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "dropped a frame");
                if error == CodecError::Digest {
                    Counters::add(&counters.bad_digest_received, 1);
                }
                Counters::add(&counters.bad_received, 1);
                return Ok(None);
            }
        };
        match message.message_type {
            MessageType::Acknowledge => {
                Counters::add(&counters.acks_received, 1);
                self.sender.set_active(true);
                match serde_json::from_slice::<Acknowledged>(&message.payload) {
                    Ok(content) => self.sender.acknowledged(content.sequence_number),
                    Err(_) => Counters::add(&counters.bad_received, 1),
                }
            }
            MessageType::InputStreamData => {
                Counters::add(&counters.messages_up, 1);
                Counters::add(&counters.bytes_up, message.payload.len() as u64);
                self.sender.set_active(true);
                return self.data(message).await;
            }
            MessageType::StartPublication => self.sender.set_active(true),
            MessageType::PausePublication => self.sender.set_active(false),
            MessageType::ChannelClosed => return Err(Over),
            MessageType::OutputStreamData | MessageType::AgentSessionState => {
                Counters::add(&counters.bad_received, 1);
            }
        }
        Ok(None)
    }

    async fn data(&mut self, message: Message) -> Result<Option<Input>, Over> {
        let counters = Arc::clone(&self.sender);
        let counters = counters.counters();
        let Message { sequence_number, id, payload_type, payload, .. } = message;
        let mut input = Input { payload_type, payload, sequence_number, id, acknowledged: false };
        let known = sequence_number < self.expected || self.early.contains_key(&sequence_number);
        if known {
            Counters::add(&counters.duplicates_received, 1);
        } else if sequence_number == self.expected {
            return Ok(Some(input));
        } else {
            Counters::add(&counters.early_received, 1);
            if self.early.len() >= INCOMING_MESSAGES {
                return Ok(None);
            }
        }
        if !self.silent {
            self.sender.acknowledge(id, sequence_number).await.map_err(|_| Over)?;
        }
        if !known {
            input.acknowledged = true;
            self.early.insert(sequence_number, input);
        }
        Ok(None)
    }
}

/// The channel was closed, or the gateway is gone.
struct Over;

#[derive(Deserialize)]
struct Acknowledged {
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    sequence_number: i64,
}

/// Agent source: `IncomingMessageBufferCapacity`.
const INCOMING_MESSAGES: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::*;

    fn receiver() -> (mpsc::Sender<FromGateway>, Receiver, mpsc::Receiver<Bytes>) {
        let (to_agent, inbound) = mpsc::channel(10_000);
        let (outbound, frames) = mpsc::channel(10_000);
        let sender = Arc::new(Sender::new(outbound, Arc::default()));
        (to_agent, Receiver::new(inbound, sender), frames)
    }

    fn data(number: i64) -> FromGateway {
        let payload = number.to_string();
        let kind = MessageType::InputStreamData;
        let mut frame = codec::header_and_payload(kind, 1, codec::new_id(), 1, payload.as_bytes());
        codec::number(&mut frame, number, 0);
        FromGateway::Frame(frame.freeze())
    }

    #[tokio::test]
    async fn any_order_and_repetition_comes_out_in_order() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (to_agent, mut receiver, mut frames) = receiver();
            let mut numbers: Vec<i64> = (0..200).collect();
            numbers.extend((0..100).map(|_| random.i64(0..200)));
            random.shuffle(&mut numbers);
            for number in &numbers {
                to_agent.send(data(*number)).await.unwrap();
            }
            drop(to_agent);
            let mut expected = 0;
            while let Some(input) = receiver.next().await {
                assert_eq!(input.payload, expected.to_string());
                receiver.accept(input).await.unwrap();
                expected += 1;
            }
            assert_eq!(expected, 200, "seed {seed}");
            let mut acknowledgements = 0;
            while frames.try_recv().is_ok() {
                acknowledgements += 1;
            }
            // Each frame is answered once, duplicates too.
            assert_eq!(acknowledgements, numbers.len(), "seed {seed}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_not_acknowledged_and_may_come_again() {
        let (to_agent, mut receiver, mut frames) = receiver();
        for _ in 0..2 {
            to_agent.send(data(0)).await.unwrap();
        }
        let input = receiver.next().await.unwrap();
        receiver.refuse(input);
        let input = receiver.next().await.unwrap();
        assert!(frames.try_recv().is_err());
        receiver.accept(input).await.unwrap();
        assert!(frames.try_recv().is_ok());
    }

    #[tokio::test]
    async fn an_early_message_that_is_refused_stops_everything_after_it() {
        let (to_agent, mut receiver, _frames) = receiver();
        for number in [1, 0, 2, 1] {
            to_agent.send(data(number)).await.unwrap();
        }
        drop(to_agent);
        let first = receiver.next().await.unwrap();
        receiver.accept(first).await.unwrap();
        let early = receiver.next().await.unwrap();
        assert_eq!((early.sequence_number, early.acknowledged), (1, true));
        receiver.refuse(early);
        assert!(receiver.next().await.is_none(), "it was looked at again");
    }
}
