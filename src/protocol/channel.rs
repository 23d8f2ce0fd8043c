//! One data channel: the composition of envelope, handshake, delivery, pacing and congestion control.
//!
//! ```text
//!            handle_open          first data message             handshake complete
//!   Opening ────────────▶ Waiting ───────────────────▶ Handshaking ───────────────▶ Ready ──▶ Closed
//!                            └── output without a handshake: a plain shell ──────────▲
//! ```
//!
//! A lost socket does not change the state: [`Channel::handle_lost`] stops transmissions, the next
//! [`Channel::handle_open`] sends everything outstanding again, and numbering goes on.
//!
//! Nothing but handshake messages is sent before `Ready`: the agent would acknowledge other input and ignore it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::acks::Acks;
use super::agent_version::Capabilities;
use super::api::{CloseReason, Config, Event, Input, Stats, Transmit};
use super::cipher::{self, Cipher, DataKey};
use super::congestion::{self, Ack, AckClocked, Controller};
use super::handshake::{self, Handshake, SessionKind, Step};
use super::message::{ACK_FLAGS, Message, MessageType, PAYLOAD_OFFSET, PayloadType};
use super::outgoing::{Next, Outgoing};
use super::pacing::Pacer;
use super::payload::{self, Flag, OpenDataChannel};
use super::recv::{Receiver, Verdict};
use super::send::Sender;
use super::silence::{Break, Silence};

#[derive(Debug, PartialEq, Eq)]
enum State {
    Opening,
    Waiting { until: Instant },
    Handshaking { until: Instant },
    Ready,
    Closed,
}

