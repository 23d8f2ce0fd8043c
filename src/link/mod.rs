//! The only place where a [`Channel`](crate::protocol::Channel) meets a socket and a clock.
//!
//! The decisions are in `connection`, a state machine without sockets and clocks; [`Link`] is the pump that
//! moves it on: it makes the attempts, owns the websocket and the timer.
//!
//! | file | what it knows |
//! |---|---|
//! | `connection` | the state of a link: the channel, `reconnect` and, while a websocket is open, `liveness` |
//! | `reconnect`, `backoff`, `wait` | when to open a websocket, how often, and when to give up |
//! | `liveness`, `clocks` | pings, missing answers, and that the machine was asleep |
//! | `contact` | when the path is known to have worked |
//! | `opener` | one attempt: resume, sign, open |
//! | `network_changes` | changes of addresses and routes, as the system reports them |
//! | `network`, `stream_url` | which hosts a stream URL may name, and the way to them |
//! | `tcp`, `proxy`, `connector`, `tls`, `stream`, `websocket` | the layers of one attempt; `open_socket`: what it opened |
//!
//! [`Link::next`] is one poll function, which polls an attempt alongside the rest: nothing waits for anything else. (An
//! `async fn next` that awaited its flush before it read deadlocked when both ends flooded a small socket.)

mod backoff;
mod calls;
mod clocks;
mod config;
mod connection;
mod connector;
mod contact;
mod error;
mod event;
pub(crate) mod host;
mod liveness;
mod network;
mod network_changes;
mod open_socket;
mod opener;
pub(crate) mod partition;
pub(crate) mod probe;
pub(crate) mod proxy;
mod reconnect;
mod refusal;
mod stream;
pub(crate) mod stream_url;
mod tcp;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod wait;
mod websocket;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep};

pub(crate) use self::backoff::Backoff;
pub(crate) use self::calls::route;
pub use self::config::Config;
use self::connection::Connection;
pub use self::connector::{Connecting, Connector, Transport};
pub use self::error::{GaveUp, OpenError, OpenFailure};
pub use self::event::LinkEvent;
pub use self::network::{Network, StreamHosts};
use self::network_changes::Subscription;
use self::open_socket::OpenSocket;
pub use self::opener::Target;
use self::opener::{AttemptOutcome, Opener, Opening};
pub use self::tcp::ConnectError;
use crate::protocol::{Capabilities, DataKey, Input, Stats};

/// A data channel with its websocket, which it opens, keeps alive and opens again.
///
/// [`Link::next`] does all the work: nothing is sent, received or opened unless it is polled. Call it in a loop
/// until [`LinkEvent::GaveUp`] or [`Event::Closed`](crate::protocol::Event::Closed), alongside whatever else the session
/// waits for; dropping the future loses nothing. Between two calls [`Link::send`] takes input while
/// [`Link::wants_input`]. [`Link::close`] ends it.
#[expect(missing_debug_implementations, reason = "its futures have none")]
pub struct Link {
    connection: Connection,
    socket: Option<Box<OpenSocket>>,
    /// The attempt under way. A silent websocket is kept in the meantime.
    opening: Option<Opening>,
    /// `None` where no websocket can be opened.
    opener: Option<Opener>,
    /// `None` until the first poll, which is inside of the runtime.
    network_changes: Option<Subscription>,
    timer: Pin<Box<Sleep>>,
}

