//! Ending sessions at the agent and the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, pending};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::live::LiveSession;
use super::starter::Starting;
use crate::aws::{self, AwsError};
use crate::link::{Link, LinkEvent};
use crate::output::{Cause, Status};
use crate::protocol::{Event, Flag, Input};

/// Reason that a session's loop ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The service closed the channel; its reason, empty for none.
    Closed(String),
    /// Input and output have ended.
    Finished,
    /// The reader of stdout is gone.
    ReaderGone,
    /// A signal ended a port session, which has a separate message for that.
    Interrupted,
    /// A signal, an escape or the death of our parent requested it.
    Terminated,
    /// It cannot be resumed: the service has ended it.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
    /// It cannot continue.
    Failed(String),
}

impl End {
    /// The exit status of a command that the agent could not start. Only sessions with separate output streams carry a
    /// status: the agent's own then.
    pub(super) fn implied_exit_code(&self) -> Option<i32> {
        let End::Closed(output) = self else { return None };
        NOT_STARTED.iter().any(|beginning| output.trim_start().starts_with(beginning)).then_some(1)
    }

    /// The last event of the run.
    pub(super) fn status(&self) -> Status {
        let (cause, reason) = match self {
            End::Closed(output) => (Cause::Closed, output.as_str()),
            End::Finished => (Cause::Finished, ""),
            End::ReaderGone => (Cause::ReaderGone, ""),
            End::Interrupted => (Cause::Interrupted, ""),
            End::Terminated => (Cause::Terminated, ""),
            End::TimedOut => (Cause::TimedOut, ""),
            End::NotStarted(reason) => (Cause::NotStarted, reason.as_str()),
            End::Failed(reason) => (Cause::Failed, reason.as_str()),
        };
        Status::End { cause, reason: reason.to_owned() }
    }
}

/// A session that has to be cleaned up.
pub(super) enum LeftoverSession {
    /// It is open at the service and must be ended there.
    Open(Box<LiveSession>),
    /// The service knows that it is over.
    Over(Box<LiveSession>),
    /// It was requested: when it comes, it must be ended.
    Starting(Starting),
}

/// Ends sessions in the background.
///
/// A session that is being ended holds its link with all that has arrived on it. [`MAX_LINKS`] keep theirs at a time, to
/// end through the agent; of the others only the id is kept, to end them through the service.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    tasks: JoinSet<()>,
    /// Counts the links that are kept, by its clones.
    links: Arc<()>,
    /// The end of the run waits for the tasks.
    is_awaited: Arc<AtomicBool>,
}

impl Reaper {
    /// Begins to end a session.
    pub(super) fn end(&mut self, leftover: LeftoverSession) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= MAX_ENDING {
            return tracing::warn!("too many sessions are being ended: one may still be open at the service");
        }
        match leftover {
            // Without credentials of ours it can be ended through the agent only.
            LeftoverSession::Open(session) if session.has_credentials && !self.may_keep_link() => {
                let LiveSession { id, aws, .. } = *session;
                self.spawn(async move { terminate_at_service(&aws, &id).await });
            }
            LeftoverSession::Over(session) if !self.may_keep_link() => drop(session),
            leftover => {
                let (link, is_awaited) = (Arc::clone(&self.links), Arc::clone(&self.is_awaited));
                self.spawn(async move {
                    end(leftover, &is_awaited).await;
                    drop(link);
                });
            }
        }
    }

    fn may_keep_link(&self) -> bool {
        // One is the reaper's own.
        Arc::strong_count(&self.links) <= MAX_LINKS
    }

    fn spawn(&mut self, ending: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(ending.in_current_span());
    }

    /// Waits until all are ended, for [`TERMINATE_TIMEOUT`] at most.
    pub(super) async fn finish(&mut self) {
        self.finish_by(Instant::now() + TERMINATE_TIMEOUT, pending()).await;
    }

    /// Waits until all are ended. Those that are not by `until`, or when `insisted` completes, are left to the service's
    /// timeout.
    pub(super) async fn finish_by(&mut self, until: Instant, insisted: impl Future<Output = ()>) {
        self.is_awaited.store(true, Ordering::Relaxed);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = ended => return,
            () = tokio::time::sleep_until(until) => {
                tracing::warn!("the end of a session was not confirmed in time");
            }
            () = insisted => tracing::warn!("a second signal: the end of a session is not waited for"),
        }
        self.tasks.shutdown().await;
    }
}

