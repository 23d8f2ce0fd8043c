//! One data channel: the composition of envelope, handshake, delivery, pacing and congestion control.
//!
//! ```text
//!            handle_open          first data message             handshake complete
//!   Opening ────────────▶ Waiting ───────────────────▶ Handshaking ───────────────▶ Ready ──▶ Closed
//!                            └── output without a handshake: a plain shell ──────────▲
//! ```
//!
//! A lost socket does not change the state: [`Channel::handle_lost`] stops transmissions, the next
//! [`Channel::handle_open`] sends everything outstanding again, and numbering continues.
//!
//! Before `Ready` only handshake messages are sent, and one terminal size, which asks a silent agent whether it runs a
//! session (`silent_agent`): the agent would acknowledge other input and ignore it. Nor is anything delivered before:
//! agents send nothing then.
//!
//! Each message of the handshake counts once, in its turn (`handshake`); later ones are acknowledged and ignored. Where the
//! agent asks for encryption, `encryption` decides what is sent and delivered, and no message turns it off. A data key
//! that cannot be obtained leads to `Refusing`: the agent is sent the reason, and has a moment to close the session with
//! it.

mod deadlines;
mod incoming;
mod sending;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::acks::Acks;
use super::agent_version::Capabilities;
use super::api::{CloseReason, Config, Event, Input, Stats};
use super::cipher::DataKey;
use super::congestion::{self, Controller};
use super::encryption::Encryption;
use super::handshake::Handshake;
use super::message::{Message, MessageType, PayloadType};
use super::outgoing::Outgoing;
use super::pacing::Pacer;
use super::payload::{self, OpenDataChannel, TerminalSize};
use super::recv::Receiver;
use super::send::Sender;
use super::settling::Settling;
use super::silent_agent::SilentAgent;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Opening,
    Waiting {
        until: Instant,
    },
    Handshaking {
        until: Instant,
    },
    /// There is no data key: the agent is sent the reason, and closes the session with it.
    Refusing {
        until: Instant,
        reason: String,
    },
    Ready,
    Closed,
}

