//! The only place where a [`Channel`] meets a socket and a clock.
//!
//! ```text
//!            opened                 lost
//!  Opening ─────────▶ Open ──────────────────▶ Waiting (backoff)
//!     ▲                                            │
//!     └────────────────────────────────────────────┘     … until the reconnect deadline
//! ```
//!
//! Nothing here awaits: [`Link::next`] is one poll function, so that sending, receiving, pings, deadlines and
//! reconnecting never wait for each other. (An `async fn next` that awaited its flush before it read deadlocked when
//! both ends flooded a small socket.)
//!
//! The socket is flushed when there is nothing more to read or to write, not after each frame.

mod backoff;
mod event;
mod network;
mod opener;
pub(crate) mod probe;
pub(crate) mod proxy;
mod stream;
pub(crate) mod stream_url;
mod tcp;
pub(crate) mod tls;
mod wall_clock;
mod websocket;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Sink, Stream as _};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite;

use self::backoff::Backoff;
pub use self::event::{Config, GaveUp, LinkEvent};
pub use self::network::Network;
pub use self::opener::{OpenFailure, Target};
use self::opener::{Opener, Opening};
pub use self::tcp::ConnectError;
use self::wall_clock::WallClock;
pub use self::websocket::OpenError;
use self::websocket::Socket;
use crate::protocol::{Capabilities, Channel, DataKey, Input, Stats, Transmit};
use crate::wire_log::{self, Recorder};

enum Wire {
    Opening(Opening),
    Open(Box<Socket>),
    Waiting(Pin<Box<Sleep>>),
    Ended,
}

/// A data channel with its websocket, which it opens, keeps alive and opens again.
pub struct Link {
    config: Config,
    host: String,
    /// Here unless an attempt is under way.
    opener: Option<Opener>,
    channel: Channel,
    wire: Wire,
    backoff: Backoff,
    timer: Pin<Box<Sleep>>,
    /// Until when a connection must be open, and what the last attempt met.
    open_by: Option<Instant>,
    last_failure: Option<String>,
    trouble: Option<String>,
    was_open: bool,
    /// Whether any socket has brought a frame.
    was_proven: bool,
    opened_at: Instant,
    /// Whether the current socket has brought a frame. One that was closed before did not really open.
    is_proven: bool,
    must_flush: bool,
    /// The session was told to wait with its input.
    input_waits: bool,
    next_ping: Instant,
    must_ping: bool,
    /// A ping is out, and something must be heard until then.
    pong_by: Option<Instant>,
    clock: WallClock,
    recorder: Option<Recorder>,
}

