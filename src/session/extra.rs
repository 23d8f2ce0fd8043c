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
use crate::link::{GaveUp, Link, LinkEvent};
use crate::protocol::{CloseReason, Event, SessionKind};

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

/// Makes the gauge of each session that becomes ready.
pub(super) type MakeGauge = Arc<dyn Fn() -> Gauge>;

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
    make_gauge: MakeGauge,
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
        make_gauge: MakeGauge,
        journal: Arc<Journal>,
        next_lane: Arc<std::sync::atomic::AtomicU64>,
    ) -> Extra {
        let state = State::Waiting(Box::pin(tokio::time::sleep_until(Instant::now())));
        Extra {
            state,
            starter,
            reports,
            make_gauge,
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
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ExtraEvent> {
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
                    Err(reason) => return Poll::Ready(self.fail(Failure::here(reason))),
                },
                State::Opening(session) => {
                    let event = ready!(std::pin::pin!(session.link.next(true)).poll(cx));
                    if let Some(failure) = self.handle_opening(event) {
                        return Poll::Ready(self.fail(failure));
                    }
                    if let State::Ready(..) = &self.state {
                        tracing::info!("a further session is ready");
                        return Poll::Ready(ExtraEvent::Progress);
                    }
                }
                State::Ready(session, streams) => {
                    let event = ready!(std::pin::pin!(session.link.next(streams.has_room())).poll(cx));
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
        match streams.handle_timeout() {
            Ok(()) => streams.notice().map(ExtraEvent::Status),
            Err(error) => Some(self.fail(Failure::here(error.to_string()))),
        }
    }

    /// Asks the agent to end the session, and waits until it has taken that. One that is being started was asked for
    /// already: it is waited for, and ended.
    pub async fn terminate(self) {
        let ended = async move {
            let mut session = match self.state {
                State::Waiting(_) => return,
                State::Starting(starting) => match starting.await {
                    Ok(started) => Box::new(started),
                    Err(_) => return,
                },
                State::Opening(session) | State::Ready(session, _) => session,
            };
            let Started { id, link, aws } = &mut *session;
            ending::terminate(link, true, Some(aws), id).await;
        };
        if tokio::time::timeout(ending::TERMINATE_TIMEOUT, ended.instrument(self.span)).await.is_err() {
            tracing::warn!("the end of a further session was not confirmed in time");
        }
    }

    fn handle_opening(&mut self, event: LinkEvent) -> Option<Failure> {
        match event {
            LinkEvent::Channel(Event::Ready(SessionKind::Port(port))) if port.is_forwarding() => {
                let State::Opening(session) = &self.state else { return None };
                let capabilities = session.link.capabilities();
                if !capabilities.multiplexing {
                    return Some(Failure::here("its agent forwards one connection at a time"));
                }
                let lane: LaneId = self.next_lane.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (reports, gauge) = (self.reports.clone(), Arc::new((self.make_gauge)()));
                let journal = self.journal.clone();
                let streams = Streams::new(capabilities.smux_keepalive_off, lane, reports, gauge, journal);
                let waiting = State::Waiting(Box::pin(tokio::time::sleep_until(Instant::now())));
                if let State::Opening(session) = std::mem::replace(&mut self.state, waiting) {
                    self.state = State::Ready(session, Box::new(streams));
                    self.failures = 0;
                }
                None
            }
            LinkEvent::Channel(Event::Ready(_)) => Some(Failure::here("it is not a forwarding session")),
            other => Failure::of(other),
        }
    }

    fn handle_ready(&mut self, event: LinkEvent) -> ExtraEvent {
        let State::Ready(_, streams) = &mut self.state else { return ExtraEvent::Progress };
        match event {
            LinkEvent::Channel(Event::Output(bytes)) => match streams.move_down(bytes) {
                Ok(()) => ExtraEvent::Progress,
                Err(error) => self.fail(Failure::here(error.to_string())),
            },
            LinkEvent::Channel(Event::PortRefused) => ExtraEvent::PortRefused,
            other => match Failure::of(other) {
                Some(failure) => self.fail(failure),
                None => ExtraEvent::Progress,
            },
        }
    }

    /// Drops the session, and its connections with it, and plans the next attempt.
    fn fail(&mut self, failure: Failure) -> ExtraEvent {
        let Failure { reason, is_over } = failure;
        tracing::warn!(reason, "a further session has failed");
        self.span = tracing::Span::none();
        let delay = FIRST_RETRY * 2u32.saturating_pow(self.failures.min(MAX_DOUBLINGS));
        self.failures += 1;
        let waiting = State::Waiting(Box::pin(tokio::time::sleep(delay)));
        let given_up = std::mem::replace(&mut self.state, waiting);
        if let State::Opening(session) | State::Ready(session, _) = given_up
            && !is_over
        {
            // Nobody else would end it, and open sessions count.
            tokio::spawn(async move { session.aws.terminate(&session.id).await });
        }
        if std::mem::replace(&mut self.has_complained, true) {
            return ExtraEvent::Progress;
        }
        ExtraEvent::Status(format!("going on with fewer sessions: {reason}"))
    }
}

/// Why we are done with a session.
struct Failure {
    reason: String,
    /// The service knows: it has ended the session itself.
    is_over: bool,
}

impl Failure {
    fn here(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), is_over: false }
    }

    /// `None` for an event that ends nothing.
    fn of(event: LinkEvent) -> Option<Failure> {
        match event {
            LinkEvent::GaveUp(reason) => {
                Some(Failure { is_over: matches!(reason, GaveUp::SessionGone), reason: reason.to_string() })
            }
            LinkEvent::Channel(Event::Closed(reason)) => Some(Failure {
                is_over: matches!(reason, CloseReason::ByService(_)),
                reason: reason.to_string(),
            }),
            _ => None,
        }
    }
}

/// Before a failed session is tried again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// At most about two minutes.
const MAX_DOUBLINGS: u32 = 6;