/// The client's end of a data channel.
#[derive(Debug)]
pub struct Channel {
    config: Config,
    client_id: Uuid,
    random: fastrand::Rng,
    epoch: Option<(Instant, u64)>,
    state: State,
    is_connected: bool,
    /// While the agent is paused: when a message last went out in spite of that.
    paused: Option<Instant>,
    /// What is known about an agent that has said nothing yet.
    silence: Silence,
    /// Whether the session was told that nothing is acknowledged.
    is_stalled: bool,
    handshake: Handshake,
    cipher: Option<Cipher>,
    sender: Sender,
    receiver: Receiver,
    controller: Box<dyn Controller>,
    /// Unacknowledged payload bytes at most, the lost included.
    max_outstanding: usize,
    pacer: Pacer,
    opening: Option<String>,
    acks: Acks,
    outgoing: Outgoing,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Channel {
    /// A channel that has not been opened. `seed` gives message ids, the client id and nonce prefixes.
    pub fn new(config: Config, seed: u64) -> Channel {
        let mut random = fastrand::Rng::with_seed(seed);
        Channel {
            client_id: random_id(&mut random),
            random,
            epoch: None,
            state: State::Opening,
            is_connected: false,
            paused: None,
            silence: Silence::default(),
            is_stalled: false,
            handshake: Handshake::new(config.client_version.clone()),
            cipher: None,
            sender: Sender::default(),
            receiver: Receiver::default(),
            controller: Box::new(AckClocked::new(config.max_window, config.max_payload)),
            max_outstanding: congestion::limit(config.max_window, config.max_payload),
            pacer: Pacer::new(config.message_rate),
            opening: None,
            acks: Acks::default(),
            outgoing: Outgoing::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
        }
    }

    /// A websocket is open, at `unix_ms` milliseconds since 1970: presents the token and sends everything
    /// outstanding again.
    pub fn handle_open(&mut self, now: Instant, unix_ms: u64, token: &str) {
        self.epoch = Some((now, unix_ms));
        self.opening = Some(
            OpenDataChannel {
                message_schema_version: "1.0",
                request_id: random_id(&mut self.random),
                token_value: token,
                client_id: self.client_id,
                client_version: &self.config.client_version,
            }
            .to_json(),
        );
        self.is_connected = true;
        // Whether the agent is there, a new socket tells anew.
        self.unpause();
        self.acks.handle_reopen();
        self.sender.handle_reopen(now);
        self.controller.on_reopen();
        if self.state == State::Opening {
            self.state = State::Waiting { until: now + self.config.handshake_timeout };
            self.silence = Silence::Since(now);
        }
    }

    /// The websocket is gone.
    pub fn handle_lost(&mut self) {
        self.is_connected = false;
        self.opening = None;
        self.acks.handle_lost();
    }

    /// A binary frame has arrived. One that cannot be read is counted and dropped.
    pub fn handle_frame(&mut self, now: Instant, frame: Bytes) {
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                self.stats.undecodable += 1;
                return tracing::debug!(%error, "dropped a frame");
            }
        };
        if self.state == State::Closed {
            return;
        }
        match message.message_type {
            MessageType::OutputStreamData => self.handle_data(now, message),
            MessageType::Acknowledge => self.handle_ack(now, &message.payload),
            MessageType::ChannelClosed => {
                self.close(CloseReason::ByService(payload::closed_output(&message.payload)));
            }
            MessageType::PausePublication => self.pause(now),
            MessageType::StartPublication => self.unpause(),
            MessageType::InputStreamData | MessageType::Other => {
                tracing::debug!(id = %message.id, "ignored a message that is not for a client");
            }
        }
    }

    /// A deadline of [`Channel::poll_timeout`] has come. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.is_connected || self.state == State::Closed {
            return;
        }
        match self.state {
            State::Waiting { until } | State::Handshaking { until } if until <= now => {
                return self.close(CloseReason::HandshakeTimeout(self.config.handshake_timeout));
            }
            _ => {}
        }
        self.break_silence(now);
        let silence = self.sender.silence(now);
        if silence >= self.config.give_up_after {
            return self.close(CloseReason::GaveUp(silence));
        }
        if silence >= STALL_NOTICE && !std::mem::replace(&mut self.is_stalled, true) {
            self.events.push_back(Event::Stalled(silence));
        }
        if let Some(sent_at) = self.sender.handle_timeout(now) {
            self.controller.on_loss(now, sent_at);
        }
        if cfg!(debug_assertions) {
            self.sender.assert_invariants();
        }
    }

    /// The data key that [`Event::DataKeyNeeded`] asked for, or why there is none; the reason goes to the agent.
    pub fn handle_data_key(&mut self, result: Result<DataKey, String>) {
        let prefix = self.random.u32(..).to_be_bytes();
        if let Some((response, cipher)) = self.handshake.handle_data_key(result, prefix) {
            self.cipher = cipher;
            self.outgoing.push_answer(PayloadType::HandshakeResponse, response);
        }
    }

    /// Takes something to send. Ask [`Channel::wants_input`] first: what is sent regardless is kept, but bounded only
    /// by the caller.
    pub fn send(&mut self, input: Input) {
        self.outgoing.push(input);
    }

    /// Whether more user data should be read now.
    pub fn wants_input(&self) -> bool {
        self.state == State::Ready && self.outgoing.bytes() < self.input_limit()
    }

    /// How many bytes may be given to [`Channel::send`] before [`Channel::wants_input`] turns false.
    pub fn input_room(&self) -> usize {
        if self.wants_input() { self.input_limit() - self.outgoing.bytes() } else { 0 }
    }

    /// How many bytes of input are held at most while they wait to be sent: two messages, so that what is decided late
    /// (whose turn it is, a keystroke) is behind no more than that, and the next one is full. Without a limit to the
    /// rate nothing waits here for long, and larger pieces cost less.
    pub fn input_limit(&self) -> usize {
        let two_messages = 2 * self.config.max_payload;
        if self.config.message_rate == 0 { two_messages.max(UNPACED_PENDING) } else { two_messages }
    }

    /// The next frame for the websocket; acknowledgements first, then lost messages, then new data.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if !self.is_connected {
            return None;
        }
        if let Some(opening) = self.opening.take() {
            return Some(Transmit::Text(opening));
        }
        if let Some(ack) = self.acks.pop() {
            return Some(Transmit::Binary(ack));
        }
        if self.state == State::Closed || !self.may_send(now) {
            return None;
        }
        let frame = match self.may_resend() {
            true => self.sender.poll_lost(now)?,
            false => self.next_message(now)?,
        };
        self.pacer.take(now);
        if let Some(last) = &mut self.paused {
            *last = now;
        }
        Some(Transmit::Binary(frame))
    }

    /// Whether frames should be read now: not while the acknowledgements of earlier ones cannot be written.
    pub fn wants_frames(&self) -> bool {
        !self.acks.is_full()
    }

    /// The next event for the session.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Channel::handle_timeout`], or [`Channel::poll_transmit`] again, is due, and why.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        if !self.is_connected || self.state == State::Closed {
            return None;
        }
        let handshake = match self.state {
            State::Waiting { until } => match self.silence.ends_at() {
                Some(at) => Some((at.min(until), "silent agent")),
                None => Some((until, "first message")),
            },
            State::Handshaking { until } => Some((until, "handshake")),
            _ => None,
        };
        let give_up = self.sender.silent_since().map(|at| {
            let (wait, reason) = match self.is_stalled {
                false => (STALL_NOTICE.min(self.config.give_up_after), "stall notice"),
                true => (self.config.give_up_after, "giving up"),
            };
            (at + wait, reason)
        });
        let delivery = self.sender.poll_timeout();
        let pacing = self.is_sending().then(|| self.pacer.next_at()).flatten().map(|at| (at, "pacing"));
        let probe = match self.paused {
            Some(_) if self.is_sending() => self.probe_at().map(|at| (at, "probe of a paused agent")),
            _ => None,
        };
        let send = if self.paused.is_some() { probe } else { pacing };
        [handshake, give_up, delivery, send].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// What the agent can do; nothing before its handshake.
    pub fn capabilities(&self) -> Capabilities {
        self.handshake.capabilities()
    }

    /// Whether everything given to [`Channel::send`] was sent and acknowledged.
    pub fn is_drained(&self) -> bool {
        !self.outgoing.has_answers() && !self.outgoing.has_input() && self.sender.outstanding_messages() == 0
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        Stats {
            messages_resent: self.sender.resent(),
            outstanding_bytes: self.sender.outstanding_bytes(),
            window: self.controller.window(),
            rtt: self.sender.rtt().smoothed(),
            ..self.stats
        }
    }

    fn handle_data(&mut self, now: Instant, message: Message) {
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

    fn handle_ack(&mut self, now: Instant, body: &[u8]) {
        let number = match payload::acknowledged_sequence(body) {
            Ok(number) => number,
            Err(error) => return tracing::debug!(%error, "dropped an acknowledgement"),
        };
        let is_limited = self.sender.in_flight_bytes() + self.config.max_payload > self.controller.window();
        if let Some(acked) = self.sender.handle_ack(now, number) {
            self.unpause();
            self.is_stalled = false;
            self.silence.handle_ack(now);
            let smoothed_rtt = self.sender.rtt().smoothed();
            let ack = Ack { bytes: acked.bytes, sample: acked.sample, smoothed_rtt, is_limited };
            self.controller.on_ack(now, ack);
        }
    }

    fn deliver(&mut self, now: Instant, message: Message) {
        self.stats.bytes_received += message.payload.len() as u64;
        let delivered = match message.payload_type {
            PayloadType::HandshakeRequest => self.handle_handshake_request(now, &message.payload),
            PayloadType::HandshakeComplete => self.handle_handshake_complete(&message.payload),
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

    fn handle_handshake_complete(&mut self, body: &[u8]) -> Result<(), payload::PayloadError> {
        let words = handshake::customer_message(body)?;
        if !words.is_empty() {
            self.events.push_back(Event::Notice(words));
        }
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

    fn break_silence(&mut self, now: Instant) {
        if !matches!(self.state, State::Waiting { .. }) {
            return;
        }
        match self.silence.handle_timeout(now) {
            Some(Break::Ask) => {
                self.outgoing.push_answer(PayloadType::Size, self.config.initial_size.payload());
            }
            Some(Break::NoHandshake) => self.become_ready(SessionKind::Shell),
            None => {}
        }
    }

    fn become_ready(&mut self, kind: SessionKind) {
        if self.state != State::Ready {
            self.state = State::Ready;
            self.events.push_back(Event::Ready(kind));
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.events.push_back(Event::Closed(reason));
        }
    }

    fn pause(&mut self, now: Instant) {
        self.controller.on_pause();
        if self.paused.is_none() {
            self.paused = Some(now);
            self.events.push_back(Event::Paused(true));
        }
    }

    /// The end of a pause, by its own message, or by an acknowledgement or data: a client that waited for
    /// `start_publication` alone is known to have hung.
    fn unpause(&mut self) {
        if self.paused.take().is_some() {
            self.events.push_back(Event::Paused(false));
        }
    }

    /// Whether there is anything that waits for its turn, window permitting.
    fn is_sending(&self) -> bool {
        self.may_resend() || (self.has_new() && self.may_send_new())
    }

    fn has_new(&self) -> bool {
        self.outgoing.has_answers() || (self.state == State::Ready && self.outgoing.has_input())
    }

    fn may_resend(&self) -> bool {
        self.sender.next_lost().is_some_and(|size| size == 0 || self.fits_window(size))
    }

    fn may_send_new(&self) -> bool {
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

    fn may_send(&self, now: Instant) -> bool {
        self.pacer.is_ready(now) && (self.paused.is_none() || self.probe_at().is_some_and(|at| at <= now))
    }

    /// While paused, one message a while: a lost `start_publication` must not hang the session.
    fn probe_at(&self) -> Option<Instant> {
        self.paused.map(|last| last + PAUSE_PROBE)
    }

    fn next_message(&mut self, now: Instant) -> Option<Bytes> {
        if !self.has_new() || !self.may_send_new() {
            return None;
        }
        let overhead = if self.cipher.is_some() { cipher::OVERHEAD } else { 0 };
        let limit = self.config.max_payload.saturating_sub(overhead).max(1);
        let (payload_type, body) = match self.outgoing.pop(limit, self.state == State::Ready)? {
            Next::Data(body) => (PayloadType::Output, self.encrypted(body)?),
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
        match self.cipher.as_mut().map(|cipher| cipher.encrypt(&body)) {
            None => Some(body),
            Some(Ok(sealed)) => Some(sealed),
            Some(Err(error)) => {
                self.close(CloseReason::Encryption(error.to_string()));
                None
            }
        }
    }

    fn acknowledge(&mut self, now: Instant, message: &Message) -> Bytes {
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

fn random_id(random: &mut fastrand::Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

/// User data waiting to be cut where the rate has no limit, in bytes, at least.
const UNPACED_PENDING: usize = 8 << 10;
/// Messages unacknowledged at most; beyond 10,000 agents are known to stall for good.
const MAX_OUTSTANDING: usize = 1_000;
/// How far numbers may run ahead of the oldest unacknowledged message; agents hold 100,000 early ones.
const MAX_SPAN: usize = 8_000;
/// How often one message is tried while the agent is said to be away.
const PAUSE_PROBE: Duration = Duration::from_secs(2);
/// When a silence is worth telling.
const STALL_NOTICE: Duration = Duration::from_secs(15);
