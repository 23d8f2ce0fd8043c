//! A data channel over one websocket after another, without the websockets: all that a link decides.
//!
//! It composes the [`Channel`], [`Reconnect`] (when to open) and, for the open websocket, [`Liveness`]. The owner
//! of sockets and clocks passes input to it (`handle_*`), asks what to do (`poll_*`) until nothing is left, and
//! calls again at [`Connection::poll_timeout`].

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use super::contact::Contact;
use super::liveness::{Demand, Health, Liveness};
use super::reconnect::{Attempt, Reconnect};
use super::wait::Wait;
use super::{Config, LinkEvent, OpenFailure};
use crate::protocol::{Channel, Transmit};
use crate::wire_log::Recorder;

/// The state of a link.
#[derive(Debug)]
pub(super) struct Connection {
    config: Config,
    channel: Channel,
    reconnect: Reconnect,
    /// `None` until the first websocket is open, as is `contact`.
    liveness: Option<Liveness>,
    contact: Option<Contact>,
    socket: SocketState,
    /// Set while no websocket is open.
    wait: Option<Wait>,
    events: VecDeque<LinkEvent>,
    /// The channel had no room for input since the last [`LinkEvent::WantsInput`], or held it back.
    input_waits: bool,
    recorder: Option<Recorder>,
}

/// State of the websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketState {
    Closed,
    Open,
    /// Nothing arrives any more. Another is being opened; this one is kept until then, in case it recovers.
    Silent,
}

