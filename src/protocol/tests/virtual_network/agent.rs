//! A model of the agent: acknowledges at once, sends a message a millisecond, resends only its oldest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::protocol::message::{ACK_FLAGS, Message, MessageType, PayloadType};
use crate::protocol::payload;
use crate::protocol::recv::{Receiver, Verdict};

/// The agent's end of the channel.
pub(super) struct Agent {
    receiver: Receiver,
    /// Bytes that arrived, in order.
    pub received: Vec<u8>,
    unacknowledged: VecDeque<(i64, Bytes, Instant)>,
    next: i64,
    /// Bytes to send, each with its earliest time.
    to_send: VecDeque<(Instant, Bytes)>,
    may_send_at: Option<Instant>,
    /// When the last of it came.
    pub received_at: Option<Instant>,
    /// When data messages arrived.
    pub arrivals: Vec<Instant>,
    /// When acknowledgements arrived.
    pub acknowledged: Vec<Instant>,
    /// Data messages that had arrived before.
    pub duplicates: usize,
}

impl Agent {
    pub(super) fn new(output: impl IntoIterator<Item = (Instant, Bytes)>) -> Agent {
        let mut to_send = VecDeque::new();
        for (at, mut bytes) in output {
            while !bytes.is_empty() {
                to_send.push_back((at, bytes.split_to(bytes.len().min(PAYLOAD))));
            }
        }
        Agent {
            receiver: Receiver::default(),
            received: Vec::new(),
            received_at: None,
            unacknowledged: VecDeque::new(),
            next: 0,
            to_send,
            may_send_at: None,
            arrivals: Vec::new(),
            acknowledged: Vec::new(),
            duplicates: 0,
        }
    }

    pub(super) fn envelope(&self, message_type: MessageType, payload: Bytes) -> Message {
        Message {
            message_type,
            created_ms: 1,
            sequence: 0,
            flags: 0,
            id: Uuid::from_u128(self.next as u128),
            payload_type: PayloadType::Output,
            payload,
        }
    }

    /// Takes a frame and gives the acknowledgement, if it is data.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: Bytes) -> Option<Bytes> {
        let message = Message::decode(frame).unwrap();
        match message.message_type {
            MessageType::Acknowledge => {
                let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                let number = body["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
                self.acknowledged.push(now);
                self.unacknowledged.retain(|(unacknowledged, ..)| *unacknowledged != number);
                None
            }
            MessageType::InputStreamData => {
                self.arrivals.push(now);
                let mut ack = self.envelope(MessageType::Acknowledge, payload::acknowledgement_of(&message));
                ack.flags = ACK_FLAGS;
                match self.receiver.handle(message) {
                    Verdict::Deliver(message) => {
                        self.received_at = Some(now);
                        self.received.extend_from_slice(&message.payload);
                        while let Some(message) = self.receiver.poll_ready() {
                            self.received.extend_from_slice(&message.payload);
                        }
                    }
                    Verdict::Held => {}
                    Verdict::Duplicate => self.duplicates += 1,
                    Verdict::Refused => return None,
                }
                Some(ack.encode())
            }
            other => panic!("a client sent {other:?}"),
        }
    }

    /// A new message if it is its time, and the oldest again if that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Bytes> {
        let mut out = Vec::new();
        if self.may_send_at.is_none_or(|at| at <= now)
            && self.unacknowledged.len() < MAX_UNACKNOWLEDGED
            && let Some((_, payload)) = self.to_send.pop_front_if(|(at, _)| *at <= now)
        {
            let mut message = self.envelope(MessageType::OutputStreamData, payload);
            message.sequence = self.next;
            let frame = message.encode();
            self.unacknowledged.push_back((self.next, frame.clone(), now));
            self.next += 1;
            self.may_send_at = Some(now + PAUSE);
            out.push(frame);
        }
        if let Some((_, frame, sent)) = self.unacknowledged.front_mut()
            && *sent + RESEND_AFTER <= now
        {
            *sent = now;
            out.push(frame.clone());
        }
        out
    }

    /// When to poll again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let resend = self.unacknowledged.front().map(|(_, _, sent)| *sent + RESEND_AFTER);
        let new = self.to_send.front().filter(|_| self.unacknowledged.len() < MAX_UNACKNOWLEDGED);
        let new = new.map(|(at, _)| self.may_send_at.map_or(*at, |pause| pause.max(*at)));
        [resend, new].into_iter().flatten().min()
    }

    pub(super) fn is_done(&self) -> bool {
        self.to_send.is_empty() && self.unacknowledged.is_empty()
    }
}

/// The agent's own payload size and pause.
const PAYLOAD: usize = 1024;
const PAUSE: Duration = Duration::from_millis(1);
/// The agent's first retransmission timeout.
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// Small compared with the agent's 100,000: a model may be slower than the real agent.
const MAX_UNACKNOWLEDGED: usize = 2_000;
