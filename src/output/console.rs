//! The session's standard output and error.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::status::Status;
use super::{line, sentences};
use crate::settings::{Settings, When};
use crate::term::{OUTPUT_QUEUE, Output, stdout_is_terminal};

/// Writes the session's bytes and our own messages, in order, without ever blocking the session.
///
/// | method | stream | when | while its reader takes nothing |
/// |---|---|---|---|
/// | `write` | stdout | always: bytes of the remote | kept: the session asks [`Console::has_room`] before it reads more |
/// | `write_error` | stdout, stderr in [`Style::Plain`] | always: bytes of the remote's stderr | as `write` |
/// | `fail` | stdout, stderr in [`Style::Plain`] | the failure of the whole run | kept: it comes once |
/// | `print` | stdout | unless `SSM_PLUGIN_QUIET` or an SSH session: the official plugin's sentences | kept: each comes once |
/// | `repeat` | stdout | as `print`: those that the peer can repeat | dropped above [`OUTPUT_QUEUE`] |
/// | `write_if_room` | stdout | always: bytes of the remote that a port does not expect | dropped above [`OUTPUT_QUEUE`] |
/// | `report`, `status` | stderr | where the settings want status, in [`Style::Plain`] failures always: a change of state; a line of text | dropped above [`OUTPUT_QUEUE`] |
/// | `note` | stderr | if the caller wants it: a line of the journal | the same |
/// | `progress` | stderr | on a terminal, where the settings want status: something takes long | dropped above [`OUTPUT_QUEUE`] |
/// | `rewrite` | stderr | as `progress`: a line that the next one replaces, and any other text removes | dropped |
/// | `announce` | stderr | always: a change of state that was asked for | dropped above twice that |
/// | `report_failure` | stderr | always: a failure | the same |
/// | `suggest` | stderr, at a terminal | the command that investigates a failure | the same |
/// | `answer` | stderr | always: the answer to an escape | the same |
/// | `end_line` | stderr, at a terminal | the end of the remote's last line | the same |
///
/// After [`Console::begin_closing`] nothing is dropped: the last lines of a run are few. Lines that were dropped are
/// counted, and reported as soon as there is room.
#[derive(Debug)]
pub(crate) struct Console {
    out: Output,
    err: Output,
    status: line::StatusLines,
    /// Status events are JSON, for tools.
    is_json: bool,
    is_quiet: bool,
    /// Only the remote's bytes go to stdout from here on.
    is_clean: bool,
    /// Determined at the start, because a terminal that has hung up is no longer recognized as one.
    is_terminal: bool,
    /// Writing to stdout has failed; nothing more is written.
    has_failed: bool,
    /// Only the last lines of the run follow.
    is_closing: bool,
    /// Lines for stderr that were dropped since this was last reported.
    dropped: u64,
    /// The cursor is on a line that [`Console::rewrite`] wrote.
    is_on_own_line: bool,
    style: Style,
    /// Texts that are printed once.
    reported: BTreeSet<String>,
    /// The command that investigates a failure, for a person at a terminal.
    next_step: Option<String>,
}

/// The use of stdout and stderr in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As the official plugin's: its sentences and everything of the remote's on stdout.
    Official,
    /// For commands: on stdout the bytes of the remote's stdout and nothing else, its stderr and our failures on stderr,
    /// and no input for commands that read none.
    Plain,
}

/// Reason that writing to stdout failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Its reader has gone, and needs no message: a closed pipe or connection, a terminal that hung up.
    #[error("stdout was closed by its reader")]
    ReaderGone,
    /// Writing failed, and output is lost: a full disk, for example.
    #[error("cannot write to stdout: {0}")]
    Failed(io::Error),
}