async fn end(leftover: LeftoverSession, is_awaited: &AtomicBool) {
    let mut session = match leftover {
        LeftoverSession::Open(session) => session,
        LeftoverSession::Over(session) => return session.link.close().await,
        LeftoverSession::Starting(starting) => match starting.await {
            Ok(session) => Box::new(session),
            Err(_) => return,
        },
    };
    terminate(&mut session, is_awaited).await;
    session.link.close().await;
}

/// Ends sessions at the service, within [`TERMINATE_TIMEOUT`], when nothing is left of their links: after a panic.
pub(super) async fn end_all(ids: Vec<String>, terminate: impl AsyncFn(String) -> Result<(), AwsError>) {
    let ends = ids.into_iter().map(|id| async {
        if let Err(error) = terminate(id).await {
            tracing::warn!(%error, "the session may still be open at the service");
        }
    });
    let _ = tokio::time::timeout(TERMINATE_TIMEOUT, join_all(ends)).await;
}

/// Ends a session: through the agent if it understands that and takes it, else through the service. Only the agent's
/// port sessions read the flag; others acknowledge it and continue.
async fn terminate(session: &mut LiveSession, is_awaited: &AtomicBool) {
    let link = &mut session.link;
    let has_flag = session.reads_flags && link.is_open() && link.capabilities().terminate_flag;
    if has_flag && agent_has_taken_it(link, is_awaited).await {
        return;
    }
    if session.has_credentials {
        terminate_at_service(&session.aws, &session.id).await;
    }
}

async fn terminate_at_service(aws: &aws::Client, session_id: &str) {
    if let Err(error) = aws.terminate(session_id).await {
        tracing::warn!(%error, "the session may still be open at the service");
    }
}

/// Sends the flag when all before it is acknowledged, and waits for its acknowledgement. That wait is short, and no
/// acknowledgement is no failure: the agent's listener is free, and either takes the flag or blocks on it forever,
/// because the destination has closed first and the agent is ending the session anyway (PROTOCOL.md, section 7). Unless the
/// websocket has been silent before: then its path may be dead, and the request to the service takes another one. During
/// the run nothing waits for the end of a session, and without an acknowledgement the service is requested to end it, too.
async fn agent_has_taken_it(link: &mut Link, is_awaited: &AtomicBool) -> bool {
    let until = Instant::now() + FLAG_TIMEOUT;
    match acknowledged(link, until).await {
        Some(DrainOutcome::Acknowledged) => {}
        over => return matches!(over, Some(DrainOutcome::Closed)),
    }
    link.send(Input::Flag(Flag::TerminateSession));
    let sent = Instant::now();
    let soon = sent + flag_timeout(link.stats().rtt);
    let taken = match acknowledged(link, until.min(soon)).await {
        None if link.is_open() && link.is_sent() => {
            return is_awaited.load(Ordering::Relaxed) && was_alive(link, sent);
        }
        // It could not leave: the agent is not there, perhaps because the session is ending.
        None => acknowledged(link, until).await,
        taken => taken,
    };
    matches!(taken, Some(DrainOutcome::Acknowledged | DrainOutcome::Closed))
}

/// Returns whether something had arrived shortly before `now`.
fn was_alive(link: &Link, now: Instant) -> bool {
    link.last_contact().is_some_and(|contact| now.saturating_duration_since(contact) <= ALIVE)
}

/// End of the wait for acknowledgements.
enum DrainOutcome {
    Acknowledged,
    Closed,
    Lost,
}

/// Waits until all that was sent is acknowledged; `None` if it is not by then.
async fn acknowledged(link: &mut Link, until: Instant) -> Option<DrainOutcome> {
    let drained = async {
        loop {
            match link.next_until_drained().await {
                None => return DrainOutcome::Acknowledged,
                Some(LinkEvent::Channel(Event::Closed(_))) => return DrainOutcome::Closed,
                Some(LinkEvent::GaveUp(_) | LinkEvent::Lost(_)) => return DrainOutcome::Lost,
                Some(_) => {}
            }
        }
    };
    tokio::time::timeout_at(until, drained).await.ok()
}

/// Time limit for the acknowledgement of the flag when nothing is before it.
fn flag_timeout(round_trip: Duration) -> Duration {
    (FLAG_ROUND_TRIPS * round_trip).clamp(MIN_FLAG_TIMEOUT, FLAG_TIMEOUT)
}

