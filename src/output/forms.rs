//! Lines outside of a session: panics, failures, the log on stderr.

use std::io::{self, Write as _};

use bytes::Bytes;

use super::status::Status;
use super::{line, sentences};
use crate::panics;
use crate::settings::{Settings, When};

/// Prints a panic as a line of JSON, where the settings want that.
pub(crate) fn set_panic_form(settings: &Settings) {
    if settings.status == When::Json {
        panics::set_form(|place| Status::Failure { text: sentences::internal_error(place) }.json());
    }
}

/// Returns the form of log lines on stderr where the settings want JSON there.
pub(crate) fn log_form(settings: &Settings) -> Option<fn(&str) -> Bytes> {
    (settings.status == When::Json).then_some(|line| Status::Log { text: line.to_owned() }.json())
}

/// Returns a function that prints a failure on stderr, for threads that have no console.
pub(crate) fn reporter(settings: &Settings) -> impl FnOnce(&str) + Send + use<> {
    let settings = settings.clone();
    // Without a stderr there is no other place for the line.
    move |text| drop(io::stderr().write_all(&failure_line(&settings, text)))
}

/// A line for stderr about something that has gone wrong outside of a session, as the settings want it.
pub(crate) fn failure_line(settings: &Settings, text: &str) -> Bytes {
    match settings.status {
        When::Json => Status::Failure { text: text.to_owned() }.json(),
        _ => line::failure(text),
    }
}
