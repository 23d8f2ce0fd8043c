//! A session that has been started, and what its loops have in common.

use super::ending::{End, LeftoverSession, Reaper};
use super::live::LiveSession;
use super::marked::Script;
use super::port::Ports;
use super::shutdown::Shutdown;
use super::starter::Starter;
use super::watch::Watch;
use crate::link::{GaveUp, LinkEvent};
use crate::output::{Console, Status, Style, Subject, official, sentences};
use crate::protocol::{CloseReason, Event};
use crate::settings::Settings;

/// The session of argv, with the caller's side of it.
pub(super) struct Session {
    pub live: LiveSession,
    pub settings: Settings,
    /// The instance or container, as the request names it.
    pub target: Option<String>,
    pub console: Console,
    pub watch: Watch,
    /// The remote command's status, once the agent has sent it.
    pub exit_code: Option<i32>,
    /// Starts additional sessions like this one, where the caller has passed what that takes.
    pub starter: Option<Starter>,
    /// The ports that it listens on.
    pub ports: Ports,
    /// The command whose status is in the output.
    pub script: Option<Script>,
}

/// End of the remote command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CommandEnd {
    /// Its status, if the agent or its output has named it.
    pub exit_code: Option<i32>,
    /// PowerShell has printed an error in a [`Script`].
    pub has_powershell_error: bool,
}

impl Session {
    /// Handles an event that the kind of session does not handle itself.
    pub(super) fn handle(&mut self, event: LinkEvent) -> Option<End> {
        match event {
            LinkEvent::Channel(Event::ExitCode { code, text }) => {
                self.exit_code = code;
                if !self.settings.quiet && self.console.style() == Style::Official {
                    self.console.write_if_room(&text);
                }
                None
            }
            event => {
                let of = Subject { session: Some(self.live.id.clone()), destination: None };
                report_event(&mut self.console, of, event)
            }
        }
    }

    /// Prints what a script has held back of its output. Returns the end of the remote command.
    pub(super) fn finish_command(&mut self) -> CommandEnd {
        let mut end = CommandEnd { exit_code: self.exit_code, has_powershell_error: false };
        if let Some(script) = &mut self.script {
            self.console.write(&script.finish());
            end.exit_code = end.exit_code.or(script.status().map(i32::from));
            end.has_powershell_error = script.has_powershell_error();
        }
        end
    }

    /// Prints the state of the session on stderr, as SIGUSR1 and `~#` ask for.
    pub(super) fn report(&mut self) {
        let text = sentences::report(&self.live.id, self.live.link.is_open(), &self.live.link.stats(), None);
        self.console.announce(&Status::message(text));
    }

    /// Separates the session, which can be run or ended alone, from the caller's side.
    pub(super) fn split(self) -> (LiveSession, Front) {
        let Session { live, settings, console, watch, starter, ports, .. } = self;
        let id = live.id.clone();
        (live, Front { id, settings, console, watch, starter, ports })
    }

    /// Prepares the end of a run of one session.
    pub(super) fn into_shutdown(self, end: &End) -> Shutdown {
        let (session, front) = self.split();
        let leftover = match end {
            End::Closed(_) | End::TimedOut => LeftoverSession::Over(Box::new(session)),
            _ => LeftoverSession::Open(Box::new(session)),
        };
        front.into_shutdown(vec![leftover], Reaper::default())
    }
}

/// The caller's side of a run: settings, output, signals.
pub(super) struct Front {
    /// The first session's id.
    pub id: String,
    pub settings: Settings,
    pub console: Console,
    pub watch: Watch,
    pub starter: Option<Starter>,
    pub ports: Ports,
}

impl Front {
    /// Prepares the end of the run.
    pub(super) fn into_shutdown(self, leftovers: Vec<LeftoverSession>, reaper: Reaper) -> Shutdown {
        let Front { id, console, watch, .. } = self;
        Shutdown { id, console, watch, leftovers, reaper, is_requested: false, ignores_stdout_errors: false }
    }
}

/// Reports an event to the user. Returns the end, if the event is one.
pub(super) fn report_event(console: &mut Console, of: Subject, event: LinkEvent) -> Option<End> {
    let message = |of, text: String| Status::Message { of, text, is_failure: false };
    let status = match event {
        LinkEvent::Lost(reason) => Status::Lost { of, reason },
        LinkEvent::Resumed => Status::Resumed { of },
        LinkEvent::WantsInput => return None,
        LinkEvent::Connecting { host, waited } => {
            console.progress(&sentences::connecting(&host, waited));
            return None;
        }
        LinkEvent::Warning(text) => message(of, text),
        LinkEvent::GaveUp(GaveUp::SessionGone) => return Some(End::TimedOut),
        LinkEvent::GaveUp(reason) => return Some(End::Failed(sentences::gave_up(reason))),
        LinkEvent::Channel(event) => match event {
            Event::Closed(CloseReason::ByService(output)) => return Some(End::Closed(output)),
            Event::Closed(reason) => return Some(End::Failed(reason.to_string())),
            Event::Notice { text, is_unprotected } => {
                console.repeat(&official::customer_message(&text));
                if is_unprotected {
                    console.report_failure(sentences::UNPROTECTED);
                }
                return None;
            }
            Event::Paused(true) => Status::Paused { of },
            Event::Paused(false) => Status::Unpaused { of },
            Event::Stalled(silence) => message(of, sentences::no_progress(silence)),
            Event::Stderr(bytes) | Event::Output(bytes) => {
                tracing::debug!(length = bytes.len(), "dropped output that no session expects");
                return None;
            }
            Event::DataKeyNeeded(_)
            | Event::ExitCode { .. }
            | Event::Listening
            | Event::PortRefused
            | Event::Ready(_) => return None,
        },
    };
    console.report(&status);
    None
}