/// The client's end of a data channel.
///
/// A `Channel` owns no socket, clock or task: its driver moves bytes and time. Its methods are of three kinds.
///
/// **Input** is passed to `handle_*`: [`handle_open`](Self::handle_open) when a websocket is open,
/// [`handle_frame`](Self::handle_frame) for each binary frame on it, [`handle_lost`](Self::handle_lost) when it is gone,
/// [`handle_timeout`](Self::handle_timeout) when a deadline has come, [`handle_data_key`](Self::handle_data_key) to
/// answer [`Event::DataKeyNeeded`]. Open and lost alternate; there may be any number of websockets, one after another.
/// Frames and deadlines outside of an open websocket do no harm. `now` never goes back.
///
/// **What to do** is asked with `poll_*`, after every call above and after [`send`](Self::send), until each gives
/// `None`, in this order:
///
/// 1. [`poll_event`](Self::poll_event): events for the session. Events wait without harm, but frames should not be
///    given to the channel while they do, since nothing else bounds them.
/// 2. [`poll_transmit`](Self::poll_transmit): the next frame, asked for only when the websocket has room: what is
///    given is taken for sent. Text first, which opens the channel on this websocket.
/// 3. [`poll_timeout`](Self::poll_timeout): when to call `handle_timeout` and then `poll_transmit` again, at the
///    latest. It changes with every other call. What is due may be a transmission that the rate held back.
///
/// **What the session does** is [`send`](Self::send), as long as [`wants_input`](Self::wants_input); the rest are
/// questions.
///
/// It lasts until [`Event::Closed`], after which there are no events, and `poll_transmit` returns what acknowledgements
/// are left. A channel without a websocket waits as long as it is left to: giving up is the caller's decision.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use bytes::Bytes;
/// use session_manager_plugin::protocol::message::{Message, MessageType, PayloadType};
/// use session_manager_plugin::protocol::{Channel, Config, Event, Input, SessionKind, Transmit};
///
/// let mut now = Instant::now();
/// let mut channel = Channel::new(Config::default(), 7);
///
/// // A websocket is open: the first frame presents the token.
/// channel.handle_open(now, 1_700_000_000_000, "the token of StartSession");
/// let Some(Transmit::Text(opening)) = channel.poll_transmit(now) else { panic!() };
/// assert!(opening.contains("the token of StartSession"));
/// assert_eq!(channel.poll_transmit(now), None);
///
/// // The agent of a plain shell begins with output.
/// let prompt = Message {
///     message_type: MessageType::OutputStreamData,
///     created_ms: 1_700_000_000_000,
///     sequence: 0,
///     flags: 1,
///     id: uuid::Uuid::nil(),
///     payload_type: PayloadType::Output,
///     payload: Bytes::from_static(b"$ "),
/// };
/// now += Duration::from_millis(20);
/// channel.handle_frame(now, prompt.encode());
/// assert!(matches!(channel.poll_event(), Some(Event::Ready(SessionKind::Shell))));
/// assert!(matches!(channel.poll_event(), Some(Event::Output(bytes)) if bytes == "$ "));
///
/// // It is acknowledged, and input may follow.
/// assert!(channel.wants_input());
/// channel.send(Input::Bytes(Bytes::from_static(b"ls\r")));
/// let mut sent = Vec::new();
/// while let Some(Transmit::Binary(frame)) = channel.poll_transmit(now) {
///     sent.push(Message::decode(frame).unwrap().message_type);
/// }
/// assert_eq!(sent, [MessageType::Acknowledge, MessageType::InputStreamData]);
///
/// // Without an acknowledgement it is sent again when its time has come.
/// let (at, _reason) = channel.poll_timeout().unwrap();
/// channel.handle_timeout(at);
/// assert!(channel.poll_transmit(at).is_some() && !channel.is_drained());
/// ```
#[derive(Debug)]
pub struct Channel {
    config: Config,
    client_id: Uuid,
    random: fastrand::Rng,
    epoch: Option<(Instant, u64)>,
    state: State,
    is_connected: bool,
    /// Set while the agent is paused: when the pause began, or when the last probe was sent.
    paused: Option<Instant>,
    /// Time at which it is reported that the agent is not connected.
    pause_notice_at: Option<Instant>,
    /// It was reported that the agent is not connected.
    pause_is_reported: bool,
    /// True if a size that was sent before the agent's first output is sent again: the agent may have ignored
    /// it.
    repeats_size: bool,
    early_size: Option<TerminalSize>,
    has_output: bool,
    /// State of an agent that has sent nothing yet.
    silent_agent: SilentAgent,
    settling: Settling,
    /// True if it was reported that nothing is acknowledged.
    is_stalled: bool,
    handshake: Handshake,
    /// The part of the handshake's time that is left, while there is no websocket.
    time_left: Option<Duration>,
    encryption: Encryption,
    sender: Sender,
    receiver: Receiver,
    controller: Controller,
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
    /// A channel that has not been opened. Message ids, the client id and nonce prefixes come from `seed`.
    pub fn new(config: Config, seed: u64) -> Channel {
        let mut random = fastrand::Rng::with_seed(seed);
        Channel {
            client_id: random_id(&mut random),
            random,
            epoch: None,
            state: State::Opening,
            is_connected: false,
            paused: None,
            pause_notice_at: None,
            pause_is_reported: false,
            repeats_size: false,
            early_size: None,
            has_output: false,
            silent_agent: SilentAgent::default(),
            settling: Settling::default(),
            is_stalled: false,
            handshake: Handshake::new(config.client_version.clone()),
            time_left: None,
            encryption: Encryption::default(),
            sender: Sender::default(),
            receiver: Receiver::default(),
            controller: Controller::new(config.max_window, config.max_payload),
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
        self.stats.websockets += 1;
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
        // A new socket tells afresh whether the agent is connected: an earlier pause is forgotten.
        self.paused = None;
        self.pause_notice_at = None;
        self.acks.handle_reopen();
        self.sender.handle_reopen(now);
        self.controller.on_reopen();
        // The time without a socket is not the agent's.
        let until = now + self.time_left.take().unwrap_or(self.config.handshake_timeout);
        match self.state {
            State::Opening | State::Waiting { .. } => self.state = State::Waiting { until },
            State::Handshaking { .. } => self.state = State::Handshaking { until },
            State::Refusing { .. } | State::Ready | State::Closed => {}
        }
        self.silent_agent.handle_open(now);
    }

    /// The websocket is gone.
    pub fn handle_lost(&mut self, now: Instant) {
        self.is_connected = false;
        self.opening = None;
        self.acks.handle_lost();
        match self.state {
            State::Waiting { until } | State::Handshaking { until } => {
                self.time_left = Some(until.saturating_duration_since(now));
            }
            State::Refusing { .. } => self.refuse(),
            State::Opening | State::Ready | State::Closed => {}
        }
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
        trace_message("received", &message);
        if self.state == State::Closed {
            return;
        }
        match message.message_type {
            MessageType::OutputStreamData => self.handle_data(now, message),
            MessageType::Acknowledge => self.handle_ack(now, &message.payload),
            MessageType::ChannelClosed => {
                let output = payload::closed_output(&message.payload);
                self.close(CloseReason::ByService(self.outside_text(output)));
            }
            MessageType::PausePublication => self.pause(now),
            MessageType::StartPublication => self.unpause(),
            MessageType::InputStreamData | MessageType::Other => {
                tracing::debug!(id = %message.id, "ignored a message that is not for a client");
            }
        }
    }

    /// The data key that [`Event::DataKeyNeeded`] asked for, or why there is none: the agent is sent the reason, and the
    /// session ends with it. Without such an event nothing happens.
    pub fn handle_data_key(&mut self, now: Instant, result: Result<DataKey, String>) {
        if self.state == State::Closed {
            return;
        }
        let prefix = self.random.u32(..).to_be_bytes();
        let (key, reason) = match result {
            Ok(key) => (Ok(key), None),
            Err(reason) => (Err(()), Some(reason)),
        };
        let key = key.map_err(|()| reason.as_deref().unwrap_or_default());
        let Some((response, cipher)) = self.handshake.handle_data_key(key, prefix) else { return };
        self.outgoing.push_answer(PayloadType::HandshakeResponse, response);
        if let Some(cipher) = cipher {
            self.encryption.handle_key(cipher);
        } else {
            self.state = State::Refusing { until: now + REFUSAL_TIMEOUT, reason: reason.unwrap_or_default() };
            // The agent cannot be sent the reason without a websocket, and perhaps there will be none.
            if !self.is_connected {
                self.refuse();
            }
        }
    }

    /// Takes something to send. Ask [`Channel::wants_input`] first: what is sent regardless is kept, but bounded only
    /// by the caller.
    pub fn send(&mut self, input: Input) {
        if let Input::Size(size) = input
            && self.repeats_size
            && !self.has_output
        {
            self.early_size = Some(size);
        }
        self.outgoing.push(input);
    }

    /// Returns whether more user data should be read now.
    pub fn wants_input(&self) -> bool {
        self.state == State::Ready && self.outgoing.bytes() < self.input_limit()
    }

    /// Returns the number of bytes that [`Channel::send`] takes before [`Channel::wants_input`] turns false.
    pub fn input_room(&self) -> usize {
        if self.wants_input() { self.input_limit() - self.outgoing.bytes() } else { 0 }
    }

    /// Returns whether the agent may ignore input, which is for a moment after its handshake. [`Input::Tentative`] need not wait.
    pub fn is_settling(&self) -> bool {
        self.settling.is_under_way()
    }

    /// Returns whether all input except [`Input::Tentative`] waits in the channel until the agent has had its time.
    pub fn is_held(&self) -> bool {
        self.settling.is_held()
    }

    /// Returns the largest payload of one message, in bytes.
    pub fn max_payload(&self) -> usize {
        self.config.max_payload
    }

    /// Returns the largest number of bytes of input that may wait to be sent: two messages, so that what is
    /// decided late (whose turn it is, a keystroke) is behind no more than that, and the next one is full.
    /// Without a limit to the rate nothing waits here for long, and larger pieces cost less.
    pub fn input_limit(&self) -> usize {
        let two_messages = 2 * self.config.max_payload;
        if self.config.message_rate == 0 { two_messages.max(UNPACED_PENDING) } else { two_messages }
    }

    /// Returns whether frames should be read now: not while the acknowledgements of earlier ones cannot be
    /// written.
    pub fn wants_frames(&self) -> bool {
        !self.acks.is_full()
    }

    /// The next event for the session.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the capabilities of the agent; none before its handshake.
    pub fn capabilities(&self) -> Capabilities {
        self.handshake.capabilities()
    }

    /// Returns whether the service has paused the sending to the agent.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Returns whether everything given to [`Channel::send`] was sent and acknowledged.
    pub fn is_drained(&self) -> bool {
        self.is_sent() && self.sender.outstanding_messages() == 0
    }

    /// Returns the number of messages acknowledged without a gap.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.sender.acknowledged()
    }

