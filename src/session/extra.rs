//! Further sessions behind one forwarded port, asked for with `SSM_PLUGIN_SESSIONS`.
//!
//! The service limits the messages of each session, so several move several times what one may. Each is started with
//! the request that started the first, is ended with the first, and is replaced when it dies:
//!
//! ```text
//!           due             started            ready
//!  Waiting ─────▶ Starting ─────────▶ Opening ───────▶ Ready
//!     ▲              │ failed            │ ended         │ ended
//!     └──────────────┴───────────────────┴───────────────┘   (said once, tried again with backoff)
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tracing::Instrument as _;

use super::connection::Gauge;
use super::ending;
use super::journal::Journal;
use super::streams::{LaneId, Reports, Streams};
use crate::aws;
use crate::link::{Link, LinkEvent};
use crate::protocol::{Event, SessionKind};

/// Starts a further session with the request of argv, up to its link.
pub(super) type Starter = Box<dyn Fn() -> Starting + Send>;
/// The start of one session, or why there is none.
pub(super) type Starting = Pin<Box<dyn Future<Output = Result<Started, String>> + Send>>;

/// A session that was started and is not open yet.
pub(super) struct Started {
    pub id: String,
    pub link: Link,
    /// Who can end it.
    pub aws: Arc<aws::Client>,
}

/// What a further session tells the loop.
#[derive(Debug)]
pub(super) enum ExtraEvent {
    /// Something to show on stderr, once.
    Status(String),
    /// The destination was refused.
    PortRefused,
    /// Its state has changed; its streams may want to move.
    Progress,
}

/// One further session.
pub(super) struct Extra {
    state: State,
    starter: Arc<Starter>,
    reports: Reports,
    gauge: Arc<Gauge>,
    journal: Arc<Journal>,
    next_lane: Arc<std::sync::atomic::AtomicU64>,
    failures: u32,
    has_complained: bool,
    /// Names the session in the log, whose lines begin with the first session's id.
    span: tracing::Span,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Starting(Starting),
    Opening(Box<Started>),
    Ready(Box<Started>, Box<Streams>),
}

impl Extra {
    /// A session that starts with the first [`Extra::poll_event`]. Lane ids come from `next_lane`.
    pub fn new(
        starter: Arc<Starter>,
        reports: Reports,
        gauge: Arc<Gauge>,
        journal: Arc<Journal>,
        next_lane: Arc<std::sync::atomic::AtomicU64>,
    ) -> Extra {
        let state = State::Waiting(Box::pin(tokio::time::sleep_until(Instant::now())));
        Extra {
            state,
            starter,
            reports,
            gauge,
            journal,
            next_lane,
            failures: 0,
            has_complained: false,
            span: tracing::Span::none(),
        }
    }

    /// The streams, once the session is ready.
    pub fn streams(&mut self) -> Option<&mut Streams> {
        match &mut self.state {
            State::Ready(_, streams) => Some(streams),
            _ => None,
        }
    }

    /// Moves what the streams have to send into the channel.
    pub fn move_up(&mut self) {
        if let State::Ready(session, streams) = &mut self.state {
            streams.move_up(&mut session.link);
        }
    }