impl Console {
    /// Opens stdout and stderr.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn open(settings: &Settings, style: Style) -> io::Result<Console> {
        Ok(Console {
            out: Output::stdout()?,
            err: Output::stderr()?,
            status: line::StatusLines::new(settings.status),
            is_json: settings.status == When::Json,
            is_quiet: settings.quiet,
            is_clean: style == Style::Plain,
            is_terminal: stdout_is_terminal(),
            has_failed: false,
            style,
            is_closing: false,
            dropped: 0,
            reported: BTreeSet::new(),
            next_step: None,
            is_on_own_line: false,
        })
    }

    /// Sets the command that [`Console::suggest`] prints.
    pub(crate) fn set_next_step(&mut self, command: String) {
        // Only a person can run it; a tool that reads the lines has its own way.
        self.next_step = Some(command).filter(|_| io::stderr().is_terminal() && !self.is_json);
    }

    /// The command that investigates a failure, on stderr, at a terminal; once.
    pub(crate) fn suggest(&mut self) {
        if let Some(command) = self.next_step.take() {
            self.report_failure(&command);
        }
    }

    /// From here on stdout carries the remote's bytes and nothing else (SSH sessions).
    pub(crate) fn keep_clean(&mut self) {
        self.is_clean = true;
    }

    /// From here on only the last lines of the run follow, which are few: none is dropped.
    pub(crate) fn begin_closing(&mut self) {
        self.erase();
        self.is_closing = true;
    }

    /// Returns whether sentences of the plugin are written.
    pub(crate) fn prints(&self) -> bool {
        !self.is_quiet && !self.is_clean
    }

    /// A sentence of the plugin that a run prints once, on stdout.
    pub(crate) fn print(&mut self, sentence: &str) {
        if self.prints() {
            self.erase();
            self.out.push(sentence.as_bytes());
        }
    }

    /// A sentence of the plugin that the peer can cause again and again, on stdout.
    pub(crate) fn repeat(&mut self, sentence: &str) {
        if self.out.has_room() {
            self.print(sentence);
        }
    }

    /// A failure of the whole run: the official sentence on stdout, or the reason on stderr.
    pub(crate) fn fail(&mut self, sentence: &str, reason: &str) {
        match self.style {
            Style::Official => self.print(sentence),
            Style::Plain => self.report_failure(reason),
        }
    }

    /// Bytes of the remote.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.erase();
        self.out.push(bytes);
    }

    /// Bytes of the remote's stderr.
    pub(crate) fn write_error(&mut self, bytes: &[u8]) {
        self.erase();
        match self.style {
            Style::Official => self.out.push(bytes),
            Style::Plain => self.err.push(bytes),
        }
    }

    /// Returns true the first time that it is called with this text: for lines that clients can cause again and again,
    /// each of which is to be printed once. After [`MAX_REPORTED`] texts none is new.
    pub(crate) fn is_new(&mut self, text: &str) -> bool {
        self.reported.len() < MAX_REPORTED && self.reported.insert(text.to_owned())
    }

    /// Use of the standard streams.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Unexpected bytes of the remote, which a port's session does not hold back.
    pub(crate) fn write_if_room(&mut self, bytes: &[u8]) {
        if self.out.has_room() {
            self.out.push(bytes);
        }
    }

    /// A change of state, on stderr, where the settings want it.
    pub(crate) fn report(&mut self, status: &Status) {
        tracing::info!("{}", status.log_line());
        if self.is_json {
            self.push_err(&status.json(), OUTPUT_QUEUE);
        } else {
            let is_wanted = self.style == Style::Plain && status.is_failure();
            let line = status.text().and_then(|text| {
                if is_wanted { self.status.failure(Instant::now(), &text) } else { self.status.line(&text) }
            });
            line.into_iter().for_each(|line| self.push_err(&line, OUTPUT_QUEUE));
        }
    }

    /// A change of state that the user requested, on stderr in any case.
    pub(crate) fn announce(&mut self, status: &Status) {
        tracing::info!("{}", status.log_line());
        let text = status.text().unwrap_or_default();
        let line = if self.is_json { status.json() } else { line::failure(&text) };
        self.push_err(&line, ERR_QUEUE);
    }

    /// A change of state for tools alone, where the settings want JSON.
    pub(crate) fn note_json(&mut self, status: &Status) {
        tracing::info!("{}", status.log_line());
        if self.is_json {
            self.push_err(&status.json(), ERR_QUEUE);
        }
    }

    /// Returns whether stderr is for tools.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// The answer to an escape, on stderr: stdout may be a file or a pipe, whose reader wants the remote's bytes.
    pub(crate) fn answer(&mut self, text: &'static str) {
        let line = if self.is_json { Status::message(text.trim()).json() } else { text.into() };
        self.push_err(&line, ERR_QUEUE);
    }

    /// A line about the state of the connection, on stderr, where the settings want it.
    pub(crate) fn status(&mut self, text: &str) {
        self.report(&Status::message(text));
    }

    /// Returns whether stderr is a terminal whose user wants to see that something takes a long time.
    pub(crate) fn shows_progress(&self) -> bool {
        self.status.shows_progress()
    }

    /// A line about something that takes a long time.
    pub(crate) fn progress(&mut self, text: &str) {
        tracing::info!(text);
        if self.shows_progress()
            && let Some(line) = self.status.line(text)
        {
            self.push_err(&line, OUTPUT_QUEUE);
        }
    }

    /// A line in place of the last one of this kind, cut to a terminal of so many columns.
    pub(crate) fn rewrite(&mut self, text: &str, columns: usize) {
        // A terminal that is held takes the newest state only.
        if self.shows_progress() && self.err.held() == 0 {
            self.err.push(line::rewritten(text, columns).as_bytes());
            self.is_on_own_line = true;
        }
    }

    /// Ends the remote's line on a terminal that people read: the remote has not ended it itself.
    pub(crate) fn end_line(&mut self) {
        if !self.is_json && io::stderr().is_terminal() {
            self.push_err(b"\r\n", ERR_QUEUE);
        }
    }

    /// Removes the line that [`Console::rewrite`] has left.
    pub(crate) fn erase(&mut self) {
        if std::mem::take(&mut self.is_on_own_line) {
            self.err.push(line::ERASE.as_bytes());
        }
    }

    /// A failure, on stderr in any case.
    pub(crate) fn report_failure(&mut self, text: &str) {
        let line = self.failure(text);
        self.push_err(&line, ERR_QUEUE);
    }

    /// An event that the caller knows to be wanted, on stderr. `text` is for people.
    pub(crate) fn note(&mut self, status: &Status, text: &str) {
        let line = if self.is_json { status.json() } else { line::failure(text) };
        self.push_err(&line, OUTPUT_QUEUE);
    }

    fn failure(&self, text: &str) -> Bytes {
        if self.is_json { Status::Failure { text: text.to_owned() }.json() } else { line::failure(text) }
    }

    /// Writes a line to stderr while what waits there holds less than `limit` bytes of memory.
    fn push_err(&mut self, line: &[u8], limit: usize) {
        if self.err.held() >= limit && !self.is_closing {
            self.dropped += 1;
            return;
        }
        self.erase();
        if self.dropped > 0 && self.err.has_room() {
            let text = sentences::lines_dropped(std::mem::take(&mut self.dropped));
            let line = self.failure(&text);
            self.err.push(&line);
        }
        self.err.push(line);
    }

    /// Returns whether more of the remote's bytes may be written.
    pub(crate) fn has_room(&self) -> bool {
        self.out.has_room() && (self.style == Style::Official || self.err.has_room())
    }

    /// Returns whether stdout's reader has gone, although nothing was written since, as far as the system shows that.
    pub(crate) fn has_lost_reader(&self) -> bool {
        self.out.has_lost_reader()
    }

    /// Resolves after some progress in writing stdout. Cancel-safe.
    ///
    /// # Errors
    /// When stdout can no longer be written; once, since a session that continues without it has nothing more to drive.
    pub(crate) async fn drive(&mut self) -> Result<(), WriteError> {
        if self.has_failed {
            std::future::pending::<()>().await;
        }
        let Console { out, err, style, .. } = self;
        let driven = tokio::select! {
            driven = out.drive() => driven,
            // A stderr that can no longer be written is dropped, as the official plugin's is.
            Ok(()) = err.drive(), if *style == Style::Plain => return Ok(()),
        };
        self.has_failed = driven.is_err();
        driven.map_err(|error| self.classify(error))
    }

    /// Writes out what is left. Gives up after an hour if the reader is stuck.
    ///
    /// # Errors
    /// When not everything could be written to stdout, whether [`Console::drive`] has reported that or not.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        let flushed = tokio::time::timeout(FLUSH_TIMEOUT, self.out.flush()).await;
        let err_timeout = if self.style == Style::Plain { FLUSH_TIMEOUT } else { ERR_FLUSH_TIMEOUT };
        let _ = tokio::time::timeout(err_timeout, self.err.flush()).await;
        flushed.unwrap_or(Ok(())).map_err(|error| self.classify(error))
    }

    /// On a terminal the only write error is EIO: it has hung up.
    fn classify(&self, error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WriteError::ReaderGone,
            _ if self.is_terminal => WriteError::ReaderGone,
            _ => WriteError::Failed(error),
        }
    }
}

/// Limit of stderr's queue, in bytes of memory, for lines that the user requested.
const ERR_QUEUE: usize = 2 * OUTPUT_QUEUE;
/// Texts of [`Console::is_new`].
const MAX_REPORTED: usize = 32;
/// A pager may be idle for a long time; the remote's output is kept for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3600);
const ERR_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
