//! Everything that the program prints: texts, events, and the console that writes them.
//!
//! | file | holds |
//! |---|---|
//! | `official` | what callers parse on stdout, byte for byte |
//! | `status` | the events: a sentence for people, fields for tools |
//! | `sentences` | the sentences for people |
//! | `line` | a sentence as a line on stderr |
//! | `console` | stdout and stderr of a session, in order and without blocking |

mod console;
mod line;
pub(crate) mod official;
pub(crate) mod sentences;
mod status;

use bytes::Bytes;

pub(crate) use self::console::{Console, Style, WriteError};
pub(crate) use self::status::{Cause, Kind, Status, Subject, events};
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

/// A line for stderr about something that has gone wrong outside of a session, as the settings want it.
pub(crate) fn failure_line(settings: &Settings, text: &str) -> Bytes {
    match settings.status {
        When::Json => Status::Failure { text: text.to_owned() }.json(),
        _ => line::failure(text),
    }
}
