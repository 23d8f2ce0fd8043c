//! A data channel over one websocket after another, without the websockets: all that a link decides.
//!
//! It composes the [`Channel`], [`Reconnect`] (when to open) and, while a websocket is open, its [`Liveness`]. Whoever
//! owns sockets and clocks gives it what comes (`handle_*`), asks what to do (`poll_*`) until nothing is left, and
//! calls again at [`Connection::poll_timeout`].

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use super::liveness::Liveness;
use super::reconnect::{Attempt, Reconnect};
use super::{Config, LinkEvent, OpenFailure};
use crate::protocol::{Channel, Transmit};
use crate::wire_log::Recorder;

/// The state of a link.
#[derive(Debug)]
pub(super) struct Connection {
    config: Config,
    channel: Channel,
    reconnect: Reconnect,
    /// `Some` while a websocket is open.
    liveness: Option<Liveness>,
    events: VecDeque<LinkEvent>,
    /// The channel had no room for input since the last [`LinkEvent::WantsInput`].
    input_waits: bool,
    recorder: Option<Recorder>,
}

impl Connection {
    /// A link's state at the start: the first attempt, to `host`, is due at once.
    pub(super) fn new(now: Instant, config: Config, host: String, seed: u64) -> Connection {
        Connection {
            channel: Channel::new(config.channel.clone(), seed),
            reconnect: Reconnect::new(now, &config, host, seed),
            liveness: None,
            events: VecDeque::new(),
            input_waits: false,
            recorder: config.recording.as_ref().map(|recording| recording.recorder()),
            config,
        }
    }

    /// The channel, for its counters and state.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The channel, for the session's input.
    pub(super) fn channel_mut(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Whether a websocket is open.
    pub(super) fn is_open(&self) -> bool {
        self.liveness.is_some()
    }

    /// Whether an attempt is under way.
    pub(super) fn is_opening(&self) -> bool {
        self.reconnect.is_opening()
    }

    /// The next event; with `deliver` false none of the channel's.
    #[must_use]
    pub(super) fn poll_event(&mut self, deliver: bool) -> Option<LinkEvent> {
        self.input_waits |= !self.channel.wants_input();
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if deliver && let Some(event) = self.channel.poll_event() {
            return Some(LinkEvent::Channel(event));
        }
        // Not for each message, but before there is nothing left to send.
        if self.input_waits && self.channel.input_room() >= self.channel.input_limit() / 2 {
            self.input_waits = false;
            return Some(LinkEvent::WantsInput);
        }
        None
    }

    /// The attempt to open a websocket that is to be made now.
    #[must_use]
    pub(super) fn poll_attempt(&mut self, now: Instant) -> Option<Attempt> {
        self.reconnect.poll_attempt(now)
    }

    /// The attempt has opened a websocket, on which `token` is presented; `warning` is a problem that
    /// did not prevent it.
    pub(super) fn handle_opened(
        &mut self,
        now: Instant,
        wall: SystemTime,
        token: &str,
        warning: Option<String>,
    ) {
        self.events.extend(warning.map(LinkEvent::Warning));
        let unix_ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.channel.handle_open(now, unix_ms as u64, token);
        let interval = self.config.ping_interval;
        let first_ping = self.reconnect.handle_opened(now).unwrap_or(now + interval);
        self.liveness = Some(Liveness::new(now, wall, interval, first_ping));
    }

    /// The attempt has failed.
    pub(super) fn handle_open_failed(&mut self, now: Instant, failure: OpenFailure, warning: Option<String>) {
        tracing::info!(error = %failure, "cannot open the websocket");
        if let Some(recorder) = &self.recorder {
            recorder.event("not opened", &failure.to_string());
        }
        self.events.extend(self.reconnect.handle_failed(now, failure, warning));
    }

    /// A message has arrived on the websocket.
    pub(super) fn handle_message(&mut self, now: Instant, message: Message) {
        if let Some(liveness) = &mut self.liveness {
            liveness.handle_received();
        }
        match message {
            Message::Binary(frame) => {
                if let Some(recorder) = &self.recorder {
                    recorder.received(&frame);
                }
                self.channel.handle_frame(now, frame);
                self.events.extend(self.reconnect.handle_proof());
            }
            Message::Pong(_) => self.events.extend(self.reconnect.handle_proof()),
            Message::Close(frame) => {
                let reason = match frame {
                    Some(frame) if !frame.reason.is_empty() => {
                        format!("closed by the service: {}", frame.reason)
                    }
                    Some(frame) => format!("closed by the service with code {}", u16::from(frame.code)),
                    None => "closed by the service".into(),
                };
                self.handle_lost(now, reason);
            }
            Message::Text(_) | Message::Ping(_) | Message::Frame(_) => {}
        }
    }

    /// The websocket is gone.
    pub(super) fn handle_lost(&mut self, now: Instant, reason: String) {
        if self.liveness.take().is_none() {
            return;
        }
        tracing::info!(%reason, "lost the websocket");
        if let Some(recorder) = &self.recorder {
            recorder.event("lost", &reason);
        }
        self.channel.handle_lost(now);
        self.events.extend(self.reconnect.handle_lost(now, reason));
    }

    /// Whether the websocket should be read now.
    pub(super) fn wants_frames(&self) -> bool {
        self.channel.wants_frames()
    }

    /// What to write to the websocket next. Call it only when there is room: what it returns must be written.
    #[must_use]
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Message> {
        if self.liveness.as_mut()?.poll_ping() {
            return Some(Message::Ping(Bytes::new()));
        }
        let transmit = self.channel.poll_transmit(now)?;
        Some(message(self.recorder.as_ref(), transmit))
    }

    /// What is still to be written to the websocket before it is closed for good.
    pub(super) fn last_messages(&mut self) -> Vec<Message> {
        let recorder = self.recorder.as_ref();
        self.channel.drain_acknowledgements().map(|transmit| message(recorder, transmit)).collect()
    }

    /// Compares the clocks, to notice that the machine was asleep. Call it as often as is convenient.
    pub(super) fn handle_clocks(&mut self, now: Instant, wall: SystemTime) {
        if self.liveness.as_mut().is_some_and(|liveness| liveness.handle_clocks(now, wall)) {
            tracing::info!("the machine was asleep");
        }
    }

    /// When [`Connection::handle_timeout`] and the `poll_*` are due again, and why. With `reads` false the websocket
    /// is not read, so a missing answer to a ping means nothing.
    #[must_use]
    pub(super) fn poll_timeout(&mut self, reads: bool) -> Option<(Instant, &'static str)> {
        let liveness = self.liveness.as_ref().map(|liveness| liveness.poll_timeout(reads));
        [self.channel.poll_timeout(), liveness, self.reconnect.poll_timeout()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Does what is due; may be called at any time.
    pub(super) fn handle_timeout(&mut self, now: Instant, reads: bool) {
        self.channel.handle_timeout(now);
        if let Some(event) = self.reconnect.handle_timeout(now) {
            self.liveness = None;
            self.channel.handle_lost(now);
            return self.events.push_back(event);
        }
        if self.liveness.as_mut().is_some_and(|liveness| liveness.handle_timeout(now, reads)) {
            self.handle_lost(now, "no answer to a ping".into());
        }
    }
}

/// A frame for the websocket, recorded.
fn message(recorder: Option<&Recorder>, transmit: Transmit) -> Message {
    if let Some(recorder) = recorder {
        recorder.sent(&transmit);
    }
    match transmit {
        Transmit::Text(text) => Message::text(text),
        Transmit::Binary(frame) => Message::Binary(frame),
    }
}
