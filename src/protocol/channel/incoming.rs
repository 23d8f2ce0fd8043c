//! Handling of received messages: acknowledged, put in order, delivered.

use std::time::{Duration, Instant};

use super::{Channel, State};
use crate::printable::escaped;
use crate::protocol::api::{CloseReason, Event, Input};
use crate::protocol::congestion::Ack;
use crate::protocol::handshake::{HandshakeError, SessionKind, Step};
use crate::protocol::message::{Message, PayloadType};
use crate::protocol::payload::{self, Flag};
use crate::protocol::recv::Verdict;
use crate::protocol::silent_agent::NextStep;

impl Channel {
    /// Sets the limit for bytes of early messages, for a process with many channels. The channel's own limit of 16 MiB
    /// stays.
    pub fn set_early_limit(&mut self, bytes: usize) {
        self.receiver.set_limit(bytes);
    }

    /// Drops early messages and keeps no more of them, although they were acknowledged: for a session that is being
    /// ended.
    pub fn discard_early(&mut self) {
        self.receiver.discard_early();
    }

    /// Returns the number of bytes in early messages that wait for their turn.
    pub fn early_bytes(&self) -> usize {
        self.receiver.early_bytes()
    }

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
            self.sender.rtt().sampled().into_iter().for_each(|rtt| self.settling.handle_round_trip(now, rtt));
            let ack = Ack { bytes: acked.bytes, sample: acked.sample, smoothed_rtt, is_limited };
            self.controller.on_ack(now, ack);
        }
    }

    /// Hands a message out in its turn. A message before it may have closed the channel: then nothing follows.
    fn deliver(&mut self, now: Instant, message: Message) {
        match self.state {
            State::Closed => return,
            // An agent that knows why there is no key closes the session. This one continues.
            State::Refusing { .. } => return self.refuse(),
            _ => self.stats.bytes_received += message.payload.len() as u64,
        }
        let taken = match message.payload_type {
            PayloadType::HandshakeRequest => self.handle_handshake_request(now, &message.payload),
            PayloadType::HandshakeComplete => self.handle_handshake_complete(now, &message.payload),
            PayloadType::EncryptionChallengeRequest => self.handle_challenge(&message.payload),
            PayloadType::Output | PayloadType::Stderr | PayloadType::ExitCode => {
                return self.handle_output(message);
            }
            PayloadType::Flag => {
                self.settle();
                if Flag::from_payload(&message.payload) == Some(Flag::ConnectToPortError) {
                    self.events.push_back(Event::PortRefused);
                }
                return;
            }
            other => return tracing::debug!(payload_type = u32::from(other), "ignored a payload"),
        };
        match taken {
            Ok(()) => {}
            Err(error @ (HandshakeError::NoDataKey | HandshakeError::TooLarge)) => {
                self.close(CloseReason::Handshake(error.to_string()));
            }
            Err(error) => {
                tracing::warn!(%error, payload_type = u32::from(message.payload_type), "dropped a payload");
            }
        }
    }

    fn handle_output(&mut self, message: Message) {
        match self.state {
            State::Waiting { .. } if message.payload_type == PayloadType::Output => {
                self.become_ready(SessionKind::Shell);
            }
            // Its session runs: it takes input, too.
            State::Ready => self.settle(),
            _ => return tracing::debug!("dropped output of a session that is not ready"),
        }
        self.handshake.finish();
        if let Some(size) = self.early_size.take() {
            self.outgoing.push(Input::Size(size));
        }
        self.has_output = true;
        let bytes = match self.encryption.open(message.payload) {
            Ok(bytes) => bytes,
            Err(error) => return self.close(CloseReason::Encryption(error.to_string())),
        };
        self.events.push_back(match message.payload_type {
            PayloadType::Stderr => Event::Stderr(bytes),
            PayloadType::ExitCode => Event::ExitCode { code: payload::exit_code(&bytes), text: bytes },
            _ => Event::Output(bytes),
        });
    }

    fn handle_handshake_request(&mut self, now: Instant, body: &[u8]) -> Result<(), HandshakeError> {
        let step = self.handshake.handle_request(body)?;
        // An agent that was silent for so long that its session was taken for a plain shell.
        if self.state == State::Ready && !self.is_plain_shell(&step) {
            self.close(CloseReason::Handshake(TOO_LATE.into()));
            return Ok(());
        }
        match step {
            Step::NeedDataKey(request) => {
                self.encryption.request_key();
                self.events.push_back(Event::DataKeyNeeded(request));
            }
            Step::Respond(response) => {
                self.outgoing.push_answer(PayloadType::HandshakeResponse, response);
            }
        }
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Handshaking { until: now + self.config.handshake_timeout };
        }
        Ok(())
    }

    fn is_plain_shell(&self, step: &Step) -> bool {
        let is_shell = matches!(self.handshake.session(), Some(SessionKind::Shell | SessionKind::Command));
        is_shell && matches!(step, Step::Respond(_))
    }

    fn handle_handshake_complete(&mut self, now: Instant, body: &[u8]) -> Result<(), HandshakeError> {
        let text = self.handshake.handle_complete(body)?;
        if self.encryption.is_plain() && text.contains(ENCRYPTED) {
            self.close(CloseReason::Handshake(NOT_ENCRYPTED.into()));
            return Ok(());
        }
        if !text.is_empty() {
            let is_unprotected = self.encryption.is_encrypted() && text != ENCRYPTED;
            self.events.push_back(Event::Notice { text: self.outside_text(text), is_unprotected });
        }
        self.settling.handle_complete(now, self.sender.rtt().sampled());
        match self.handshake.session().cloned() {
            Some(kind) => self.become_ready(kind),
            None => self.close(CloseReason::UnknownSession),
        }
        Ok(())
    }

    /// The agent has shown that it listens.
    fn settle(&mut self) {
        let is_over = self.settling.release();
        self.handle_listening(is_over);
    }

    pub(super) fn handle_listening(&mut self, repeats: bool) {
        self.sender.set_hasty(self.settling.is_hasty());
        if repeats {
            self.events.push_back(Event::Listening);
        }
    }

    fn handle_challenge(&mut self, body: &[u8]) -> Result<(), HandshakeError> {
        let challenge = self.handshake.handle_challenge(body)?;
        match self.encryption.answer(&challenge) {
            Ok(answer) => self.outgoing.push_answer(PayloadType::EncryptionChallengeResponse, answer),
            Err(error) => self.close(CloseReason::Encryption(error.to_string())),
        }
        Ok(())
    }

    /// Text of an encrypted session that is not encrypted itself: it must not control the terminal, nor begin a line.
    pub(super) fn outside_text(&self, text: String) -> String {
        if self.encryption.is_plain() { text } else { escaped(text.trim_end_matches(['\r', '\n'])) }
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
            self.repeats_size = kind == SessionKind::Shell;
            self.events.push_back(Event::Ready(kind));
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.encryption.close();
            self.acks.release();
            self.events.push_back(Event::Closed(reason));
        }
    }

    /// Ends a session for which there is no data key.
    pub(super) fn refuse(&mut self) {
        if let State::Refusing { reason, .. } = &mut self.state {
            let reason = std::mem::take(reason);
            self.close(CloseReason::Encryption(reason));
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.stats.pauses += 1;
        self.controller.on_pause();
        self.paused.get_or_insert(now);
        if !self.pause_is_reported {
            self.pause_notice_at.get_or_insert(now + PAUSE_GRACE);
        }
    }

    /// Reports a pause that has lasted.
    pub(super) fn report_pause(&mut self, now: Instant) {
        if self.pause_notice_at.is_some_and(|at| at <= now) {
            self.pause_notice_at = None;
            self.pause_is_reported = true;
            self.events.push_back(Event::Paused(true));
        }
    }

    /// The end of a pause, by its own message, or by an acknowledgement or data: a client that waited for
    /// `start_publication` alone is known to have hung.
    pub(super) fn unpause(&mut self) {
        self.paused = None;
        self.pause_notice_at = None;
        if std::mem::take(&mut self.pause_is_reported) {
            self.events.push_back(Event::Paused(false));
        }
    }
}

/// Time that a pause lasts before it is reported: an agent whose session ends disconnects some 50 ms before the
/// service closes the channel.
const PAUSE_GRACE: Duration = Duration::from_secs(1);
/// The agent's message to the user of an encrypted session (agent source, `buildHandshakeCompletePayload`).
const ENCRYPTED: &str = "This session is encrypted using AWS KMS.";
const NOT_ENCRYPTED: &str = "the agent's message claims that the session is encrypted, but it is not";
const TOO_LATE: &str = "the agent's handshake came after the session had begun";
