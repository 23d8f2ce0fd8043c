//! Lines for people on stderr: the program's name, the text, the end of the line as the terminal's mode needs it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::printable::one_line;
use crate::settings::When;
use crate::term;

/// Lines about the connection, on stderr, for people: each change of state once.
///
/// Silent unless stderr is a terminal or the setting says otherwise.
#[derive(Debug)]
pub(crate) struct StatusLines {
    enabled: bool,
    /// Stderr is a terminal, and the lines are for people.
    is_for_people: bool,
    last: String,
    /// Failures of the last [`REPEAT`], and when each was printed.
    failures: BTreeMap<String, Instant>,
}

impl StatusLines {
    /// Follows the setting `SSM_PLUGIN_STATUS`.
    pub(crate) fn new(when: When) -> StatusLines {
        let enabled = match when {
            When::Auto => std::io::stderr().is_terminal(),
            When::Always | When::Json => true,
            When::Never => false,
        };
        let is_for_people = enabled && when != When::Json && std::io::stderr().is_terminal();
        StatusLines { enabled, is_for_people, last: String::new(), failures: BTreeMap::new() }
    }

    /// Returns whether lines about something that takes long are wanted: on a terminal only.
    pub(crate) fn shows_progress(&self) -> bool {
        self.is_for_people
    }

    /// The line to write on stderr for `text`, or `None` if it is to stay silent: switched off, or the
    /// same as the line before. Ends the line as the terminal's mode needs it.
    #[must_use]
    pub(crate) fn line(&mut self, text: &str) -> Option<Bytes> {
        if !self.enabled || self.last == text {
            return None;
        }
        text.clone_into(&mut self.last);
        Some(render(text, term::is_raw()))
    }

    /// The line for a failure, whatever the setting is. Clients that try again and again cause the same one: it is printed
    /// once each [`REPEAT`], as are at most [`MAX_FAILURES`] different ones.
    #[must_use]
    pub(crate) fn failure(&mut self, now: Instant, text: &str) -> Option<Bytes> {
        self.failures.retain(|_, printed| now < *printed + REPEAT);
        if self.failures.contains_key(text) || self.failures.len() >= MAX_FAILURES {
            return None;
        }
        self.failures.insert(text.to_owned(), now);
        self.last.clear();
        Some(render(text, term::is_raw()))
    }
}

/// A status line in the place of the last one, cut so that it stays on one row.
pub(crate) fn rewritten(text: &str, columns: usize) -> String {
    let line: String = format!("{STATUS_PREFIX}{}", one_line(text));
    let fitting: String = line.chars().take(columns.saturating_sub(1)).collect();
    format!("\r{fitting}\x1b[K")
}

/// Removes a line of [`rewritten`].
pub(crate) const ERASE: &str = "\r\x1b[K";

/// A failure, as a line for stderr.
pub(crate) fn failure(text: &str) -> Bytes {
    render(text, term::is_raw())
}

/// The only way from a text to stderr, except for the fixed answers to escapes: reasons, names and messages in it may
/// come from anybody.
fn render(text: &str, raw: bool) -> Bytes {
    let (start, end) = if raw { ("\r\n", "\r\n") } else { ("", "\n") };
    Bytes::from(format!("{start}{STATUS_PREFIX}{}{end}", one_line(text)))
}

const REPEAT: Duration = Duration::from_secs(30);
const MAX_FAILURES: usize = 32;
const STATUS_PREFIX: &str = "session-manager-plugin: ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sentences::{RESUMED, gave_up, reconnecting};

    #[test]
    fn each_status_once_and_only_if_wanted() {
        let mut status = StatusLines::new(When::Always);
        assert_eq!(status.line(RESUMED).unwrap(), "session-manager-plugin: connection resumed\n");
        assert_eq!(status.line(RESUMED), None);
        assert!(status.line(&gave_up("late")).is_some());
        assert!(status.line(RESUMED).is_some());
        assert_eq!(StatusLines::new(When::Never).line(RESUMED), None);
        assert_eq!(rewritten("last contact", 40), "\rsession-manager-plugin: last contact\x1b[K");
        assert_eq!(rewritten("last\ncontact", 30), "\rsession-manager-plugin: last\\\x1b[K");
        assert_eq!(render("x", true), "\r\nsession-manager-plugin: x\r\n");
    }

    #[test]
    fn a_failure_is_repeated_after_a_while_and_a_flood_of_them_is_not() {
        let (mut status, now) = (StatusLines::new(When::Never), Instant::now());
        for (seconds, is_printed) in [(0, true), (1, false), (29, false), (30, true), (31, false)] {
            let line = status.failure(now + Duration::from_secs(seconds), "refused");
            assert_eq!(line.is_some(), is_printed, "after {seconds} s");
        }
        let lines = (0..1000).filter_map(|number| status.failure(now + REPEAT, &number.to_string()));
        assert_eq!(lines.count(), MAX_FAILURES - 1);
        assert!(status.failure(now + 2 * REPEAT, "refused").is_some());
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        const FORGED: &str = "late\x1b]0;t\x07\r\nsession-manager-plugin: connection resumed";
        const SHOWN: &str = r"late\x1b]0;t\x07\x0d\x0asession-manager-plugin: connection resumed";
        let line = StatusLines::new(When::Always).line(&reconnecting(FORGED)).unwrap();
        assert_eq!(line, format!("session-manager-plugin: connection lost ({SHOWN}), reconnecting\n"));
        assert_eq!(failure(FORGED), format!("session-manager-plugin: {SHOWN}\n"));
        assert!(failure(&"x".repeat(100_000)).len() < 600);
    }
}
