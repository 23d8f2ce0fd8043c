//! A command inside another program: its streams and its status, without console, signals and settings.

use std::collections::VecDeque;
use std::pin::pin;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::embedded::{self, EmbeddedError};
use super::ending::{End, LeftoverSession};
use super::live::LiveSession;
use super::marked::Script;
use super::starter::Starter;
use crate::link::{GaveUp, LinkEvent};
use crate::protocol::{CloseReason, Event, SessionKind};

/// Output of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandChunk {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// End of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// The command has ended with this status.
    Status(i32),
    /// The session has ended without a status, for this reason.
    Closed(String),
    /// It was stopped.
    Stopped,
}

/// Runs a command in a session that `starter` starts, and passes its output on. While nothing takes the output, no more is
/// read from the session. Ends the session.
///
/// # Errors
/// See [`EmbeddedError`].
pub(crate) async fn run_command(
    starter: &Starter,
    mut script: Script,
    chunks: mpsc::Sender<CommandChunk>,
    stop: impl Future<Output = ()>,
) -> Result<CommandOutcome, EmbeddedError> {
    let mut stop = pin!(stop);
    let Some((mut session, kind)) = embedded::start(starter, &mut stop).await? else {
        return Ok(CommandOutcome::Stopped);
    };
    if kind != SessionKind::Command {
        embedded::end(LeftoverSession::Open(Box::new(session))).await;
        return Err(EmbeddedError::Unsupported(NOT_A_COMMAND));
    }
    let mut exit_code = None;
    let outcome = tokio::select! {
        outcome = carry(&mut session, &mut script, &chunks, &mut exit_code) => Some(outcome),
        () = &mut stop => None,
    };
    let is_over = matches!(&outcome, Some(Ok(_)));
    let session = Box::new(session);
    embedded::end(if is_over { LeftoverSession::Over(session) } else { LeftoverSession::Open(session) })
        .await;
    let Some(outcome) = outcome else { return Ok(CommandOutcome::Stopped) };
    let reason = outcome?;
    let implied = End::Closed(reason.clone()).implied_exit_code();
    let status = exit_code.or(script.status().map(i32::from)).or(implied);
    Ok(status.map_or(CommandOutcome::Closed(reason), CommandOutcome::Status))
}

/// Passes output on until the service closes the session. Returns the service's reason, which may be empty.
async fn carry(
    session: &mut LiveSession,
    script: &mut Script,
    chunks: &mpsc::Sender<CommandChunk>,
    exit_code: &mut Option<i32>,
) -> Result<String, EmbeddedError> {
    let mut waiting = VecDeque::new();
    let mut end = None;
    loop {
        if let (Some(end), true) = (&mut end, waiting.is_empty()) {
            return std::mem::replace(end, Ok(String::new()));
        }
        tokio::select! {
            event = session.link.next(waiting.is_empty()), if end.is_none() => match event {
                LinkEvent::Channel(Event::Output(bytes)) => {
                    let bytes = script.handle_output(&bytes);
                    waiting.extend((!bytes.is_empty()).then(|| CommandChunk::Stdout(bytes.into())));
                }
                LinkEvent::Channel(Event::Stderr(bytes)) => waiting.push_back(CommandChunk::Stderr(bytes)),
                LinkEvent::Channel(Event::ExitCode { code, .. }) => *exit_code = code,
                event => if let Some(over) = over(event) {
                    let rest = script.finish();
                    waiting.extend((!rest.is_empty()).then(|| CommandChunk::Stdout(rest.into())));
                    end = Some(over);
                },
            },
            room = chunks.reserve(), if !waiting.is_empty() => match room {
                Ok(room) => if let Some(chunk) = waiting.pop_front() {
                    room.send(chunk);
                },
                // Nothing reads it any more; the command runs to its end.
                Err(_) => waiting.clear(),
            },
        }
    }
}

/// The end of a session that an event of its link means.
fn over(event: LinkEvent) -> Option<Result<String, EmbeddedError>> {
    match event {
        LinkEvent::GaveUp(reason @ GaveUp::SessionGone) => Some(Ok(reason.to_string())),
        LinkEvent::GaveUp(reason) => Some(Err(EmbeddedError::GaveUp(reason))),
        LinkEvent::Channel(Event::Closed(CloseReason::ByService(output))) => Some(Ok(output)),
        LinkEvent::Channel(Event::Closed(reason)) => Some(Err(EmbeddedError::Failed(reason.to_string()))),
        _ => None,
    }
}

const NOT_A_COMMAND: &str = "the agent does not run a command session";
