//! One readable loop per kind of session.
//!
//! [`run`] opens the channel, waits until the agent says what kind of session it is, runs that kind's loop, and ends
//! the session: the last words, what is still to be written, the exit status.
//!
//! | kind | loop | standard streams |
//! |---|---|---|
//! | shell or command | `shell` | the remote's terminal or streams |
//! | SSH document | `stdio` | the connection itself, 8-bit clean |
//! | port forwarding | `mux` | notices only |
//! | port forwarding, agents up to 3.0.196.0 | `basic` | notices only |

mod basic;
mod connection;
pub mod console;
pub mod escape;
mod extra;
mod listener;
mod mux;
mod setup;
mod shell;
mod stdio;
mod streams;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::console::Console;
use self::setup::Setup;
use self::watch::Watch;
use crate::aws;
use crate::cli::{COMPATIBLE_VERSION, StartSession};
use crate::link::{self, GaveUp, Link, LinkEvent};
use crate::notice;
use crate::protocol::{self, CloseReason, DataKey, DataKeyRequest, Event, Flag, Input, SessionKind};
use crate::settings::Settings;
use crate::term::{Parent, Signal};

/// A session that has been started.
struct Session {
    id: String,
    settings: Settings,
    legacy: bool,
    aws: Option<Arc<aws::Client>>,
    link: Link,
    console: Console,
    watch: Watch,
    /// The remote command's status, once the agent has sent it.
    exit_code: Option<i32>,
    /// Local connections, in a port session.
    connections: Option<usize>,
    /// Starts further sessions behind a forwarded port.
    starter: Option<extra::Starter>,
}

/// Why a session's loop has ended.
#[derive(Debug)]
enum End {
    /// The service closed the channel; its reason, empty for none.
    Closed(String),
    /// Nothing more to do here: input and output have ended.
    Finished,
    /// Whoever reads our output is gone.
    ReaderGone,
    /// A signal ended a port session, which has its own words for that.
    Interrupted,
    /// A signal, an escape or the death of our parent asked for it.
    Terminated,
    /// It cannot be resumed: the service has ended it.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
    /// It could not go on.
    Failed(String),
}

/// Runs one session to its end and gives the exit status: 0, or with `SSM_PLUGIN_EXIT_CODE=1` the remote command's
/// status where the agent sends it and 255 for failures of our own.
pub async fn run(start: StartSession, settings: Settings, parent: Parent) -> u8 {
    let wants_status = settings.exit_code;
    let mut console = match Console::open(&settings) {
        Ok(console) => console,
        Err(_) => return if wants_status { OWN_FAILURE } else { 0 },
    };
    console.say(&notice::starting_session(&start.session_id));
    let (end, exit_code) = match Session::open(start, settings, console, parent).await {
        Ok(mut session) => {
            let end = session.drive().await;
            session.finish(end).await
        }
        Err((mut console, error)) => {
            console.say(&notice::cannot_start(format!("{error:#}")));
            console.flush().await;
            (Outcome::Failed, None)
        }
    };
    match (wants_status, end, exit_code) {
        (false, ..) => 0,
        (true, Outcome::Failed, _) => OWN_FAILURE,
        (true, Outcome::Ended, code) => code.map_or(0, |code| (code & 0xff) as u8),
    }
}

enum Outcome {
    Ended,
    Failed,
}

impl Session {
    async fn open(
        mut start: StartSession,
        settings: Settings,
        console: Console,
        parent: Parent,
    ) -> Result<Session, (Console, anyhow::Error)> {
        let Setup { target, starter } = match setup::prepare(&mut start, &settings).await {
            Ok(setup) => setup,
            Err(error) => return Err((console, error)),
        };
        let watch = Watch::start(parent, settings.keep_alive_without_parent);
        let watch = match watch.context("cannot listen for signals") {
            Ok(watch) => watch,
            Err(error) => return Err((console, error)),
        };
        Ok(Session {
            id: start.session_id,
            legacy: start.legacy,
            aws: target.aws.clone(),
            link: Link::new(link_config(&settings), target),
            settings,
            console,
            watch,
            exit_code: None,
            connections: None,
            starter,
        })
    }

