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
mod ending;
pub mod escape;
mod extra;
mod journal;
mod listener;
mod mux;
mod opening;
mod shell;
mod stdio;
mod streams;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::Instant;

use self::console::{Console, WriteError};
use self::journal::Journal;
use self::watch::Watch;
use crate::aws;
use crate::cli::StartSession;
use crate::link::{GaveUp, Link, LinkEvent};
use crate::notice;
use crate::process::{Parent, Signal};
use crate::protocol::{CloseReason, DataKey, DataKeyRequest, Event, SessionKind};
use crate::settings::Settings;
use crate::term;
use crate::wire_log::Recording;

/// A session that has been started.
struct Session {
    id: String,
    settings: Settings,
    legacy: bool,
    aws: Arc<aws::Client>,
    /// Opened with a signature of the caller's, who has no credentials for us.
    is_presigned: bool,
    link: Link,
    console: Console,
    watch: Watch,
    /// The remote command's status, once the agent has sent it.
    exit_code: Option<i32>,
    is_port: bool,
    /// Local connections, in a port session.
    connections: Option<usize>,
    /// What became of them.
    journal: Arc<Journal>,
    /// Starts further sessions behind a forwarded port.
    starter: Option<extra::Starter>,
    /// Ends those that were started.
    further: Option<Pin<Box<dyn Future<Output = ()>>>>,
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

impl From<WriteError> for End {
    fn from(error: WriteError) -> End {
        match error {
            WriteError::ReaderGone => End::ReaderGone,
            error @ WriteError::Failed(_) => End::Failed(error.to_string()),
        }
    }
}

/// Runs one session to its end and gives the exit status: 0, or with `SSM_PLUGIN_EXIT_CODE=1` the remote command's
/// status where the agent sends it and 255 for failures of our own.
pub async fn run(
    start: StartSession,
    settings: Settings,
    recording: Option<Recording>,
    parent: Parent,
) -> u8 {
    let wants_status = settings.exit_code;
    let mut console = match Console::open(&settings) {
        Ok(console) => console,
        Err(_) => return if wants_status { OWN_FAILURE } else { 0 },
    };
    // From the first word on, a signal ends the session properly.
    let watch = Watch::start(parent, settings.keep_alive_without_parent);
    console.say(&notice::starting_session(&start.session_id));
    let (end, exit_code) = match opening::open(start, settings, recording, console, watch).await {
        Ok(mut session) => {
            let end = session.drive().await;
            session.finish(end).await
        }
        Err((mut console, error)) => {
            console.say(&notice::cannot_start(format!("{error:#}")));
            if let Err(error @ WriteError::Failed(_)) = console.flush().await {
                console.complain(&error.to_string());
                let _ = console.flush().await;
            }
            (Outcome::Failed, None)
        }
    };
    match (wants_status, end, exit_code) {
        (false, ..) => 0,
        (true, Outcome::Failed, _) => OWN_FAILURE,
        (true, Outcome::Ended, code) => code.map_or(0, |code| (code & 0xff) as u8),
    }
}

/// A data key on its way.
type KeyRequest = Pin<Box<dyn Future<Output = Result<DataKey, String>>>>;

enum Outcome {
    Ended,
    Failed,
}

impl Session {
    async fn drive(&mut self) -> End {
        let kind = match self.wait_until_ready().await {
            Ok(kind) => kind,
            Err(end) => return end,
        };
        tracing::info!(id = %self.id, ?kind, "session ready");
        self.is_port = matches!(kind, SessionKind::Port(_));
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
        let mut data_key: Option<KeyRequest> = None;
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
                    LinkEvent::Channel(Event::Paused(_) | Event::Stalled(_)) => {}
                    LinkEvent::GaveUp(GaveUp::SessionGone) => return Err(End::TimedOut),
                    LinkEvent::GaveUp(reason) => return Err(End::NotStarted(reason.to_string())),
                    other => if let Some(end) = self.handle(other) { return Err(end) },
                },
                signal = self.watch.recv() => match signal {
                    Signal::Usr1 => self.report(),
                    signal if ends_session(signal) => return Err(End::Terminated),
                    _ => {}
                },
            }
        }
    }

    /// Asks KMS, beside the session's loop: pings go on meanwhile.
    fn data_key(&self, request: DataKeyRequest) -> impl Future<Output = Result<DataKey, String>> + use<> {
        let (aws, id, legacy) = (Arc::clone(&self.aws), self.id.clone(), self.legacy);
        async move {
            if legacy {
                return Err(KMS_NEEDS_NEWER_CLI.to_owned());
            }
            aws.data_key(&id, &request).await.map_err(|error| error.to_string())
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
            LinkEvent::GaveUp(reason) => return Some(End::Failed(notice::gave_up(reason))),
            LinkEvent::Channel(event) => match event {
                Event::Closed(CloseReason::ByService(output)) => return Some(End::Closed(output)),
                Event::Closed(reason) => return Some(End::Failed(reason.to_string())),
                Event::Notice(words) => self.console.say(&notice::customer_message(&words)),
                Event::Paused(true) => self.console.status("the agent is not connected, waiting for it"),
                Event::Paused(false) => self.console.status("the agent is connected"),
                Event::Stalled(silence) => {
                    self.console.status(&format!("the remote has taken no data for {} s", silence.as_secs()));
                }
                // A running session has had its handshake.
                Event::DataKeyNeeded(_) => self.link.handle_data_key(Err(KMS_TOO_LATE.to_owned())),
                Event::ExitCode { code, text } => {
                    self.exit_code = code;
                    if !self.settings.quiet {
                        self.console.write(text);
                    }
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

    /// Says on stderr what has become of local connections, where that is asked for.
    fn show_connections(&mut self) {
        for line in self.journal.take() {
            self.console.note(&line);
        }
    }

    /// Ends the session at the other side.
    async fn terminate(&mut self) {
        let aws = Some(self.aws.as_ref()).filter(|_| !self.is_presigned);
        let further = self.further.take();
        let first = ending::terminate(&mut self.link, self.is_port, aws, &self.id);
        tokio::join!(first, OptionFuture::from(further));
    }

    /// Says the last words, ends what must be ended, writes what is to be written.
    async fn finish(mut self, end: End) -> (Outcome, Option<i32>) {
        tracing::info!(id = %self.id, ?end, stats = ?self.link.stats(), "session ends");
        let mut outcome = Outcome::Ended;
        self.show_connections();
        let was_told = matches!(end, End::Interrupted | End::Terminated);
        // What a port session says is not what it is there for.
        let mut may_lose_words = self.connections.is_some();
        match end {
            End::Closed(output) => {
                self.console.say(&notice::channel_closed(&self.id, &output));
                if let Some(advice) = notice::advice(&output) {
                    self.console.complain(advice);
                }
            }
            End::Interrupted => {
                self.terminate().await;
                self.console.say(&notice::exiting(&self.id));
            }
            End::Finished | End::ReaderGone | End::Terminated => self.terminate().await,
            End::TimedOut => self.console.say(&notice::timed_out(&self.id)),
            End::NotStarted(reason) => {
                self.console.say(&notice::cannot_start(reason));
                self.terminate().await;
                outcome = Outcome::Failed;
            }
            End::Failed(reason) => {
                // Perhaps this very thing; one line is enough.
                may_lose_words = true;
                self.console.complain(&reason);
                self.terminate().await;
                outcome = Outcome::Failed;
            }
        }
        OptionFuture::from(self.further.take()).await;
        self.link.close().await;
        let written = tokio::select! {
            written = self.console.flush() => written,
            // A reader that takes nothing shall not keep us from ending when we are told to, or have been.
            () = until_told_to_end(&mut self.watch) => Ok(()),
            () = tokio::time::sleep(LAST_WRITES), if was_told => Ok(()),
        };
        tokio::select! {
            () = term::settled() => {}
            () = until_told_to_end(&mut self.watch) => {}
        }
        if let Err(error @ WriteError::Failed(_)) = written
            && !may_lose_words
        {
            self.console.complain(&error.to_string());
            let _ = self.console.flush().await;
            outcome = Outcome::Failed;
        }
        (outcome, self.exit_code)
    }
}

async fn until_told_to_end(watch: &mut Watch) {
    while !ends_session(watch.recv().await) {}
}

/// Resolves at a time, or never.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ends_session(signal: Signal) -> bool {
    matches!(signal, Signal::Interrupt | Signal::Quit | Signal::Terminate | Signal::Hangup)
}

/// What may still be written after we were told to end.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// For failures of our own, when a status is asked for: ssh's number.
const OWN_FAILURE: u8 = 255;
/// The official plugin's words to callers of the four-argument form.
const KMS_NEEDS_NEWER_CLI: &str = "Installed version of CLI does not support Session Manager encryption feature. \
    Please upgrade to the latest version of your CLI (e.g., AWS CLI).";
const KMS_TOO_LATE: &str = "the session is running already";