/// The agent's errors for a command that it cannot start (its `shell.go`, `Execute` and the two `processCommandsWith…`).
const NOT_STARTED: [&str; 2] = ["Error occurred starting the command:", "Unable to start command:"];
/// Sessions being ended that keep their links.
const MAX_LINKS: usize = 8;
/// Sessions being ended. More than a run starts before the first of them are ended.
const MAX_ENDING: usize = 256;
/// Time limit for ending all sessions.
pub(super) const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
/// After that the request goes to the service instead of the agent, which may still be busy with what came before the flag.
const FLAG_TIMEOUT: Duration = Duration::from_secs(1);
/// An acknowledgement takes one; the rest is for a variation as large as the round trip itself.
const FLAG_ROUND_TRIPS: u32 = 4;
/// Time after which an idle websocket no longer shows that its path carries anything.
const ALIVE: Duration = Duration::from_secs(2);
/// On a short path the agent's machine decides.
const MIN_FLAG_TIMEOUT: Duration = Duration::from_millis(50);
#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};

    use super::*;
    use crate::aws::ErrorKind;
    use crate::link::{self, Network};
    use crate::secret::Secret;

    #[test]
    fn the_flag_waits_four_round_trips() {
        let ms = Duration::from_millis;
        for (round_trip, limit) in [(1, 50), (12, 50), (13, 52), (150, 600), (250, 1000), (900, 1000)] {
            assert_eq!(flag_timeout(ms(round_trip)), ms(limit), "{round_trip}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_sessions_are_ended_even_if_some_cannot_be() {
        let ended = Mutex::new(Vec::new());
        let terminate = async |id: String| {
            if id == "stuck" {
                std::future::pending::<()>().await;
            }
            ended.lock().unwrap().push(id);
            Err(AwsError::new("ssm:TerminateSession", ErrorKind::Denied, "no"))
        };
        end_all(["one", "stuck", "two"].map(str::to_owned).to_vec(), terminate).await;
        assert_eq!(*ended.lock().unwrap(), ["one", "two"]);
    }

    /// A session, and the token that its link owns.
    fn session(has_credentials: bool) -> (Box<LiveSession>, Weak<Secret>) {
        let token = Arc::new(Secret::new("token".to_owned()));
        let owned = Arc::downgrade(&token);
        let target = link::Target {
            session_id: String::new(),
            url: "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s".parse().unwrap(),
            token,
            network: Arc::new(Network::new(link::StreamHosts::default(), None)),
            aws: None,
            sign_first: false,
        };
        let link = Link::new(link::Config::default(), target);
        let aws = Arc::new(aws::Client::new(aws::AwsContext::default()));
        let mut session = LiveSession::new(String::new(), link, aws);
        (session.has_credentials, session.reads_flags) = (has_credentials, true);
        (Box::new(session), owned)
    }

    /// Nothing is awaited, so none of the ends makes progress.
    #[tokio::test]
    async fn a_few_sessions_that_are_being_ended_keep_their_links() {
        let mut reaper = Reaper::default();
        let mut links = Vec::new();
        for number in 0..2 * MAX_ENDING {
            let (session, link) = session(true);
            reaper.end(if number % 2 == 0 {
                LeftoverSession::Open(session)
            } else {
                LeftoverSession::Over(session)
            });
            links.push(link);
        }
        assert_eq!(links.iter().filter(|link| link.strong_count() > 0).count(), MAX_LINKS);
        assert!(reaper.tasks.len() <= MAX_ENDING, "{}", reaper.tasks.len());
        let mut reaper = Reaper::default();
        for _ in 0..2 * MAX_LINKS {
            let (session, link) = session(false);
            reaper.end(LeftoverSession::Open(session));
            links.push(link);
        }
        let kept = links.iter().rev().take(2 * MAX_LINKS).filter(|link| link.strong_count() > 0).count();
        assert_eq!(kept, 2 * MAX_LINKS, "they can be ended through the agent only");
    }

    /// A start that hangs costs the time limit once, although the end waits before and after its message.
    #[tokio::test(start_paused = true)]
    async fn what_was_not_ended_in_time_is_not_waited_for_again() {
        let mut reaper = Reaper::default();
        reaper.end(LeftoverSession::Starting(Box::pin(pending())));
        let begin = Instant::now();
        reaper.finish().await;
        reaper.finish().await;
        assert_eq!(begin.elapsed(), TERMINATE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_wait() {
        let mut reaper = Reaper::default();
        reaper.end(LeftoverSession::Starting(Box::pin(pending())));
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        reaper.finish_by(begin + TERMINATE_TIMEOUT, tokio::time::sleep(second)).await;
        assert_eq!((begin.elapsed(), reaper.tasks.len()), (second, 0));
    }
}