impl Link {
    /// A link that starts to connect with the first [`Link::next`].
    pub fn new(config: Config, target: Target) -> Link {
        let now = Instant::now();
        let channel = Channel::new(config.channel.clone(), fastrand::u64(..));
        let open_by = Some(now + config.open_timeout);
        Link {
            host: target.url.host_str().unwrap_or_default().to_owned(),
            wire: Wire::Opening(Opener::new(target).open(false, open_by)),
            opener: None,
            channel,
            backoff: Backoff::new(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            open_by,
            last_failure: None,
            trouble: None,
            was_open: false,
            was_proven: false,
            opened_at: now,
            is_proven: false,
            must_flush: false,
            input_waits: false,
            next_ping: now + config.ping_interval,
            must_ping: false,
            pong_by: None,
            clock: WallClock::start(now),
            recorder: wire_log::recorder(),
            config,
        }
    }

    /// The next event. With `deliver` false, no frame is read and no channel event is given: whoever takes the output
    /// is slow, and shall not be handed more. Everything else goes on. Cancel-safe.
    pub async fn next(&mut self, deliver: bool) -> LinkEvent {
        poll_fn(|cx| self.poll(cx, deliver)).await
    }

    /// The next event, or `None` as soon as all that was sent has been acknowledged. Cancel-safe.
    pub async fn next_until_drained(&mut self) -> Option<LinkEvent> {
        poll_fn(|cx| match self.poll(cx, true) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending if self.channel.is_drained() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether more user data should be read for [`Link::send`].
    pub fn wants_input(&self) -> bool {
        self.channel.wants_input()
    }

    /// How many bytes that may be.
    pub fn input_room(&self) -> usize {
        self.channel.input_room()
    }

    /// Takes something to send; it goes out with the next [`Link::next`].
    pub fn send(&mut self, input: Input) {
        self.channel.send(input);
    }

    /// Answers [`Event::DataKeyNeeded`](crate::protocol::Event::DataKeyNeeded).
    pub fn handle_data_key(&mut self, result: Result<DataKey, String>) {
        self.channel.handle_data_key(result);
    }

    /// What the agent can do.
    pub fn capabilities(&self) -> Capabilities {
        self.channel.capabilities()
    }

    /// Whether all that was sent has been acknowledged.
    pub fn is_drained(&self) -> bool {
        self.channel.is_drained()
    }

    /// Whether the websocket is open now.
    pub fn is_open(&self) -> bool {
        matches!(self.wire, Wire::Open(_))
    }

    /// The channel's counters.
    pub fn stats(&self) -> Stats {
        self.channel.stats()
    }

    /// Says goodbye on the websocket, for at most [`CLOSE_TIMEOUT`].
    pub async fn close(mut self) {
        if let Wire::Open(socket) = &mut self.wire {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<LinkEvent> {
        self.input_waits |= !self.channel.wants_input();
        if self.clock.has_jumped(Instant::now()) && self.is_open() {
            tracing::info!("the machine was asleep");
            self.must_ping = true;
            self.pong_by = Some(Instant::now() + AWAKE_TIMEOUT.min(self.config.ping_interval));
        }
        loop {
            if let Some(trouble) = self.trouble.take() {
                return Poll::Ready(LinkEvent::Trouble(trouble));
            }
            if deliver && let Some(event) = self.channel.poll_event() {
                return Poll::Ready(LinkEvent::Channel(event));
            }
            let progress = match &mut self.wire {
                Wire::Opening(_) => self.poll_opening(cx),
                Wire::Waiting(_) => self.poll_waiting(cx),
                Wire::Open(_) => self.poll_open(cx, deliver),
                Wire::Ended => return Poll::Pending,
            };
            // Not for each message, but before there is nothing left to send.
            if self.input_waits && self.channel.input_room() >= self.channel.input_limit() / 2 {
                self.input_waits = false;
                if !matches!(progress, Poll::Ready(Some(_))) {
                    return Poll::Ready(LinkEvent::WantsInput);
                }
            }
            match progress {
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) => continue,
                Poll::Pending => ready!(self.poll_deadlines(cx, deliver)),
            }
            if let Some(event) = self.after_deadlines(deliver) {
                return Poll::Ready(event);
            }
        }
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkEvent>> {
        let Wire::Opening(opening) = &mut self.wire else { return Poll::Ready(None) };
        let attempt = ready!(opening.as_mut().poll(cx));
        let opener = self.opener.insert(attempt.opener);
        self.trouble = attempt.trouble;
        match attempt.outcome {
            Ok(socket) => {
                let now = Instant::now();
                let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                self.channel.handle_open(now.into_std(), unix_ms as u64, opener.take_token().expose());
                self.wire = Wire::Open(Box::new(socket));
                self.is_proven = false;
                self.opened_at = now;
                self.must_flush = false;
                self.must_ping = false;
                self.pong_by = None;
                let is_first = !std::mem::replace(&mut self.was_open, true);
                if is_first {
                    self.open_by = None;
                }
                // An idle session has nothing else to tell by that it has come back.
                self.next_ping = now + if is_first { self.config.ping_interval } else { STEADY_AFTER };
                Poll::Ready(None)
            }
            Err(error) => {
                tracing::info!(%error, "cannot open the websocket");
                if let Some(recorder) = &self.recorder {
                    recorder.event("not opened", &error.to_string());
                }
                if matches!(error, OpenFailure::SessionGone) {
                    self.wire = Wire::Ended;
                    return Poll::Ready(Some(LinkEvent::GaveUp(GaveUp::SessionGone)));
                }
                if !self.was_open && error.is_permanent() {
                    self.wire = Wire::Ended;
                    return Poll::Ready(Some(LinkEvent::GaveUp(GaveUp::Open(error))));
                }
                let reason = match &self.trouble {
                    Some(trouble) => format!("{error} ({trouble})"),
                    None => error.to_string(),
                };
                // Said once, while there is time for further attempts; a lost connection was told already.
                let is_over = self.open_by.is_some_and(|by| by <= Instant::now() + NEARLY_OVER);
                let is_news = !self.was_open && self.last_failure.is_none() && !is_over;
                let trouble = is_news.then(|| LinkEvent::Trouble(format!("not connected yet: {reason}")));
                self.retry(reason);
                Poll::Ready(trouble)
            }
        }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkEvent>> {
        let Wire::Waiting(sleep) = &mut self.wire else { return Poll::Ready(None) };
        ready!(sleep.as_mut().poll(cx));
        if let Some(opener) = self.opener.take() {
            // The time for all may cut this one off: there is a failure to tell already.
            self.wire = Wire::Opening(opener.open(self.was_open, None));
        }
        Poll::Ready(None)
    }

    /// Writes what there is to write, reads one frame, flushes when neither goes on.
    fn poll_open(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<Option<LinkEvent>> {
        if let Err(error) = self.poll_writes(cx) {
            return Poll::Ready(self.lose(error));
        }
        if deliver && self.channel.wants_frames() {
            let Wire::Open(socket) = &mut self.wire else { return Poll::Ready(None) };
            match Pin::new(&mut **socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(self.handle_message(message)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.lose(error.to_string())),
                Poll::Ready(None) => return Poll::Ready(self.lose("the connection was closed".into())),
                Poll::Pending => {}
            }
        }
        if self.must_flush {
            let Wire::Open(socket) = &mut self.wire else { return Poll::Ready(None) };
            match Pin::new(&mut **socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.must_flush = false,
                Poll::Ready(Err(error)) => return Poll::Ready(self.lose(error.to_string())),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Makes room in the socket first, then takes frames from the channel, so that none is taken that cannot go.
    fn poll_writes(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let Wire::Open(socket) = &mut self.wire else { return Ok(()) };
        let now = Instant::now();
        let mut socket = Pin::new(&mut **socket);
        loop {
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => return Ok(()),
            }
            let message = if std::mem::take(&mut self.must_ping) {
                tungstenite::Message::Ping(Bytes::new())
            } else {
                let transmit = self.channel.poll_transmit(now.into_std());
                if let (Some(recorder), Some(transmit)) = (&self.recorder, &transmit) {
                    recorder.sent(transmit);
                }
                match transmit {
                    Some(Transmit::Text(text)) => tungstenite::Message::text(text),
                    Some(Transmit::Binary(frame)) => tungstenite::Message::Binary(frame),
                    None => return Ok(()),
                }
            };
            socket.as_mut().start_send(message).map_err(|error| error.to_string())?;
            self.must_flush = true;
        }
    }

    fn handle_message(&mut self, message: tungstenite::Message) -> Option<LinkEvent> {
        self.pong_by = None;
        match message {
            tungstenite::Message::Binary(frame) => {
                if let Some(recorder) = &self.recorder {
                    recorder.received(&frame);
                }
                self.channel.handle_frame(Instant::now().into_std(), frame);
                self.prove()
            }
            tungstenite::Message::Pong(_) => self.prove(),
            tungstenite::Message::Close(frame) => {
                let reason = match frame {
                    Some(frame) if !frame.reason.is_empty() => {
                        format!("closed by the service: {}", frame.reason)
                    }
                    Some(frame) => format!("closed by the service with code {}", u16::from(frame.code)),
                    None => "closed by the service".into(),
                };
                self.lose(reason)
            }
            _ => None,
        }
    }

    /// The socket works: the service has sent something on it, or has answered a ping and not closed it for our token.
    fn prove(&mut self) -> Option<LinkEvent> {
        if std::mem::replace(&mut self.is_proven, true) {
            return None;
        }
        self.was_proven = true;
        self.last_failure = None;
        self.open_by.take().map(|_| LinkEvent::Resumed)
    }

    /// The socket is gone. Says so only for one that had worked.
    fn lose(&mut self, reason: String) -> Option<LinkEvent> {
        tracing::info!(%reason, "lost the websocket");
        if let Some(recorder) = &self.recorder {
            recorder.event("lost", &reason);
        }
        self.channel.handle_lost();
        let is_news = self.is_proven;
        // One that was closed at once shall not be followed by another at once, for ever.
        if self.is_proven && self.opened_at.elapsed() >= STEADY_AFTER {
            self.backoff.reset();
        }
        if self.open_by.is_none() {
            let timeout =
                if self.was_proven { self.config.reconnect_timeout } else { self.config.open_timeout };
            self.open_by = Some(Instant::now() + timeout);
        }
        self.retry(reason.clone());
        is_news.then_some(LinkEvent::Lost(reason))
    }

    fn retry(&mut self, reason: String) {
        self.last_failure = Some(reason);
        self.wire = Wire::Waiting(Box::pin(tokio::time::sleep(self.backoff.next_delay())));
    }

    /// Pends until the earliest deadline.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<()> {
        let channel = self.channel.poll_timeout().map(|(at, _)| Instant::from_std(at));
        let is_open = self.is_open();
        let ping = is_open.then_some(self.next_ping);
        let pong = self.pong_by.filter(|_| is_open && deliver);
        // A channel deadline that is only about sending may lie in the past while the socket is full.
        let now = Instant::now();
        let channel =
            channel.map(|at| if at <= now && self.must_flush { now + SOCKET_FULL_POLL } else { at });
        let Some(at) = [channel, ping, pong, self.open_by].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx)
    }

    fn after_deadlines(&mut self, deliver: bool) -> Option<LinkEvent> {
        let now = Instant::now();
        self.channel.handle_timeout(now.into_std());
        if self.open_by.is_some_and(|at| at <= now) {
            self.wire = Wire::Ended;
            let reason = self.last_failure.take().unwrap_or_else(|| "no answer".into());
            return Some(LinkEvent::GaveUp(if self.was_proven {
                GaveUp::Reconnect { timeout: self.config.reconnect_timeout, reason }
            } else {
                let host = std::mem::take(&mut self.host);
                GaveUp::OpenTimeout { host, timeout: self.config.open_timeout, reason }
            }));
        }
        if !self.is_open() {
            return None;
        }
        if deliver && self.pong_by.is_some_and(|at| at <= now) {
            return self.lose("no answer to a ping".into());
        }
        if self.next_ping <= now {
            self.next_ping = now + self.config.ping_interval;
            self.must_ping = true;
            self.pong_by.get_or_insert(now + self.config.ping_interval);
        }
        None
    }
}

/// How long a goodbye may take.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// While the socket takes no more, the channel's own deadlines are looked at this often.
const SOCKET_FULL_POLL: Duration = Duration::from_millis(50);
/// With so little time left for opening, a failure is told when that is over, not twice.
const NEARLY_OVER: Duration = Duration::from_millis(200);
/// A connection that lived so long was a good one.
const STEADY_AFTER: Duration = Duration::from_millis(500);
/// After a sleep most sockets are dead: an answer is waited for only so long.
const AWAKE_TIMEOUT: Duration = Duration::from_secs(5);
