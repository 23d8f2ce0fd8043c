//! Sessions inside another program: their start and their end, without console, signals and settings.

use std::pin::pin;

use super::access::Access;
use super::ending::{self, LeftoverSession, Reaper};
use super::live::{LiveSession, Opening};
use super::port::ListenError;
use super::starter::{StartError, Starter};
use crate::link::{GaveUp, LinkEvent};
use crate::protocol::{CloseReason, Event, SessionKind};

/// Reason that a session could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    GaveUp(GaveUp),
    /// Closed by the service, with its reason, which may be empty.
    #[error("the service closed the session: {0}")]
    Closed(String),
    /// The channel cannot continue.
    #[error("{0}")]
    Failed(String),
    /// The session is encrypted, and there is no data key for it.
    #[error("cannot encrypt the session: {0}")]
    Key(String),
    /// The agent runs another kind of session than the request was for.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// Starts a session and waits until it is ready; `None` if `stop` completes before. A session that is not returned is ended.
///
/// # Errors
/// See [`EmbeddedError`].
pub(super) async fn start(
    starter: &Starter,
    stop: impl Future<Output = ()>,
) -> Result<Option<(LiveSession, SessionKind)>, EmbeddedError> {
    let mut stop = pin!(stop);
    let mut starting = starter.start();
    let mut session = tokio::select! {
        started = &mut starting => started?,
        () = &mut stop => {
            end(LeftoverSession::Starting(starting)).await;
            return Ok(None);
        }
    };
    let ready = tokio::select! {
        ready = ready(&mut session) => ready.map(Some),
        () = &mut stop => Ok(None),
    };
    match ready {
        Ok(Some(kind)) => Ok(Some((session, kind))),
        not_ready => {
            let is_over = matches!(
                not_ready,
                Err(EmbeddedError::Closed(_)
                    | EmbeddedError::Key(_)
                    | EmbeddedError::GaveUp(GaveUp::SessionGone))
            );
            let session = Box::new(session);
            end(if is_over { LeftoverSession::Over(session) } else { LeftoverSession::Open(session) }).await;
            not_ready.map(|_| None)
        }
    }
}

/// Ends a session, within the reaper's time limit.
pub(super) async fn end(leftover: LeftoverSession) {
    let mut reaper = Reaper::default();
    reaper.end(leftover);
    reaper.finish().await;
}

/// Ends all sessions that were started on this way, when nothing is left of their links: after a panic.
pub(crate) async fn end_started(access: &Access) {
    let aws = &access.aws;
    ending::end_all(aws.started(), async |id| aws.terminate(&id).await).await;
}

async fn ready(session: &mut LiveSession) -> Result<SessionKind, EmbeddedError> {
    let mut key_failure = None;
    loop {
        match session.open().await {
            Opening::Ready(kind) => return Ok(kind),
            // The agent is informed, and closes the session.
            Opening::KeyFailed(reason) => key_failure = Some(reason),
            Opening::Link(LinkEvent::GaveUp(reason)) => return Err(EmbeddedError::GaveUp(reason)),
            Opening::Link(LinkEvent::Channel(Event::Closed(reason))) => {
                return Err(match (key_failure, reason) {
                    (Some(reason), _) => EmbeddedError::Key(reason),
                    (None, CloseReason::ByService(output)) => EmbeddedError::Closed(output),
                    (None, reason) => EmbeddedError::Failed(reason.to_string()),
                });
            }
            Opening::Link(_) => {}
        }
    }
}
