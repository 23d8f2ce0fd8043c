//! Failures of a command: one line on stderr, and an exit status.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::aws::{AwsError, ErrorKind};
use crate::output;
use crate::session::OWN_FAILURE;
use crate::settings::Settings;

/// A command that has failed before or without a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A phrase without a full stop.
    reason: String,
    /// Additional lines, such as a list of instances.
    details: String,
    status: u8,
}

impl Failure {
    /// A failure of our own.
    pub(super) fn new(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), details: String::new(), status: OWN_FAILURE }
    }

    /// Arguments that are well-formed but make no sense.
    pub(super) fn usage(reason: impl Into<String>) -> Failure {
        Failure { status: USAGE, ..Failure::new(reason) }
    }

    /// A signal that came before there was a session.
    pub(super) fn signal(number: u8) -> Failure {
        Failure { status: SIGNAL_BASE + number, ..Failure::new("interrupted") }
    }

    /// The same with lines after the reason.
    pub(super) fn with_details(self, details: String) -> Failure {
        Failure { details, ..self }
    }

    /// The same with the next step to take.
    pub(super) fn with_advice(mut self, advice: impl Display) -> Failure {
        // AWS's messages end with a full stop.
        self.reason = format!("{}; {advice}", self.reason.trim_end_matches('.'));
        self
    }

    /// Prints the failure of the command `name`. Returns its exit status.
    pub(super) fn end(&self, name: &str, settings: &Settings) -> ExitCode {
        report(settings, &format!("{name}: {}", self.reason));
        if !self.details.is_empty() && settings.status != crate::settings::When::Json {
            let _ = io::stderr().write_all(self.details.as_bytes());
        }
        ExitCode::from(self.status)
    }
}

/// Prints a line on stderr, in the form that the settings ask for.
pub(super) fn report(settings: &Settings, text: &str) {
    let _ = io::stderr().write_all(&output::failure_line(settings, text));
}

/// A failed call in AWS's words, with the next step to take.
pub(super) fn refused(error: &AwsError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error.kind {
        ErrorKind::NoCredentials => failure.with_advice(
            "sign in (aws sso login, aws login), set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or select a profile \
             with --profile",
        ),
        ErrorKind::BadCredentials => {
            failure.with_advice("sign in again, for example with aws sso login, or check the clock")
        }
        ErrorKind::Denied => {
            let resources = if error.call() == START { " on this target and document" } else { "" };
            failure.with_advice(format_args!("ask your administrator to allow {}{resources}", error.call()))
        }
        ErrorKind::TargetNotConnected => failure.with_advice(
            "check the region, that the instance is running, and that its SSM Agent can reach the service",
        ),
        ErrorKind::Unreachable => {
            failure.with_advice("run session-manager-plugin doctor to find out what blocks the connection")
        }
        _ => failure,
    }
}

/// The call that names a target and a document.
const START: &str = "ssm:StartSession";
/// Status for arguments that are not understood.
pub(super) const USAGE: u8 = 2;
/// Added to a signal's number, as shells do.
pub(super) const SIGNAL_BASE: u8 = 128;
