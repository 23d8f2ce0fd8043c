//! Changes of state, reported on stderr: as text for people, or as JSON for tools (`SSM_PLUGIN_STATUS=json`).
//!
//! The manual page lists the events and their fields. They are kept: tools read them. A new one may come at any time.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use serde::Serialize;

use super::sentences;

/// One change of state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Status {
    /// The session of argv is being opened.
    Opening { session: String },
    /// It is there, or a further listener is.
    Ready {
        kind: Kind,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        socket: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    },
    /// The connection to the service is lost and is being opened again.
    Lost {
        #[serde(flatten)]
        of: Subject,
        reason: String,
    },
    /// It is back.
    Resumed {
        #[serde(flatten)]
        of: Subject,
    },
    /// The agent is not connected to the service.
    Paused {
        #[serde(flatten)]
        of: Subject,
    },
    /// The pause is over.
    Unpaused {
        #[serde(flatten)]
        of: Subject,
    },
    /// A session behind a port has started after the first.
    SessionStarted {
        session: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
        #[serde(skip)]
        is_told: bool,
    },
    /// A session behind a port that outlives it has ended.
    SessionEnded {
        session: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
        reason: String,
    },
    /// A local connection was accepted.
    ConnectionOpened {
        connection: u64,
        from: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    },
    /// It is over. Bytes to the remote and back.
    ConnectionClosed { connection: u64, seconds: f64, sent: u64, received: u64 },
    /// The agent could not reach the destination.
    DestinationRefused {
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    },
    /// A local reader has held up its session for long.
    ReaderStalled {
        #[serde(flatten)]
        of: Subject,
    },
    /// Any other message to people.
    Message {
        #[serde(flatten)]
        of: Subject,
        text: String,
    },
    /// An error.
    Failure { text: String },
    /// The end of the program.
    End { cause: &'static str, reason: String },
}

/// The session and destination that an event is about. Of several sessions behind a port only the oldest
/// reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Destination, if it is not the one of the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// Kind of the ready session or listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Shell,
    Command,
    Ssh,
    Port,
    Forward,
    Socks,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    status: &'a Status,
}

impl Status {
    /// Returns a message that is not about one session.
    pub(crate) fn message(text: impl Into<String>) -> Status {
        Status::Message { of: Subject::default(), text: text.into() }
    }

    /// The text for people; `None` if there is none, or if it is printed elsewhere.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Status::Lost { reason, .. } => Some(sentences::reconnecting(reason)),
            Status::Resumed { .. } => Some(sentences::RESUMED.to_owned()),
            Status::Paused { .. } => Some(sentences::AGENT_AWAY.to_owned()),
            Status::Unpaused { .. } => Some(sentences::AGENT_BACK.to_owned()),
            Status::SessionStarted { destination, is_told: true, .. } => {
                Some(sentences::session_started(destination.as_deref()))
            }
            Status::SessionEnded { destination, reason, .. } => {
                Some(sentences::session_ended(destination.as_deref(), reason))
            }
            Status::ReaderStalled { .. } => Some(sentences::READER_STALLS.to_owned()),
            Status::DestinationRefused { destination: Some(destination) } => {
                Some(sentences::destination_refused(destination))
            }
            Status::Ready {
                kind: Kind::Forward, port: Some(port), destination: Some(destination), ..
            } => Some(sentences::forward_opened(*port, destination)),
            Status::Ready { kind: Kind::Socks, port: Some(port), .. } => Some(sentences::socks_opened(*port)),
            Status::Ready { kind: Kind::Socks, socket: Some(path), .. } => {
                Some(sentences::socks_file_opened(path))
            }
            Status::Message { text, .. } | Status::Failure { text } => Some(text.clone()),
            Status::Opening { .. }
            | Status::Ready { .. }
            | Status::SessionStarted { .. }
            | Status::ConnectionOpened { .. }
            | Status::ConnectionClosed { .. }
            | Status::DestinationRefused { .. }
            | Status::End { .. } => None,
        }
    }

    /// The event for the log: as JSON without the time, which the log has.
    pub(crate) fn log_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The line for tools, with the time in UTC as in RFC 3339.
    pub(crate) fn json(&self) -> Bytes {
        let unix_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        // The library leaves zeros at the end of a fraction out; this width is always the same.
        let seconds = DateTime::from_secs((unix_ms / 1000) as i64).fmt(Format::DateTime).unwrap_or_default();
        let time = format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1000);
        // Strings, numbers and names of ours are no reason to fail.
        let mut line = serde_json::to_vec(&Line { time, status: self }).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(status: &Status) -> Vec<String> {
        let line: serde_json::Value = serde_json::from_slice(&status.json()).unwrap();
        line.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn one_object_a_line_with_the_time() {
        let status =
            Status::Lost { of: Subject::default(), reason: "line\nbreak \u{1b}[2J \"quoted\"".into() };
        let line = String::from_utf8(status.json().to_vec()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "lost");
        let time = value["time"].as_str().unwrap();
        assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "{time}");
    }

    #[test]
    fn fields_that_are_absent_are_left_out() {
        let status = Status::SessionStarted { session: "s".into(), destination: None, is_told: true };
        assert_eq!(fields(&status), ["event", "session", "time"]);
        assert_eq!(fields(&Status::message("text")), ["event", "text", "time"]);
        let of = Subject { session: Some("s".into()), destination: Some("db:1".into()) };
        assert_eq!(fields(&Status::Resumed { of }), ["destination", "event", "session", "time"]);
    }
}