impl Connection {
    /// A link's state at the start: the first attempt, to `host`, is due at once.
    pub(super) fn new(now: Instant, config: Config, host: String, seed: u64) -> Connection {
        Connection {
            channel: Channel::new(config.channel.clone(), seed),
            reconnect: Reconnect::new(now, &config, host, seed),
            liveness: None,
            contact: None,
            socket: SocketState::Closed,
            wait: Some(Wait::new(now)),
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

    /// Returns whether a websocket is open and answers.
    pub(super) fn is_open(&self) -> bool {
        self.socket == SocketState::Open
    }

    /// Returns whether there is a websocket to read and write, even a silent one.
    pub(super) fn has_socket(&self) -> bool {
        self.socket != SocketState::Closed
    }

    /// The last time at which a websocket's path is known to have worked; `None` before the first.
    pub(super) fn last_contact(&self) -> Option<Instant> {
        self.contact.as_ref().map(Contact::last)
    }

    /// Start of the attempt under way.
    pub(super) fn attempt_since(&self) -> Option<Instant> {
        self.reconnect.opening_since()
    }

    /// Returns whether an attempt is under way.
    pub(super) fn is_opening(&self) -> bool {
        self.reconnect.is_opening()
    }

    /// The next event; with `deliver` false none of the channel's.
    #[must_use]
    pub(super) fn poll_event(&mut self, deliver: bool) -> Option<LinkEvent> {
        self.input_waits |= !self.channel.wants_input() || self.channel.is_held();
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if deliver && let Some(event) = self.channel.poll_event() {
            return Some(LinkEvent::Channel(event));
        }
        // Not for each message, but before there is nothing left to send.
        let has_room = self.channel.input_room() >= self.channel.input_limit() / 2;
        if self.input_waits && has_room && !self.channel.is_held() {
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
        if self.socket == SocketState::Silent {
            // The service has dropped the old one in favour of this one.
            self.channel.handle_lost(now);
        }
        let unix_ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.channel.handle_open(now, unix_ms as u64, token);
        let interval = self.config.ping_interval;
        let first_ping = self.reconnect.handle_opened(now).unwrap_or(now + interval);
        match &mut self.liveness {
            Some(liveness) => liveness.handle_reopened(now, wall, first_ping),
            None => self.liveness = Some(Liveness::new(now, wall, interval, first_ping)),
        }
        self.contact = Some(Contact::new(now));
        self.socket = SocketState::Open;
        self.wait = None;
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
        // The end of a silent websocket is not its recovery: the attempt under way continues.
        if !matches!(message, Message::Close(_)) {
            self.handle_sign_of_life(now);
        }
        match message {
            Message::Binary(frame) => {
                if let Some(recorder) = &self.recorder {
                    recorder.received(&frame);
                }
                self.channel.handle_frame(now, frame);
                self.events.extend(self.reconnect.handle_proof());
            }
            Message::Pong(_) => {
                self.contact.iter_mut().for_each(Contact::handle_pong);
                self.events.extend(self.reconnect.handle_proof());
            }
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

    /// The websocket is not being read.
    pub(super) fn handle_unread(&mut self) {
        self.contact.iter_mut().for_each(Contact::handle_unread);
    }

    /// All that had arrived on the websocket has been read.
    pub(super) fn handle_empty(&mut self) {
        self.contact.iter_mut().for_each(Contact::handle_empty);
    }

    fn handle_sign_of_life(&mut self, now: Instant) {
        self.contact.iter_mut().for_each(|contact| contact.handle_message(now));
        let rtt = self.channel.rtt();
        if let Some(liveness) = &mut self.liveness
            && liveness.handle_received(now, rtt)
            && self.socket == SocketState::Silent
        {
            tracing::info!("the websocket has recovered");
            self.socket = SocketState::Open;
            self.wait = None;
            self.events.extend(self.reconnect.handle_recovered());
        }
    }

    /// The websocket is gone.
    pub(super) fn handle_lost(&mut self, now: Instant, reason: String) {
        if self.socket == SocketState::Closed {
            return;
        }
        self.record_loss(&reason);
        self.channel.handle_lost(now);
        self.wait.get_or_insert(Wait::new(now));
        // After a silence another attempt is under way already.
        if std::mem::replace(&mut self.socket, SocketState::Closed) == SocketState::Open {
            self.events.extend(self.reconnect.handle_lost(now, reason));
        }
    }

    /// The way to the service may have changed. A websocket whose local address is gone (`is_cut`) is lost; another must
    /// show that it still works. An attempt that waits for its turn is made now.
    pub(super) fn handle_network_change(&mut self, now: Instant, is_cut: bool) {
        self.reconnect.handle_network_change(now);
        if is_cut {
            return self.handle_lost(now, "this machine's network address has changed".into());
        }
        self.check(now);
    }

    /// Pings the websocket, if one is open.
    pub(super) fn check(&mut self, now: Instant) {
        let rtt = self.channel.rtt();
        if let Some(liveness) = self.liveness.as_mut().filter(|_| self.socket == SocketState::Open) {
            liveness.check(now, rtt);
        }
    }

    /// Returns whether the websocket should be read now.
    pub(super) fn wants_frames(&self) -> bool {
        self.channel.wants_frames()
    }

    /// Returns the next message for the websocket. Call it only when there is room: what it returns must be
    /// written.
    #[must_use]
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Message> {
        if self.socket == SocketState::Closed {
            return None;
        }
        if self.liveness.as_mut()?.poll_ping() {
            self.contact.iter_mut().for_each(|contact| contact.handle_ping(now));
            return Some(Message::Ping(Bytes::new()));
        }
        let transmit = self.channel.poll_transmit(now)?;
        Some(message(self.recorder.as_ref(), transmit))
    }

    /// Returns the messages to write before the websocket is closed for good.
    pub(super) fn last_messages(&mut self) -> Vec<Message> {
        let recorder = self.recorder.as_ref();
        self.channel.drain_acknowledgements().map(|transmit| message(recorder, transmit)).collect()
    }

    /// Compares the clocks, to notice that the machine was asleep. Call it as often as is convenient.
    pub(super) fn handle_clocks(&mut self, now: Instant, wall: SystemTime) {
        let rtt = self.channel.rtt();
        if self.liveness.as_mut().is_some_and(|liveness| liveness.handle_clocks(now, wall, rtt)) {
            tracing::info!("the machine was asleep");
        }
    }

    /// When [`Connection::handle_timeout`] and the `poll_*` are due again, and why. With `reads` false the websocket
    /// is not read, so a missing answer to a ping means nothing.
    #[must_use]
    pub(super) fn poll_timeout(&mut self, reads: bool) -> Option<(Instant, &'static str)> {
        let demand = self.demand(reads);
        let liveness = self.liveness.as_ref().filter(|_| self.has_socket());
        let liveness = liveness.and_then(|liveness| liveness.poll_timeout(demand));
        let wait = self.wait.as_ref().filter(|_| !self.reconnect.is_over());
        let wait = wait.map(|wait| (wait.poll_timeout(), "report of a wait"));
        [self.channel.poll_timeout(), liveness, self.reconnect.poll_timeout(), wait]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Does what is due; may be called at any time.
    pub(super) fn handle_timeout(&mut self, now: Instant, reads: bool) {
        self.channel.handle_timeout(now);
        if let Some(event) = self.reconnect.handle_timeout(now) {
            self.socket = SocketState::Closed;
            self.channel.handle_lost(now);
            return self.events.push_back(event);
        }
        if !self.reconnect.is_over()
            && let Some(waited) = self.wait.as_mut().and_then(|wait| wait.handle_timeout(now))
        {
            let host = self.reconnect.host().to_owned();
            self.events.push_back(LinkEvent::Connecting { host, waited });
        }
        let demand = self.demand(reads);
        let open = self.liveness.as_mut().filter(|_| self.socket == SocketState::Open);
        if let Some(Health::Silent(silence)) = open.map(|liveness| liveness.handle_timeout(now, demand)) {
            self.handle_silence(now, silence);
        }
    }

    /// Opens another websocket and keeps this one until then.
    fn handle_silence(&mut self, now: Instant, silence: Duration) {
        let reason = format!("nothing received for {:.0} s", silence.as_secs_f64());
        self.record_loss(&reason);
        self.socket = SocketState::Silent;
        self.wait = Some(Wait::new(now));
        self.events.extend(self.reconnect.handle_lost(now, reason));
    }

    fn record_loss(&self, reason: &str) {
        tracing::info!(%reason, "lost the websocket");
        if let Some(recorder) = &self.recorder {
            recorder.event("lost", reason);
        }
    }

    /// A full queue of acknowledgements ends the reading, too: the service does not read, and a pong that waits cannot be seen.
    /// Whether that path is dead is TCP's to find out.
    fn demand(&self, reads: bool) -> Demand {
        let reads = reads && self.channel.wants_frames();
        Demand { reads, is_outstanding: self.channel.awaits_answer(), rtt: self.channel.rtt() }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A link whose websocket has become silent, with an attempt to replace it under way.
    fn silent() -> (Connection, Instant) {
        let start = Instant::now();
        let mut connection = Connection::new(start, Config::default(), "host".into(), 1);
        assert!(connection.poll_attempt(start).is_some());
        connection.handle_opened(start, UNIX_EPOCH, "token", None);
        connection.handle_message(start, Message::Pong(Bytes::new()));
        let mut now = start;
        while connection.is_open() {
            while connection.poll_transmit(now).is_some() {}
            now = connection.poll_timeout(true).expect("a deadline").0;
            connection.handle_timeout(now, true);
        }
        assert!(matches!(connection.poll_event(true), Some(LinkEvent::Lost(_))));
        assert!(connection.poll_attempt(now).is_some() && connection.has_socket());
        (connection, now)
    }

    #[test]
    fn a_sign_of_life_ends_the_attempt_to_replace_a_silent_websocket() {
        let (mut connection, now) = silent();
        connection.handle_message(now, Message::Pong(Bytes::new()));
        assert!(connection.is_open() && !connection.is_opening());
        assert!(matches!(connection.poll_event(true), Some(LinkEvent::Resumed)));
    }

    #[test]
    fn the_end_of_a_silent_websocket_leaves_the_attempt_alone() {
        for has_close_frame in [true, false] {
            let (mut connection, now) = silent();
            if has_close_frame {
                connection.handle_message(now, Message::Close(None));
            } else {
                connection.handle_lost(now, "reset".into());
            }
            assert!(!connection.has_socket() && connection.is_opening());
            assert!(connection.poll_event(true).is_none(), "the loss is known");
            connection.handle_opened(now + SECOND, UNIX_EPOCH + SECOND, "token", None);
            connection.handle_message(now + SECOND, Message::Pong(Bytes::new()));
            assert!(connection.is_open());
            assert!(matches!(connection.poll_event(true), Some(LinkEvent::Resumed)));
        }
    }

    #[test]
    fn a_failed_attempt_leaves_the_silent_websocket_alone() {
        let (mut connection, now) = silent();
        connection.handle_open_failed(
            now,
            crate::link::OpenError::TimedOut { host: "host".into(), timeout: SECOND }.into(),
            None,
        );
        assert!(connection.has_socket() && !connection.is_open() && !connection.is_opening());
        connection.handle_message(now + SECOND / 10, Message::Pong(Bytes::new()));
        assert!(connection.is_open());
        assert_eq!(connection.poll_attempt(now + SECOND * 9), None, "another is not needed");
    }
}
