//! The session's standard output and error.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::status::Status;
use crate::notice;
use crate::settings::{Settings, When};
use crate::term::{Output, stdout_is_terminal};

/// Writes the session's bytes and our own messages, in order, without ever blocking the session.
///
/// | method | stream | when |
/// |---|---|---|
/// | `write` | stdout | always: bytes of the remote |
/// | `write_error` | stdout, stderr in [`Style::Plain`] | always: bytes of the remote's stderr |
/// | `fail` | stdout, stderr in [`Style::Plain`] | the failure of the whole run |
/// | `say` | stdout | unless `SSM_PLUGIN_QUIET` or an SSH session: the official plugin's sentences |
/// | `tell`, `status` | stderr | where the settings want status: a change of state; a line of text |
/// | `announce` | stderr | always: a change of state that was asked for |
/// | `complain` | stderr | always: a failure |
/// | `note` | stderr | while there is room: a line of the journal |
/// | `answer` | stderr | always: the answer to an escape |
#[derive(Debug)]
pub(crate) struct Console {
    out: Output,
    err: Output,
    status: notice::StatusLines,
    /// Status events are JSON, for tools.
    is_json: bool,
    is_quiet: bool,
    /// Only the remote's bytes go to stdout from here on.
    is_clean: bool,
    /// Asked at the start, because a terminal that has hung up no longer answers as one.
    is_terminal: bool,
    /// Writing to stdout has failed; nothing more is written.
    has_failed: bool,
    style: Style,
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

/// Why writing to stdout has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Its reader has gone, and needs no message: a closed pipe or connection, a terminal that hung up.
    #[error("the reader of stdout has gone")]
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
            status: notice::StatusLines::new(settings.status),
            is_json: settings.status == When::Json,
            is_quiet: settings.quiet,
            is_clean: style == Style::Plain,
            is_terminal: stdout_is_terminal(),
            has_failed: false,
            style,
        })
    }

    /// From here on stdout carries the remote's bytes and nothing else (SSH sessions).
    pub(crate) fn keep_clean(&mut self) {
        self.is_clean = true;
    }

    /// A sentence of the plugin, on stdout.
    pub(crate) fn say(&mut self, sentence: &str) {
        if !self.is_quiet && !self.is_clean {
            self.out.push(Bytes::copy_from_slice(sentence.as_bytes()));
        }
    }

    /// A failure of the whole run: the official sentence on stdout, or the reason on stderr.
    pub(crate) fn fail(&mut self, sentence: &str, reason: &str) {
        match self.style {
            Style::Official => self.say(sentence),
            Style::Plain => self.complain(reason),
        }
    }

    /// Bytes of the remote.
    pub(crate) fn write(&mut self, bytes: Bytes) {
        self.out.push(bytes);
    }

    /// Bytes of the remote's stderr.
    pub(crate) fn write_error(&mut self, bytes: Bytes) {
        match self.style {
            Style::Official => self.out.push(bytes),
            Style::Plain => self.err.push(bytes),
        }
    }

    /// How the standard streams are used.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// A change of state, on stderr, where the settings want it.
    pub(super) fn tell(&mut self, status: &Status) {
        tracing::info!(?status);
        if self.is_json {
            self.err.push(status.json());
        } else if let Some(line) = status.text().and_then(|text| self.status.line(&text)) {
            self.err.push(line);
        }
    }

    /// A change of state that was asked for, on stderr in any case.
    pub(super) fn announce(&mut self, status: &Status) {
        tracing::info!(?status);
        let text = status.text().unwrap_or_default();
        self.err.push(if self.is_json { status.json() } else { notice::failure(&text) });
    }

    /// The answer to an escape, on stderr: stdout may be a file or a pipe, whose reader wants the remote's bytes.
    pub(crate) fn answer(&mut self, text: &'static str) {
        self.err.push(Bytes::from_static(text.as_bytes()));
    }

    /// A line about the state of the connection, on stderr, where the settings want it.
    pub(crate) fn status(&mut self, text: &str) {
        self.tell(&Status::message(text));
    }

    /// A failure, on stderr in any case.
    pub(crate) fn complain(&mut self, text: &str) {
        let line = if self.is_json {
            Status::Failure { text: text.to_owned() }.json()
        } else {
            notice::failure(text)
        };
        self.err.push(line);
    }

    /// An event that the caller knows to be wanted, on stderr; dropped while too much waits there. `text` is for people.
    pub(super) fn note(&mut self, status: &Status, text: &str) {
        if self.err.has_room() {
            self.err.push(if self.is_json { status.json() } else { notice::failure(text) });
        }
    }

    /// Whether more of the remote's bytes may be written.
    pub(crate) fn has_room(&self) -> bool {
        self.out.has_room() && (self.style == Style::Official || self.err.has_room())
    }

    /// Resolves after some progress in writing stdout. Cancel-safe.
    ///
    /// # Errors
    /// When stdout takes no more; once, since a session that goes on without it has nothing more to drive.
    pub(crate) async fn drive(&mut self) -> Result<(), WriteError> {
        if self.has_failed {
            std::future::pending::<()>().await;
        }
        let Console { out, err, style, .. } = self;
        let driven = tokio::select! {
            driven = out.drive() => driven,
            // A stderr that takes no more is dropped, as the official plugin's is.
            Ok(()) = err.drive(), if *style == Style::Plain => return Ok(()),
        };
        self.has_failed = driven.is_err();
        driven.map_err(|error| self.classify(error))
    }

    /// Writes out what is left. A reader that takes nothing any more is given up after an hour.
    ///
    /// # Errors
    /// When stdout has not taken all, whether [`Console::drive`] has said so or not.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        let flushed = tokio::time::timeout(FLUSH_TIMEOUT, self.out.flush()).await;
        let err_timeout = if self.style == Style::Plain { FLUSH_TIMEOUT } else { ERR_FLUSH_TIMEOUT };
        let _ = tokio::time::timeout(err_timeout, self.err.flush()).await;
        flushed.unwrap_or(Ok(())).map_err(|error| self.classify(error))
    }

    /// A terminal knows no other trouble than that it has gone (EIO).
    fn classify(&self, error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WriteError::ReaderGone,
            _ if self.is_terminal => WriteError::ReaderGone,
            _ => WriteError::Failed(error),
        }
    }
}

/// A pager may be left alone for long; what the remote has sent is not thrown away for that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3600);
const ERR_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
