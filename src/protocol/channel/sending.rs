//! Choice of the next message to send, if any may be sent.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Channel, State, random_id, trace_message};
use crate::protocol::api::{CloseReason, Transmit};
use crate::protocol::message::{ACK_FLAGS, Message, MessageType, PAYLOAD_OFFSET, PayloadType};
use crate::protocol::outgoing::Next;
use crate::protocol::payload;

impl Channel {
    /// The next frame for the websocket; acknowledgements first, then lost messages, then new data.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if !self.is_connected {
            return None;
        }
        if let Some(opening) = self.opening.take() {
            return Some(Transmit::Text(opening));
        }
        let sends_data = self.state != State::Closed && self.is_sending() && self.may_send(now);
        if let Some(ack) = self.acks.pop(now, sends_data) {
            return Some(Transmit::Binary(ack));
        }
        if !sends_data {
            return None;
        }
        let frame = if self.may_resend() { self.sender.poll_lost(now)? } else { self.next_message(now)? };
        if tracing::enabled!(tracing::Level::TRACE)
            && let Ok(message) = Message::decode(frame.clone())
        {
            trace_message("sent", &message);
        }
        self.pacer.take(now);
        if let Some(last) = &mut self.paused {
            *last = now;
        }
        Some(Transmit::Binary(frame))
    }

    /// The acknowledgements that wait for company, when the websocket is closed for good.
    pub(crate) fn drain_acknowledgements(&mut self) -> impl Iterator<Item = Transmit> {
        self.acks.drain().map(Transmit::Binary)
    }

    /// Returns whether there is anything that waits for its turn, window permitting.
    pub(super) fn is_sending(&self) -> bool {
        self.may_resend() || (self.has_new() && self.may_send_new())
    }

    pub(super) fn has_new(&self) -> bool {
        let may_go = || self.outgoing.is_tentative() || !self.settling.is_held();
        self.outgoing.has_answers() || (self.state == State::Ready && self.outgoing.has_input() && may_go())
    }

    pub(super) fn may_resend(&self) -> bool {
        self.sender.next_lost().is_some_and(|size| size == 0 || self.fits_window(size))
    }

    pub(super) fn may_send_new(&self) -> bool {
        let next = self.outgoing.bytes().min(self.config.max_payload);
        let outstanding = self.sender.outstanding_bytes();
        (outstanding == 0 || outstanding + next <= self.max_outstanding)
            && self.fits_window(next)
            && self.sender.outstanding_messages() < MAX_OUTSTANDING
            && self.sender.span() < MAX_SPAN
    }

    fn fits_window(&self, size: usize) -> bool {
        let in_flight = self.sender.in_flight_bytes();
        in_flight == 0 || in_flight + size <= self.controller.window()
    }

    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.pacer.is_ready(now, self.is_bulk())
            && (self.paused.is_none() || self.probe_at().is_some_and(|at| at <= now))
    }

    /// Returns whether what waits is more than a keystroke or a request. What is lost has waited long enough.
    pub(super) fn is_bulk(&self) -> bool {
        self.outgoing.bytes() >= 2 * self.config.max_payload && !self.may_resend()
    }

    /// While paused, sends one message per interval, so that a lost `start_publication` cannot hang the session.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.paused.map(|last| last + PAUSE_PROBE)
    }

    pub(super) fn next_message(&mut self, now: Instant) -> Option<Bytes> {
        if !self.has_new() || !self.may_send_new() {
            return None;
        }
        let limit = self.config.max_payload.saturating_sub(self.encryption.overhead()).max(1);
        let (payload_type, body) = match self.outgoing.pop(limit, self.state == State::Ready)? {
            Next::Data(body) => (PayloadType::Output, self.encrypted(body)?),
            Next::Tentative(body) => {
                self.settling.handle_tentative();
                self.sender.set_hasty(self.settling.is_hasty());
                (PayloadType::Output, self.encrypted(body)?)
            }
            Next::Control(payload_type, body) => (payload_type, body),
        };
        let size = body.len();
        let frame = self.envelope(now, MessageType::InputStreamData, payload_type, 0).seal(framed(&body));
        self.sender.push(now, frame.clone(), size);
        self.stats.messages_sent += 1;
        self.stats.bytes_sent += size as u64;
        Some(frame)
    }

    fn encrypted(&mut self, body: Bytes) -> Option<Bytes> {
        match self.encryption.seal(body) {
            Ok(body) => Some(body),
            Err(error) => {
                self.close(CloseReason::Encryption(error.to_string()));
                None
            }
        }
    }

    pub(super) fn acknowledge(&mut self, now: Instant, message: &Message) -> Bytes {
        let body = payload::acknowledgement_of(message);
        let mut envelope = self.envelope(now, MessageType::Acknowledge, PayloadType::Other(0), ACK_FLAGS);
        envelope.sequence = 0;
        envelope.seal(framed(&body))
    }

    fn envelope(
        &mut self,
        now: Instant,
        message_type: MessageType,
        payload_type: PayloadType,
        flags: u64,
    ) -> Message {
        Message {
            message_type,
            created_ms: self.epoch.map_or(0, |(opened, unix_ms)| {
                unix_ms + u64::try_from(now.saturating_duration_since(opened).as_millis()).unwrap_or(0)
            }),
            sequence: self.sender.next_sequence(),
            flags,
            id: random_id(&mut self.random),
            payload_type,
            payload: Bytes::new(),
        }
    }
}

fn framed(body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(PAYLOAD_OFFSET + body.len());
    frame.put_bytes(0, PAYLOAD_OFFSET);
    frame.put_slice(body);
    frame
}

/// Messages unacknowledged at most; beyond 10,000 agents are known to stall for good.
const MAX_OUTSTANDING: usize = 1_000;
/// Largest distance between the next number and the oldest unacknowledged message; agents hold 100,000 early
/// ones.
const MAX_SPAN: usize = 8_000;
/// Interval at which one message is sent while the agent is reported away.
const PAUSE_PROBE: Duration = Duration::from_secs(2);
