//! What a channel does with the messages that come: acknowledged, put in order, handed out.

use std::time::{Duration, Instant};

use super::super::api::{CloseReason, Event};
use super::super::congestion::Ack;
use super::super::handshake::{self, SessionKind, Step};
use super::super::message::{Message, PayloadType};
use super::super::payload::{self, Flag};
use super::super::recv::Verdict;
use super::super::silent_agent::NextStep;
use super::{Channel, State};

impl Channel {
    pub(super) fn handle_data(&mut self, now: Instant, message: Message) {
        if self.acks.is_full() {
            return tracing::debug!("dropped a message that could not be acknowledged now; it comes again");
        }
        let ack = self.acknowledge(now, &message);
        self.stats.messages_received += 1;
        match self.receiver.handle(message) {
            Verdict::Deliver(message) => {
                self.unpause();
                self.acks.push(now, ack);
                self.deliver(now, message);
                while let Some(message) = self.receiver.poll_ready() {
                    self.deliver(now, message);
                }
            }
            Verdict::Held => self.acks.push(now, ack),
            Verdict::Duplicate => {
                self.stats.duplicates += 1;
                self.acks.push(now, ack);
            }
            Verdict::Refused => tracing::debug!("refused a message that is too early"),
        }
    }

    pub(super) fn handle_ack(&mut self, now: Instant, body: &[u8]) {
        let number = match payload::acknowledged_sequence(body) {
            Ok(number) => number,
            Err(error) => return tracing::debug!(%error, "dropped an acknowledgement"),
        };
        let is_limited = self.sender.in_flight_bytes() + self.config.max_payload > self.controller.window();
        if let Some(acked) = self.sender.handle_ack(now, number) {
            self.unpause();
            self.is_stalled = false;
            self.silent_agent.handle_ack(now);
            let smoothed_rtt = self.sender.rtt().smoothed();
            let ack = Ack { bytes: acked.bytes, sample: acked.sample, smoothed_rtt, is_limited };
            self.controller.on_ack(now, ack);
        }
    }

    /// Hands a message out in its turn. A message before it may have closed the channel: then nothing follows.
    fn deliver(&mut self, now: Instant, message: Message) {
        if self.state == State::Closed {
            return;
        }
        self.stats.bytes_received += message.payload.len() as u64;
        let delivered = match message.payload_type {
            PayloadType::HandshakeRequest => self.handle_handshake_request(now, &message.payload),
            PayloadType::HandshakeComplete => self.handle_handshake_complete(now, &message.payload),
            PayloadType::EncryptionChallengeRequest => self.handle_challenge(&message.payload),
            PayloadType::Output | PayloadType::Stderr | PayloadType::ExitCode => {
                if matches!(self.state, State::Waiting { .. }) && message.payload_type == PayloadType::Output
                {
                    self.become_ready(SessionKind::Shell);
                }
                self.deliver_output(message)
            }
            PayloadType::Flag => {
                if Flag::from_payload(&message.payload) == Some(Flag::ConnectToPortError) {
                    self.events.push_back(Event::PortRefused);
                }
                Ok(())
            }
            other => {
                tracing::debug!(?other, "ignored a payload");
                Ok(())
            }
        };
        if let Err(error) = delivered {
            tracing::warn!(%error, "dropped a payload");
        }
    }

    fn deliver_output(&mut self, message: Message) -> Result<(), payload::PayloadError> {
        let bytes = match &self.cipher {
            None => message.payload,
            Some(cipher) => match cipher.decrypt(&message.payload) {
                Ok(plain) => plain,
                Err(error) => {
                    self.close(CloseReason::Encryption(error.to_string()));
                    return Ok(());
                }
            },
        };
        self.events.push_back(match message.payload_type {
            PayloadType::Stderr => Event::Stderr(bytes),
            PayloadType::ExitCode => Event::ExitCode { code: payload::exit_code(&bytes), text: bytes },
            _ => Event::Output(bytes),
        });
        Ok(())
    }

    fn handle_handshake_request(&mut self, now: Instant, body: &[u8]) -> Result<(), payload::PayloadError> {
        if self.state != State::Ready {
            self.state = State::Handshaking { until: now + self.config.handshake_timeout };
        }
        match self.handshake.handle_request(body)? {
            Step::Respond(response) => self.outgoing.push_answer(PayloadType::HandshakeResponse, response),
            Step::NeedDataKey(request) => self.events.push_back(Event::DataKeyNeeded(request)),
        }
        Ok(())
    }

    fn handle_handshake_complete(&mut self, now: Instant, body: &[u8]) -> Result<(), payload::PayloadError> {
        let words = handshake::customer_message(body)?;
        if !words.is_empty() {
            self.events.push_back(Event::Notice(words));
        }
        // The way there takes a part of the time that the agent needs.
        let round_trip = self.sender.rtt().smoothed();
        self.pacer.hold(now + AGENT_SETTLES.saturating_sub(round_trip));
        match self.handshake.session().cloned() {
            Some(kind) => self.become_ready(kind),
            None => self.close(CloseReason::UnknownSession),
        }
        Ok(())
    }

    fn handle_challenge(&mut self, body: &[u8]) -> Result<(), payload::PayloadError> {
        let Some(cipher) = &mut self.cipher else {
            return Err(payload::PayloadError("encryption challenge"));
        };
        let answer = handshake::answer_challenge(body, cipher)?;
        self.outgoing.push_answer(PayloadType::EncryptionChallengeResponse, answer);
        Ok(())
    }

    pub(super) fn step_with_silent_agent(&mut self, now: Instant) {
        if !matches!(self.state, State::Waiting { .. }) {
            return;
        }
        match self.silent_agent.handle_timeout(now) {
            Some(NextStep::Ask) => {
                self.outgoing.push_answer(PayloadType::Size, self.config.initial_size.payload());
            }
            Some(NextStep::NoHandshake) => self.become_ready(SessionKind::Shell),
            None => {}
        }
    }

    fn become_ready(&mut self, kind: SessionKind) {
        if self.state != State::Ready {
            self.state = State::Ready;
            self.events.push_back(Event::Ready(kind));
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.acks.release();
            self.events.push_back(Event::Closed(reason));
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.controller.on_pause();
        self.paused.get_or_insert(now);
        if !std::mem::replace(&mut self.is_pause_told, true) {
            self.events.push_back(Event::Paused(true));
        }
    }

    /// The end of a pause, by its own message, or by an acknowledgement or data: a client that waited for
    /// `start_publication` alone is known to have hung.
    pub(super) fn unpause(&mut self) {
        self.paused = None;
        if std::mem::take(&mut self.is_pause_told) {
            self.events.push_back(Event::Paused(false));
        }
    }
}

/// How long after its `HandshakeComplete` an agent may still acknowledge input and ignore it: it sends the message before
/// it sets the flag that lets input through (agent source, `PerformHandshake`). What is between takes microseconds, or
/// its machine's time to come back to it.
const AGENT_SETTLES: Duration = Duration::from_millis(20);
