//! A session that has been started, and what its loops have in common.

use std::sync::Arc;

use tokio::time::Instant;

use super::ending::{Closing, End, Reaper, Remains};
use super::starter::{Started, Starter};
use super::watch::Watch;
use crate::aws;
use crate::link::{GaveUp, Link, LinkEvent};
use crate::output::{Console, Status, Style, Subject, official, sentences};
use crate::protocol::{CloseReason, DataKey, DataKeyRequest, Event};
use crate::settings::Settings;

/// A session that has been started.
pub(super) struct Session {
    pub id: String,
    pub settings: Settings,
    pub legacy: bool,
    /// The instance or container, as the request names it.
    pub target: Option<String>,
    pub aws: Arc<aws::Client>,
    /// Opened with the caller's signature; there are no credentials to end it with.
    pub is_presigned: bool,
    pub link: Link,
    pub console: Console,
    pub watch: Watch,
    /// The remote command's status, once the agent has sent it.
    pub exit_code: Option<i32>,
    /// Starts further sessions like this one, where the caller has passed what that takes.
    pub starter: Option<Starter>,
}

impl Session {
    /// Asks KMS, beside the session's loop: pings go on meanwhile.
    pub(super) fn data_key(
        &self,
        request: DataKeyRequest,
    ) -> impl Future<Output = Result<DataKey, String>> + use<> {
        let (aws, id, legacy) = (Arc::clone(&self.aws), self.id.clone(), self.legacy);
        async move {
            if legacy {
                return Err(KMS_NEEDS_NEWER_CLI.to_owned());
            }
            aws.data_key(&id, &request).await.map_err(|error| error.to_string())
        }
    }

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
                let of = Subject { session: Some(self.id.clone()), destination: None };
                tell(&mut self.console, of, event)
            }
        }
    }

    /// Prints the state of the session on stderr, as SIGUSR1 and `~#` ask for.
    pub(super) fn report(&mut self) {
        let text = sentences::report(&self.id, self.link.is_open(), &self.link.stats(), None);
        self.console.announce(&Status::message(text));
    }

    /// Separates the session, which can be run or ended by itself, from the caller's side. `reads_flags`: see
    /// [`Started`].
    pub(super) fn split(self, reads_flags: bool) -> (Started, Front) {
        let aws = Some(self.aws).filter(|_| !self.is_presigned);
        let started = Started { id: self.id.clone(), link: self.link, aws, reads_flags };
        let Session { id, settings, console, watch, starter, .. } = self;
        (started, Front { id, settings, console, watch, starter })
    }

    /// Prepares the end of a run of one session.
    pub(super) fn into_closing(self, end: &End, reads_flags: bool) -> Closing {
        let (session, front) = self.split(reads_flags);
        let remains = match end {
            End::Closed(_) | End::TimedOut => Remains::Over(Box::new(session)),
            _ => Remains::Open(Box::new(session)),
        };
        front.into_closing(vec![remains], Reaper::default())
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
}

impl Front {
    /// Prepares the end of the run.
    pub(super) fn into_closing(self, remains: Vec<Remains>, reaper: Reaper) -> Closing {
        let Front { id, console, watch, .. } = self;
        Closing { id, console, watch, remains, reaper, ignores_stdout_errors: false }
    }
}

/// Reports an event to the user. Returns the end, if the event is one.
pub(super) fn tell(console: &mut Console, of: Subject, event: LinkEvent) -> Option<End> {
    let message = |of, text: String| Status::Message { of, text };
    let status = match event {
        LinkEvent::Lost(reason) => Status::Lost { of, reason },
        LinkEvent::Resumed => Status::Resumed { of },
        LinkEvent::WantsInput => return None,
        LinkEvent::Warning(text) => message(of, text),
        LinkEvent::GaveUp(GaveUp::SessionGone) => return Some(End::TimedOut),
        LinkEvent::GaveUp(reason) => return Some(End::Failed(sentences::gave_up(reason))),
        LinkEvent::Channel(event) => match event {
            Event::Closed(CloseReason::ByService(output)) => return Some(End::Closed(output)),
            Event::Closed(reason) => return Some(End::Failed(reason.to_string())),
            Event::Notice { text, is_unprotected } => {
                console.repeat(&official::customer_message(&text));
                if is_unprotected {
                    console.complain(sentences::UNPROTECTED);
                }
                return None;
            }
            Event::Paused(true) => Status::Paused { of },
            Event::Paused(false) => Status::Unpaused { of },
            Event::Stalled(silence) => {
                message(of, format!("no data acknowledged by the remote for {} s", silence.as_secs()))
            }
            Event::Stderr(bytes) | Event::Output(bytes) => {
                tracing::debug!(length = bytes.len(), "dropped output that no session expects");
                return None;
            }
            Event::DataKeyNeeded(_) | Event::ExitCode { .. } | Event::PortRefused | Event::Ready(_) => {
                return None;
            }
        },
    };
    console.tell(&status);
    None
}

/// Completes at `at`, or never.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The official plugin's words to callers of the four-argument form.
const KMS_NEEDS_NEWER_CLI: &str = "Installed version of CLI does not support Session Manager encryption feature. \
    Please upgrade to the latest version of your CLI (e.g., AWS CLI).";
