//! The run of the session of argv: its opening, the loop of its kind, its end.

use std::io::{self, Write as _};
use std::sync::Arc;

use super::access::Access;
use super::ending::{self, End};
use super::live::Opening;
use super::marked::Script;
use super::port::{self, Ports};
use super::progress::{LOOK, StartProgress, Wait};
use super::shutdown::{Outcome, Shutdown, ends_session};
use super::state::{CommandEnd, Session};
use super::watch::Watch;
use super::{opening, shell, stdio};
use crate::cli::StartSession;
use crate::link::{GaveUp, LinkEvent};
use crate::output::{Cause, Console, Kind, Status, Style, WriteError, official, sentences};
use crate::panics;
use crate::process::{Parent, Signal};
use crate::protocol::{CloseReason, Event, SessionKind};
use crate::settings::Settings;
use crate::wire_log::Recording;

/// A session to run, for the AWS CLI or for a command of our own.
pub(crate) struct Run {
    pub start: StartSession,
    /// The way to AWS by which it was started, if that was in this process.
    pub access: Option<Access>,
    pub settings: Settings,
    pub recording: Option<Recording>,
    /// The caller whose death ends the session; `None` if it may leave.
    pub parent: Option<Parent>,
    pub style: Style,
    /// The ports that forwarding listens on.
    pub ports: Ports,
    /// The command whose status is in the session's output.
    pub script: Option<Script>,
}

/// Runs one session to its end.
pub(crate) async fn run(run: Run) -> Outcome {
    let Run { start, access, settings, recording, parent, style, ports, script } = run;
    let mut console = match Console::open(&settings, style) {
        Ok(console) => console,
        Err(error) => {
            let _ = io::stdout().write_all(official::cannot_start(error).as_bytes());
            return Outcome::default();
        }
    };
    let may_be_port = opening::may_be_port(&start, parent.as_ref());
    // From here on, a signal ends the session cleanly.
    let watch = Watch::start(parent.filter(|_| !settings.keep_alive_without_parent));
    console.set_next_step(sentences::investigate(
        start.profile.as_deref(),
        &start.region,
        start.target.as_deref(),
    ));
    log_start(&start);
    console.print(&official::starting_session(&start.session_id));
    console.report(&Status::Opening { session: start.session_id.clone() });
    match opening::open(start, access, settings, recording, console, watch, ports).await {
        Ok(mut session) => {
            session.script = script;
            let (id, aws) = (session.live.id.clone(), Arc::clone(&session.live.aws));
            let has_credentials = session.live.has_credentials;
            let run = async {
                // A frame that holds the states of all kinds of sessions would stay in memory as long as the process.
                let (end, command, closing) = Box::pin(drive(session, may_be_port)).await;
                tracing::info!(id = %closing.id, end = end.status().log_line(), "session ends");
                let exit_code = command.exit_code.or(end.implied_exit_code());
                let is_reader_gone = matches!(end, End::ReaderGone);
                let (is_well, signal) = closing.finish(end).await;
                let has_powershell_error = command.has_powershell_error;
                Outcome { is_well, exit_code, signal, is_reader_gone, has_powershell_error }
            };
            match panics::catch_last(run).await {
                Ok(outcome) => outcome,
                Err(panic) => {
                    tracing::error!(%panic, "ending all sessions");
                    let first = has_credentials.then_some(id);
                    let ids = first.into_iter().chain(aws.started());
                    ending::end_all(ids.collect(), async |id| aws.terminate(&id).await).await;
                    Outcome::default()
                }
            }
        }
        Err((mut console, error)) => {
            let reason = format!("{error:#}");
            console.fail(&official::cannot_start(&reason), &reason);
            console.suggest();
            console.report(&Status::End { cause: Cause::NotStarted, reason });
            if let Err(error @ WriteError::Failed(_)) = console.flush().await {
                console.report_failure(&error.to_string());
                let _ = console.flush().await;
            }
            Outcome::default()
        }
    }
}

/// Logs the session that was requested. The request's parameters are the user's, and not logged.
fn log_start(start: &StartSession) {
    let request = start.request.as_ref();
    let document = request.and_then(|request| request.get("DocumentName")?.as_str()).unwrap_or("default");
    let (region, target) = (start.region.as_str(), start.target.as_deref().unwrap_or_default());
    let profile = start.profile.as_deref().unwrap_or_default();
    let url = start.stream_url.split('?').next().unwrap_or_default();
    tracing::info!(
        document,
        target,
        region,
        profile,
        url,
        has_request = request.is_some(),
        "session requested"
    );
}