impl Link {
    /// A link that starts to connect with the first [`Link::next`].
    pub fn new(config: Config, target: Target) -> Link {
        let now = Instant::now();
        let host = target.url.host_str().unwrap_or_default().to_owned();
        Link {
            connection: Connection::new(now.into_std(), config, host, fastrand::u64(..)),
            socket: None,
            opening: None,
            opener: Some(Opener::new(target)),
            network_changes: None,
            timer: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    /// The next event. With `deliver` false, no frame is read and no channel event is returned, because the consumer of
    /// the output is slow. Everything else continues. Cancel-safe.
    pub async fn next(&mut self, deliver: bool) -> LinkEvent {
        poll_fn(|cx| self.poll(cx, deliver)).await
    }

    /// The next event, or `None` as soon as all that was sent has been acknowledged. Cancel-safe.
    pub async fn next_until_drained(&mut self) -> Option<LinkEvent> {
        self.next_unless(true, Link::is_drained).await
    }

    /// The next event as [`Link::next`] returns it, or `None` as soon as there is none and the condition holds. Cancel-safe.
    pub(crate) async fn next_unless(
        &mut self,
        deliver: bool,
        condition: impl Fn(&Link) -> bool,
    ) -> Option<LinkEvent> {
        poll_fn(|cx| match self.poll(cx, deliver) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending if condition(self) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// See [`Channel::set_early_limit`](crate::protocol::Channel::set_early_limit).
    pub fn set_early_limit(&mut self, bytes: usize) {
        self.connection.channel_mut().set_early_limit(bytes);
    }

    /// See [`Channel::discard_early`](crate::protocol::Channel::discard_early).
    pub fn discard_early(&mut self) {
        self.connection.channel_mut().discard_early();
    }

    /// See [`Channel::early_bytes`](crate::protocol::Channel::early_bytes).
    pub fn early_bytes(&self) -> usize {
        self.connection.channel().early_bytes()
    }

    /// Returns whether more user data should be read for [`Link::send`].
    pub fn wants_input(&self) -> bool {
        self.connection.channel().wants_input()
    }

    /// Returns the number of bytes of user data that [`Link::send`] has room for.
    pub fn input_room(&self) -> usize {
        self.connection.channel().input_room()
    }

    /// Returns the number of bytes that one [`Input::Tentative`] may have now; 0 once the agent listens.
    pub fn tentative_room(&self) -> usize {
        let channel = self.connection.channel();
        if channel.is_settling() && channel.wants_input() { channel.max_payload() } else { 0 }
    }

    /// Returns whether the agent may ignore input now. It waits, except for [`Input::Tentative`].
    pub fn is_held(&self) -> bool {
        self.connection.channel().is_held()
    }

    /// Takes something to send; it goes out with the next [`Link::next`].
    pub fn send(&mut self, input: Input) {
        self.connection.channel_mut().send(input);
    }

    /// Answers [`Event::DataKeyNeeded`](crate::protocol::Event::DataKeyNeeded).
    pub fn handle_data_key(&mut self, result: Result<DataKey, String>) {
        self.connection.channel_mut().handle_data_key(Instant::now().into_std(), result);
    }

    /// Returns the capabilities of the agent.
    pub fn capabilities(&self) -> Capabilities {
        self.connection.channel().capabilities()
    }

    /// Returns whether the service has paused the sending to the agent.
    pub fn is_paused(&self) -> bool {
        self.connection.channel().is_paused()
    }

    /// Since when the service has paused the sending, if nothing was sent meanwhile.
    pub(crate) fn paused_since(&self) -> Option<std::time::Instant> {
        self.connection.channel().paused_since()
    }

    /// Returns whether all that was sent has been acknowledged.
    pub fn is_drained(&self) -> bool {
        self.connection.channel().is_drained()
    }

    /// Returns the number of messages acknowledged without a gap.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.connection.channel().acknowledged()
    }

    /// Returns whether all that was given to [`Link::send`] was sent, acknowledged or not.
    pub fn is_sent(&self) -> bool {
        self.connection.channel().is_sent()
    }

    /// Returns whether the websocket is open now.
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// The last time at which a websocket's path is known to have worked; `None` before the first.
    pub(crate) fn last_contact(&self) -> Option<Instant> {
        self.connection.last_contact().map(Instant::from_std)
    }

    /// Since when nothing of what was sent has been acknowledged; `None` while nothing is outstanding.
    pub(crate) fn unacknowledged_since(&self) -> Option<std::time::Instant> {
        self.connection.channel().unacknowledged_since()
    }

    /// Asks the service for a sign of life, which is seen in [`Link::last_contact`]; a websocket without one is replaced.
    pub(crate) fn check(&mut self) {
        self.connection.check(Instant::now().into_std());
    }

    /// Start of the attempt under way.
    pub(crate) fn attempt_since(&self) -> Option<Instant> {
        self.connection.attempt_since().map(Instant::from_std)
    }

    /// The channel's counters.
    pub fn stats(&self) -> Stats {
        self.connection.channel().stats()
    }

    /// Sends the last acknowledgements and closes the websocket, within [`CLOSE_TIMEOUT`].
    pub async fn close(mut self) {
        if let Some(socket) = self.socket {
            let last = self.connection.last_messages();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(last)).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<LinkEvent> {
        self.connection.handle_clocks(Instant::now().into_std(), SystemTime::now());
        self.poll_network(cx);
        loop {
            if let Some(event) = self.connection.poll_event(deliver) {
                return Poll::Ready(event);
            }
            self.follow();
            if self.poll_opening(cx).is_ready() || self.poll_socket(cx, deliver).is_ready() {
                continue;
            }
            // What was written has perhaps made room: what the session has for it shares the flush.
            if let Some(event) = self.connection.poll_event(deliver) {
                return Poll::Ready(event);
            }
            if let Some(socket) = &mut self.socket
                && let Err(reason) = socket.poll_flush(cx)
            {
                self.connection.handle_lost(Instant::now().into_std(), reason);
                continue;
            }
            ready!(self.poll_timer(cx, deliver));
            self.connection.handle_timeout(Instant::now().into_std(), deliver);
        }
    }

    /// Notices that the machine's network has changed.
    fn poll_network(&mut self, cx: &mut Context<'_>) {
        let Some(opener) = &self.opener else { return };
        let changes = self.network_changes.get_or_insert_with(|| opener.network_changes());
        // Until it has registered for the next one.
        while changes.poll_changed(cx).is_ready() {
            let is_cut = self.socket.as_ref().is_some_and(|socket| socket.is_cut_off());
            tracing::info!(is_cut, "the network of this machine has changed");
            self.connection.handle_network_change(Instant::now().into_std(), is_cut);
        }
    }

    /// Carries out the connection's decisions: drops what is over, starts an attempt that is due.
    fn follow(&mut self) {
        if !self.connection.has_socket() {
            self.socket = None;
        }
        if !self.connection.is_opening() {
            self.opening = None;
        }
        if let Some(attempt) = self.connection.poll_attempt(Instant::now().into_std())
            && let Some(opener) = &self.opener
        {
            // A copy: the attempt is dropped if the old websocket recovers.
            let opener = opener.clone();
            self.opening = Some(opener.open(attempt.is_again, attempt.fail_by.map(Instant::from_std)));
        }
    }

    /// Moves the attempt on. Ready when it has ended.
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        let AttemptOutcome { mut opener, outcome, warning } = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let now = Instant::now().into_std();
        match outcome {
            Ok(socket) => {
                let token = opener.take_token();
                self.connection.handle_opened(now, SystemTime::now(), token.expose(), warning);
                self.socket = Some(Box::new(OpenSocket::new(socket)));
            }
            Err(failure) => self.connection.handle_open_failed(now, failure, warning),
        }
        self.opener = Some(opener);
        Poll::Ready(())
    }

    /// Moves the websocket on, by one step.
    fn poll_socket(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<()> {
        let Some(socket) = &mut self.socket else { return Poll::Pending };
        let message = ready!(socket.poll(cx, &mut self.connection, deliver));
        let now = Instant::now().into_std();
        match message {
            Ok(message) => self.connection.handle_message(now, message),
            Err(reason) => self.connection.handle_lost(now, reason),
        }
        Poll::Ready(())
    }

    /// Pends until the earliest deadline.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deliver: bool) -> Poll<()> {
        let Some((at, _)) = self.connection.poll_timeout(deliver) else { return Poll::Pending };
        let (at, now) = (Instant::from_std(at), Instant::now());
        // A deadline that is only about sending may lie in the past while the socket is full.
        let is_blocked = self.socket.as_ref().is_some_and(|socket| socket.is_blocked());
        let at = if at <= now && is_blocked { now + SOCKET_FULL_POLL } else { at };
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx)
    }
}

/// Time limit for closing the websocket.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// While the socket takes no more, the deadlines of what is sent are looked at this often.
const SOCKET_FULL_POLL: Duration = Duration::from_millis(50);