    /// The next event. Pends while there is nothing to tell.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, may_deliver: bool) -> Poll<ExtraEvent> {
        loop {
            let _named = self.span.clone().entered();
            match &mut self.state {
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = State::Starting((self.starter)());
                }
                State::Starting(starting) => match ready!(starting.as_mut().poll(cx)) {
                    Ok(started) => {
                        // At the level that no filter leaves out, so that each line of the session has it.
                        self.span = tracing::error_span!("further", id = %started.id);
                        self.state = State::Opening(Box::new(started));
                    }
                    Err(reason) => return Poll::Ready(self.fail(&reason)),
                },
                State::Opening(session) => {
                    let event = ready!(std::pin::pin!(session.link.next(true)).poll(cx));
                    if let Some(reason) = self.handle_opening(event) {
                        return Poll::Ready(self.fail(&reason));
                    }
                    if let State::Ready(..) = &self.state {
                        tracing::info!("a further session is ready");
                        return Poll::Ready(ExtraEvent::Progress);
                    }
                }
                State::Ready(session, _) => {
                    let event = ready!(std::pin::pin!(session.link.next(may_deliver)).poll(cx));
                    return Poll::Ready(self.handle_ready(event));
                }
            }
        }
    }

    /// When [`Extra::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Ready(_, streams) => streams.next_timeout(),
            _ => None,
        }
    }

    /// Lets the streams do what is due.
    pub fn handle_timeout(&mut self) -> Option<ExtraEvent> {
        let _named = self.span.clone().entered();
        let State::Ready(_, streams) = &mut self.state else { return None };
        let failed = streams.handle_timeout().err()?;
        Some(self.fail(&failed.to_string()))
    }

    /// Asks the agent to end the session, and waits until it has taken that.
    pub async fn terminate(self) {
        let (State::Opening(mut session) | State::Ready(mut session, _)) = self.state else { return };
        let Started { id, link, aws } = &mut *session;
        ending::terminate(link, true, Some(aws), id).instrument(self.span).await;
    }

    /// `Some` is the reason of a failure.
    fn handle_opening(&mut self, event: LinkEvent) -> Option<String> {
        match event {
            LinkEvent::Channel(Event::Ready(SessionKind::Port(port))) if port.is_forwarding() => {
                let waiting = State::Waiting(Box::pin(tokio::time::sleep_until(Instant::now())));
                if let State::Opening(session) = std::mem::replace(&mut self.state, waiting) {
                    let capabilities = session.link.capabilities();
                    if !capabilities.multiplexing {
                        return Some("its agent forwards one connection at a time".into());
                    }
                    let lane: LaneId = self.next_lane.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let (reports, gauge) = (self.reports.clone(), self.gauge.clone());
                    let journal = self.journal.clone();
                    let streams = Box::new(Streams::new(
                        capabilities.smux_keepalive_off,
                        lane,
                        reports,
                        gauge,
                        journal,
                    ));
                    self.state = State::Ready(session, streams);
                    self.failures = 0;
                }
                None
            }
            LinkEvent::Channel(Event::Ready(_)) => Some("it is not a forwarding session".into()),
            other => ended(other),
        }
    }

    fn handle_ready(&mut self, event: LinkEvent) -> ExtraEvent {
        let State::Ready(_, streams) = &mut self.state else { return ExtraEvent::Progress };
        match event {
            LinkEvent::Channel(Event::Output(bytes)) => match streams.move_down(bytes) {
                Ok(()) => ExtraEvent::Progress,
                Err(error) => self.fail(&error.to_string()),
            },
            LinkEvent::Channel(Event::PortRefused) => ExtraEvent::PortRefused,
            other => match ended(other) {
                Some(reason) => self.fail(&reason),
                None => ExtraEvent::Progress,
            },
        }
    }

    /// Drops the session, and its connections with it, and plans the next attempt.
    fn fail(&mut self, reason: &str) -> ExtraEvent {
        tracing::warn!(reason, "a further session has failed");
        self.span = tracing::Span::none();
        let delay = FIRST_RETRY * 2u32.saturating_pow(self.failures.min(MAX_DOUBLINGS));
        self.failures += 1;
        self.state = State::Waiting(Box::pin(tokio::time::sleep(delay)));
        if std::mem::replace(&mut self.has_complained, true) {
            return ExtraEvent::Progress;
        }
        ExtraEvent::Status(format!("going on with fewer sessions: {reason}"))
    }
}

/// Why a session is over, if this event ends it.
fn ended(event: LinkEvent) -> Option<String> {
    match event {
        LinkEvent::GaveUp(reason) => Some(reason.to_string()),
        LinkEvent::Channel(Event::Closed(reason)) => Some(reason.to_string()),
        _ => None,
    }
}

/// Before a failed session is tried again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// At most about two minutes.
const MAX_DOUBLINGS: u32 = 6;