/// Runs the loop of the session's kind.
async fn drive(mut session: Box<Session>, may_be_port: bool) -> (End, CommandEnd, Shutdown) {
    let kind = match wait_until_ready(&mut session).await {
        Ok(SessionKind::Port(_)) if !may_be_port => {
            // An agent that starts what was not requested is not relied on to end it.
            session.live.reads_flags = false;
            Err(End::NotStarted(NOT_REQUESTED.to_owned()))
        }
        kind => kind,
    };
    if let Ok(kind) = &kind {
        let kind = match kind {
            SessionKind::Shell => "shell",
            SessionKind::Command => "command",
            SessionKind::Port(port) if port.is_forwarding() => "port",
            SessionKind::Port(_) => "ssh",
        };
        tracing::info!(id = %session.live.id, kind, "session ready");
    }
    if let Ok(kind) = &kind {
        show_relaxations(&mut session, matches!(kind, SessionKind::Port(port) if port.is_forwarding()));
    }
    let end = match kind {
        Ok(SessionKind::Shell) => {
            report_ready(&mut session, Kind::Shell);
            let line = session.script.as_mut().and_then(|script| script.line.take());
            let remote = line.map_or(shell::Remote::Terminal, shell::Remote::Typed);
            shell::run(&mut session, remote).await
        }
        Ok(SessionKind::Command) => {
            report_ready(&mut session, Kind::Command);
            shell::run(&mut session, shell::Remote::Streams).await
        }
        Ok(SessionKind::Port(port)) if port.is_forwarding() => {
            let (end, closing) = port::run(session, &port).await;
            return (end, CommandEnd::default(), closing);
        }
        Ok(SessionKind::Port(_)) => {
            report_ready(&mut session, Kind::Ssh);
            let end = stdio::run(&mut session).await.unwrap_or_else(End::from);
            let closing = session.into_shutdown(&end);
            return (end, CommandEnd::default(), closing);
        }
        Err(end) => Ok(end),
    };
    let end = end.unwrap_or_else(End::from);
    let command = session.finish_command();
    let closing = session.into_shutdown(&end);
    (end, command, closing)
}

fn report_ready(session: &mut Session, kind: Kind) {
    let id = Some(session.live.id.clone());
    session.console.report(&Status::Ready { kind, session: id, port: None, socket: None, destination: None });
    let unused = session.settings.of_ports();
    if !unused.is_empty() && session.console.style() == Style::Official {
        session.console.status(&sentences::without_effect(&unused));
    }
}

/// Names the safeguards that settings relax, to a person at a terminal.
fn show_relaxations(session: &mut Session, is_port: bool) {
    for relaxation in session.settings.relaxations() {
        if is_port || !relaxation.is_of_ports {
            session.console.progress(&relaxation.to_string());
        }
    }
}

async fn wait_until_ready(session: &mut Session) -> Result<SessionKind, End> {
    let mut progress = StartProgress::new(session.target.as_deref());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            step = session.live.open() => match step {
                Opening::Ready(kind) => return Ok(kind),
                Opening::KeyFailed(reason) => {
                    session.console.report_failure(&sentences::cannot_encrypt(reason));
                }
                Opening::Link(event) => if let Some(end) = handle_opening(session, event) { return Err(end) },
            },
            signal = session.watch.recv() => match signal {
                Signal::Usr1 => session.report(),
                signal if ends_session(signal) => return Err(End::Terminated),
                _ => {}
            },
            now = look.tick(), if session.console.shows_progress() => {
                let wait = if session.live.awaits_key() { Wait::DataKey } else { Wait::Agent };
                let wait = session.live.link.is_open().then_some(wait);
                progress.poll(now, wait).into_iter().for_each(|text| session.console.progress(&text));
            }
        }
    }
}

/// Handles an event before the session is ready. Returns the end, if the event is one.
fn handle_opening(session: &mut Session, event: LinkEvent) -> Option<End> {
    match event {
        LinkEvent::Channel(Event::Closed(reason)) if !matches!(reason, CloseReason::ByService(_)) => {
            Some(End::NotStarted(reason.to_string()))
        }
        // The service may say so before the agent has connected for the first time.
        LinkEvent::Channel(Event::Paused(_) | Event::Stalled(_)) => None,
        LinkEvent::GaveUp(GaveUp::SessionGone) => Some(End::TimedOut),
        LinkEvent::GaveUp(reason) => Some(End::NotStarted(reason.to_string())),
        other => session.handle(other),
    }
}

/// The request of the AWS CLI named no document, which starts a shell.
const NOT_REQUESTED: &str = "the agent started a port session, but a shell was requested";
