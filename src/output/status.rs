//! Changes of state, reported on stderr: as text for people, or as JSON for tools (`SSM_PLUGIN_STATUS=json`).
//!
//! The manual page lists the events and their fields, from [`events`]. They are kept: tools read them. A new one may
//! come at any time.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use serde::Serialize;

use super::sentences;

/// Makes [`Status`] and [`events`] of the events and their meanings for the manual page.
macro_rules! events {
    ($($(#[doc = $meaning:literal])+ $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {
        /// One change of state.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "event", rename_all = "snake_case")]
        pub(crate) enum Status {
            $($(#[doc = $meaning])+ $name { $($(#[$attribute])* $field: $type,)* },)*
        }

        /// Returns the events for the manual page: name, meaning and fields.
        pub(crate) fn events() -> Vec<(String, &'static str, String)> {
            vec![$({
                let fields: Vec<String> = [$(<$type as Field>::form(stringify!($field))),*].concat();
                (snake_case(stringify!($name)), concat!($($meaning),+).trim(), fields.join(", "))
            },)*]
        }
    };
}

events! {
    /// The session is being opened.
    Opening { session: String, }
    /// The session or an additional listener is ready.
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
    }
    /// The connection to the service was lost; the plugin is reconnecting.
    Lost {
        #[serde(flatten)]
        of: Subject,
        reason: String,
    }
    /// The connection to the service is back.
    Resumed {
        #[serde(flatten)]
        of: Subject,
    }
    /// The service paused the session, usually because the agent is not connected.
    Paused {
        #[serde(flatten)]
        of: Subject,
    }
    /// The agent is connected again.
    Unpaused {
        #[serde(flatten)]
        of: Subject,
    }
    /// An additional session for a port has started, or one that replaces a session that ended.
    SessionStarted {
        session: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
        // Set if the event is also printed as a sentence.
        #[serde(skip)]
        has_sentence: bool,
    }
    /// All sessions requested with SSM_PLUGIN_SESSIONS now share the port. Reported once.
    SessionsReady { sessions: usize, }
    /// A session ended; its port stays open.
    SessionEnded {
        session: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
        reason: String,
    }
    /// A local connection was accepted; `connection` is its number.
    ConnectionOpened {
        connection: u64,
        from: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    }
    /// A local connection was closed; `sent` and `received` are the numbers of bytes sent to and received from the remote.
    ConnectionClosed { connection: u64, seconds: f64, sent: u64, received: u64, }
    /// The agent could not reach a destination.
    DestinationRefused {
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    }
    /// A slow local client has blocked its session for several seconds.
    ReaderStalled {
        #[serde(flatten)]
        of: Subject,
    }
    /// Any other message meant for people.
    Message {
        #[serde(flatten)]
        of: Subject,
        text: String,
        /// Commands print it whatever the settings say about status lines.
        #[serde(skip)]
        is_failure: bool,
    }
    /// A log line, printed because the command was given -v.
    Log { text: String, }
    /// An error.
    Failure { text: String, }
    /// The program is ending. Causes: closed (by the service or the agent), finished (input and output have ended, or the
    /// COMMAND of `forward` has exited), reader_gone (nothing reads stdout), interrupted (in a session for ports: a signal, or the
    /// exit of the AWS CLI), terminated (in a session of another kind: a signal, `~.`, or the exit of the AWS CLI), timed_out
    /// (the session can no longer be resumed), not_started, failed. `reason` may be empty.
    End { cause: Cause, reason: String, }
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

/// Reason for the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    Closed,
    Finished,
    ReaderGone,
    Interrupted,
    Terminated,
    TimedOut,
    NotStarted,
    Failed,
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
        Status::Message { of: Subject::default(), text: text.into(), is_failure: false }
    }

    /// Returns whether something that a client wanted has failed.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Status::Message { is_failure, .. } => *is_failure,
            Status::DestinationRefused { .. } | Status::Failure { .. } => true,
            _ => false,
        }
    }

    /// The text for people; `None` if there is none, or if it is printed elsewhere.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Status::Lost { reason, .. } => Some(sentences::reconnecting(reason)),
            Status::Resumed { .. } => Some(sentences::RESUMED.to_owned()),
            Status::Paused { .. } => Some(sentences::AGENT_AWAY.to_owned()),
            Status::Unpaused { .. } => Some(sentences::AGENT_BACK.to_owned()),
            Status::SessionStarted { destination, has_sentence: true, .. } => {
                Some(sentences::session_started(destination.as_deref()))
            }
            Status::SessionsReady { sessions } => Some(sentences::sessions_ready(*sessions)),
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
            | Status::Log { .. }
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

/// A type of fields, for the manual page.
trait Field {
    /// Returns the field's entries: its name, in brackets if it may be absent; none if tools do not get it.
    fn form(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }
}

impl Field for String {}
impl Field for u64 {}
impl Field for usize {}
impl Field for f64 {}

impl<T> Field for Option<T> {
    fn form(name: &str) -> Vec<String> {
        vec![format!("[{name}]")]
    }
}

impl Field for bool {
    fn form(_name: &str) -> Vec<String> {
        Vec::new()
    }
}

impl Field for Subject {
    fn form(_name: &str) -> Vec<String> {
        vec!["[session]".to_owned(), "[destination]".to_owned()]
    }
}

impl Field for Kind {
    fn form(name: &str) -> Vec<String> {
        use Kind::{Command, Forward, Port, Shell, Socks, Ssh};
        vec![with_words(name, &[Shell, Command, Ssh, Port, Forward, Socks])]
    }
}

impl Field for Cause {
    fn form(name: &str) -> Vec<String> {
        use Cause::{Closed, Failed, Finished, Interrupted, NotStarted, ReaderGone, Terminated, TimedOut};
        let all = [Closed, Finished, ReaderGone, Interrupted, Terminated, TimedOut, NotStarted, Failed];
        vec![with_words(name, &all)]
    }
}

/// A field with the words that it may have.
fn with_words(name: &str, words: &[impl Serialize]) -> String {
    let words = words.iter().filter_map(|word| serde_json::to_value(word).ok()?.as_str().map(str::to_owned));
    format!("{name} ({})", words.collect::<Vec<_>>().join(", "))
}

/// A variant's name as serde writes it.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
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
        let status = Status::SessionStarted { session: "s".into(), destination: None, has_sentence: true };
        assert_eq!(fields(&status), ["event", "session", "time"]);
        assert_eq!(fields(&Status::message("text")), ["event", "text", "time"]);
        let of = Subject { session: Some("s".into()), destination: Some("db:1".into()) };
        assert_eq!(fields(&Status::Resumed { of }), ["destination", "event", "session", "time"]);
    }

    /// One event of each kind, with all of its fields.
    fn all() -> Vec<Status> {
        let of = Subject { session: Some("s".into()), destination: Some("db:1".into()) };
        let (session, destination) = (of.session.clone(), of.destination.clone());
        let (id, reason, text) = ("s".to_owned(), "r".to_owned(), "t".to_owned());
        vec![
            Status::Opening { session: id.clone() },
            Status::Ready {
                kind: Kind::Shell,
                session,
                port: Some(1),
                socket: Some("x".into()),
                destination: destination.clone(),
            },
            Status::Lost { of: of.clone(), reason: reason.clone() },
            Status::Resumed { of: of.clone() },
            Status::Paused { of: of.clone() },
            Status::Unpaused { of: of.clone() },
            Status::SessionStarted {
                session: id.clone(),
                destination: destination.clone(),
                has_sentence: true,
            },
            Status::SessionsReady { sessions: 4 },
            Status::SessionEnded { session: id, destination: destination.clone(), reason: reason.clone() },
            Status::ConnectionOpened { connection: 1, from: "x".into(), destination: destination.clone() },
            Status::ConnectionClosed { connection: 1, seconds: 1.0, sent: 1, received: 1 },
            Status::DestinationRefused { destination },
            Status::ReaderStalled { of: of.clone() },
            Status::Message { of, text: text.clone(), is_failure: false },
            Status::Log { text: text.clone() },
            Status::Failure { text },
            Status::End { cause: Cause::Closed, reason },
        ]
    }

    #[test]
    fn the_manual_names_each_event_and_its_fields() {
        let listed: Vec<(String, Vec<String>)> = events()
            .into_iter()
            .map(|(name, _, listed)| {
                let without_words = listed.split(" (").map(|part| part.rsplit(')').next().unwrap());
                let listed = without_words.collect::<String>();
                let fields = listed.split(", ").map(|field| field.trim_matches(['[', ']']).to_owned());
                let mut fields: Vec<String> = fields.chain(["event".into(), "time".into()]).collect();
                fields.sort();
                (name, fields)
            })
            .collect();
        let sent: Vec<(String, Vec<String>)> = all()
            .iter()
            .map(|status| {
                let line: serde_json::Value = serde_json::from_slice(&status.json()).unwrap();
                (line["event"].as_str().unwrap().to_owned(), fields(status))
            })
            .collect();
        assert_eq!(listed, sent);
    }
}
