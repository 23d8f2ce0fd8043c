//! The session's standard output and error.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::notice::Status;
use crate::settings::Settings;
use crate::term::Output;

/// Writes the session's bytes and our own sentences, in order, without ever blocking the session.
#[derive(Debug)]
pub struct Console {
    out: Output,
    err: Output,
    status: Status,
    is_quiet: bool,
    /// Stdout belongs to the remote alone from here on.
    is_clean: bool,
    reader_is_gone: bool,
}

impl Console {
    /// Opens stdout and stderr.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn open(settings: &Settings) -> io::Result<Console> {
        Ok(Console {
            out: Output::stdout()?,
            err: Output::stderr()?,
            status: Status::new(settings.status),
            is_quiet: settings.quiet,
            is_clean: false,
            reader_is_gone: false,
        })
    }

    /// From here on stdout carries the remote's bytes and nothing else (SSH sessions).
    pub fn keep_clean(&mut self) {
        self.is_clean = true;
    }

    /// A sentence of the plugin, on stdout.
    pub fn say(&mut self, sentence: &str) {
        if !self.is_quiet && !self.is_clean {
            self.out.push(Bytes::copy_from_slice(sentence.as_bytes()));
        }
    }

    /// Bytes of the remote.
    pub fn write(&mut self, bytes: Bytes) {
        self.out.push(bytes);
    }

    /// A line about the state of the connection, on stderr, where the settings want it.
    pub fn status(&mut self, text: &str) {
        tracing::info!(text, "status");
        if let Some(line) = self.status.line(text) {
            self.err.push(line);
        }
    }

    /// A failure, on stderr in any case.
    pub fn complain(&mut self, text: &str) {
        self.err.push(crate::notice::failure(text));
    }

    /// A line that was asked for, on stderr; lost while nobody reads there.
    pub fn note(&mut self, text: &str) {
        if self.err.has_room() {
            self.complain(text);
        }
    }

    /// Whether more of the remote's bytes may be written.
    pub fn has_room(&self) -> bool {
        self.out.has_room()
    }

    /// Resolves after some progress in writing stdout. Cancel-safe.
    ///
    /// # Errors
    /// When the reader of stdout is gone; once, since a session that goes on without one has nothing more to drive.
    pub async fn drive(&mut self) -> io::Result<()> {
        if self.reader_is_gone {
            std::future::pending::<()>().await;
        }
        let driven = self.out.drive().await;
        self.reader_is_gone = driven.is_err();
        driven
    }

    /// Writes out what is left. A reader that takes nothing any more is given up after an hour.
    pub async fn flush(&mut self) {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.out.flush()).await;
        let _ = tokio::time::timeout(ERR_FLUSH_TIMEOUT, self.err.flush()).await;
    }
}

/// A pager may be left alone for long; what the remote has sent is not thrown away for that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3600);
const ERR_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