    /// Returns whether everything given to [`Channel::send`] was sent, acknowledged or not.
    pub fn is_sent(&self) -> bool {
        !self.outgoing.has_answers() && !self.outgoing.has_input()
    }

    /// Returns whether an answer of the agent or of the service is due: to the opening, to data, to input that waits. Not
    /// while the agent is known to be away.
    pub fn awaits_answer(&self) -> bool {
        match self.state {
            State::Opening | State::Closed => false,
            State::Waiting { .. } | State::Handshaking { .. } | State::Refusing { .. } => true,
            State::Ready => {
                let has_more = self.outgoing.has_input() || self.outgoing.has_answers();
                self.paused.is_none() && (has_more || self.sender.outstanding_messages() > 0)
            }
        }
    }

    /// Returns the smoothed round-trip time; zero before the first measurement.
    pub fn rtt(&self) -> Duration {
        self.sender.rtt().smoothed()
    }

    /// Bytes of memory in which frames are kept: early ones, acknowledgements, input and what is unacknowledged. Events are
    /// not among them. For tests.
    #[doc(hidden)]
    pub fn held_bytes(&self) -> usize {
        self.receiver.held_bytes()
            + self.acks.held_bytes()
            + self.outgoing.held_bytes()
            + self.sender.held_bytes()
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
}

/// Logs a message without its payload, which is the user's.
fn trace_message(direction: &'static str, message: &Message) {
    tracing::trace!(
        kind = message.message_type.as_str(),
        payload_type = u32::from(message.payload_type),
        number = message.sequence,
        length = message.payload.len(),
        "{direction}"
    );
}

fn random_id(random: &mut fastrand::Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

/// User data waiting to be cut where the rate has no limit, in bytes, at least.
const UNPACED_PENDING: usize = 8 << 10;
/// Time that the agent may take to close a session for which there is no data key.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