    async fn drive(&mut self) -> End {
        let kind = match self.wait_until_ready().await {
            Ok(kind) => kind,
            Err(end) => return end,
        };
        tracing::info!(id = %self.id, ?kind, "session ready");
        let ended = match kind {
            SessionKind::Shell => shell::run(self, shell::Remote::Terminal).await,
            SessionKind::Command => shell::run(self, shell::Remote::Streams).await,
            SessionKind::Port(port) if !port.is_forwarding() => stdio::run(self).await,
            SessionKind::Port(port) if self.link.capabilities().multiplexing => mux::run(self, &port).await,
            SessionKind::Port(port) => basic::run(self, &port).await,
        };
        ended.unwrap_or_else(|error| End::Failed(format!("{error:#}")))
    }

    async fn wait_until_ready(&mut self) -> Result<SessionKind, End> {
        let mut data_key: Option<Pin<Box<dyn Future<Output = Result<DataKey, String>>>>> = None;
        loop {
            let key = async {
                match &mut data_key {
                    Some(data_key) => data_key.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                key = key => {
                    data_key = None;
                    if let Err(reason) = &key {
                        self.console.complain(&format!("cannot encrypt the session: {reason}"));
                    }
                    self.link.handle_data_key(key);
                }
                event = self.link.next(true) => match event {
                    LinkEvent::Channel(Event::DataKeyNeeded(request)) => {
                        data_key = Some(Box::pin(self.data_key(request)));
                    }
                    LinkEvent::Channel(Event::Ready(kind)) => return Ok(kind),
                    LinkEvent::Channel(Event::Output(bytes)) => self.console.write(bytes),
                    LinkEvent::Channel(Event::Closed(reason)) if !matches!(reason, CloseReason::ByService(_)) => {
                        return Err(End::NotStarted(reason.to_string()));
                    }
                    // The service may say so before the agent has come for the first time.
                    LinkEvent::Channel(Event::Paused(_)) => {}
                    LinkEvent::GaveUp(GaveUp::SessionGone) => return Err(End::TimedOut),
                    LinkEvent::GaveUp(reason) => return Err(End::NotStarted(reason.to_string())),
                    other => if let Some(end) = self.handle(other) { return Err(end) },
                },
                signal = self.watch.recv() => if ends_session(signal) { return Err(End::Terminated) },
            }
        }
    }

    /// Asks KMS, beside the session's loop: pings go on meanwhile.
    fn data_key(&self, request: DataKeyRequest) -> impl Future<Output = Result<DataKey, String>> + use<> {
        let (aws, id, legacy) = (self.aws.clone(), self.id.clone(), self.legacy);
        async move {
            match aws {
                _ if legacy => Err(KMS_NEEDS_NEWER_CLI.to_owned()),
                None => Err(KMS_NEEDS_CREDENTIALS.to_owned()),
                Some(aws) => aws.data_key(&id, &request).await.map_err(|error| error.to_string()),
            }
        }
    }

    /// What every kind of session does with an event that its own loop has no use for.
    fn handle(&mut self, event: LinkEvent) -> Option<End> {
        match event {
            LinkEvent::Lost(reason) => self.console.status(&notice::connecting_again(reason)),
            LinkEvent::Resumed => self.console.status(notice::RESUMED),
            LinkEvent::WantsInput => {}
            LinkEvent::Trouble(trouble) => self.console.status(&trouble),
            LinkEvent::GaveUp(GaveUp::SessionGone) => return Some(End::TimedOut),
            LinkEvent::GaveUp(reason) => return Some(End::Failed(reason.to_string())),
            LinkEvent::Channel(event) => match event {
                Event::Closed(CloseReason::ByService(output)) => return Some(End::Closed(output)),
                Event::Closed(reason) => return Some(End::Failed(reason.to_string())),
                Event::Notice(words) => self.console.say(&notice::customer_message(&words)),
                Event::Paused(true) => self.console.status("the agent is not connected, waiting for it"),
                Event::Paused(false) => self.console.status("the agent is connected"),
                // A running session has had its handshake.
                Event::DataKeyNeeded(_) => self.link.handle_data_key(Err(KMS_TOO_LATE.to_owned())),
                Event::ExitCode { code, text } => {
                    self.exit_code = code;
                    self.console.write(text);
                }
                Event::Stderr(bytes) | Event::Output(bytes) => {
                    tracing::debug!(length = bytes.len(), "dropped output that nobody waits for");
                }
                Event::PortRefused | Event::Ready(_) => {}
            },
        }
        None
    }

    /// Prints the state of the session on stderr, since it was asked for.
    fn report(&mut self) {
        let line = notice::report(&self.id, self.link.is_open(), &self.link.stats(), self.connections);
        self.console.complain(&line);
    }

    /// Says the last words, ends what must be ended, writes what is to be written.
    async fn finish(mut self, end: End) -> (Outcome, Option<i32>) {
        tracing::info!(id = %self.id, ?end, stats = ?self.link.stats(), "session ends");
        let mut outcome = Outcome::Ended;
        match end {
            End::Closed(output) => self.console.say(&notice::channel_closed(&self.id, &output)),
            End::Interrupted => {
                terminate(&mut self.link).await;
                self.console.say(&notice::exiting(&self.id));
            }
            End::Finished | End::ReaderGone | End::Terminated => terminate(&mut self.link).await,
            End::TimedOut => self.console.say(&notice::timed_out(&self.id)),
            End::NotStarted(reason) => {
                self.console.say(&notice::cannot_start(reason));
                terminate(&mut self.link).await;
                outcome = Outcome::Failed;
            }
            End::Failed(reason) => {
                self.console.complain(&reason);
                terminate(&mut self.link).await;
                outcome = Outcome::Failed;
            }
        }
        self.link.close().await;
        self.console.flush().await;
        (outcome, self.exit_code)
    }
}

/// Ends a session at the other side, within [`TERMINATE_TIMEOUT`]: through the agent if it understands that and takes
/// it, else through the service.
async fn terminate(link: &mut Link) {
    let ended = async {
        if link.is_open() && link.capabilities().terminate_flag && flag_is_taken(link).await {
            return;
        }
        if let Err(error) = link.terminate().await {
            tracing::warn!(%error, "the session may still be open at the service");
        }
    };
    if tokio::time::timeout(TERMINATE_TIMEOUT, ended).await.is_err() {
        tracing::warn!("the end of the session was not confirmed in time");
    }
}

async fn flag_is_taken(link: &mut Link) -> bool {
    link.send(Input::Flag(Flag::TerminateSession));
    let taken = async {
        while !link.is_drained() {
            match link.next(true).await {
                LinkEvent::Channel(Event::Closed(_)) => return true,
                LinkEvent::GaveUp(_) | LinkEvent::Lost(_) => return false,
                _ => {}
            }
        }
        true
    };
    tokio::time::timeout(FLAG_TIMEOUT, taken).await.unwrap_or(false)
}

fn ends_session(signal: Signal) -> bool {
    matches!(signal, Signal::Interrupt | Signal::Quit | Signal::Terminate | Signal::Hangup)
}

fn link_config(settings: &Settings) -> link::Config {
    link::Config {
        channel: protocol::Config {
            client_version: COMPATIBLE_VERSION.to_owned(),
            message_rate: settings.message_rate.unwrap_or(0),
            max_payload: settings.max_payload,
            max_window: settings.window,
            handshake_timeout: settings.handshake_timeout,
            give_up_after: GIVE_UP_AFTER,
        },
        open_timeout: settings.open_timeout,
        reconnect_timeout: settings.reconnect_timeout,
        ping_interval: settings.ping_interval,
    }
}

/// For failures of our own, when a status is asked for: ssh's number.
const OWN_FAILURE: u8 = 255;
/// How long the end of a session may take.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
/// After that the service is asked instead of the agent.
const FLAG_TIMEOUT: Duration = Duration::from_secs(1);
/// The official plugin gives up after 3,000 resends at intervals of 100 ms.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
/// The official plugin's words to callers of the four-argument form.
const KMS_NEEDS_NEWER_CLI: &str = "Installed version of CLI does not support Session Manager encryption feature. \
    Please upgrade to the latest version of your CLI (e.g., AWS CLI).";
const KMS_NEEDS_CREDENTIALS: &str =
    "SSM_PLUGIN_SKIP_CLIENT_CONFIGURE is set, so there are no credentials to ask AWS KMS with";
const KMS_TOO_LATE: &str = "the session is running already";
