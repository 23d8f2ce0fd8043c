//! The report: as text for people, as JSON for programs.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::printable::escaped;
use crate::version::COMPATIBLE_VERSION;

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Sessions work, but something should be fixed.
    Warning,
    /// Sessions do not work like this.
    Failure,
    /// There was nothing to check, or another check has failed for the same cause.
    Skipped,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failure => "FAILURE",
            Status::Skipped => "skipped",
        }
    }

    /// The mark at a terminal, and its colour as a parameter of SGR.
    fn mark(self) -> (char, u8) {
        match self {
            Status::Ok => ('\u{2713}', 32),
            Status::Warning => ('!', 33),
            Status::Failure => ('\u{2717}', 31),
            Status::Skipped => ('-', 2),
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// Its outcome.
    pub status: Status,
    /// The findings as text, one or more lines.
    pub found: String,
    /// The next step.
    pub advice: Option<String>,
    /// The findings as values, by name.
    pub fields: Map<String, Value>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check::new(name, Status::Ok, found.into())
    }

    pub(super) fn warning(name: &'static str, found: impl Into<String>) -> Check {
        Check::new(name, Status::Warning, found.into())
    }

    pub(super) fn failure(name: &'static str, found: impl Into<String>) -> Check {
        Check::new(name, Status::Failure, found.into())
    }

    pub(super) fn skipped(name: &'static str, found: impl Into<String>) -> Check {
        Check::new(name, Status::Skipped, found.into())
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Check {
        self.advice = Some(escaped(&advice.into()));
        self
    }

    /// Adds a value for programs.
    pub(super) fn field(mut self, name: &str, value: impl Into<Value>) -> Check {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    fn new(name: &'static str, status: Status, found: String) -> Check {
        // Other programs, proxies and servers choose a part of this text.
        let found = found.lines().map(escaped).collect::<Vec<_>>().join("\n");
        Check { name, status, found, advice: None, fields: Map::new() }
    }

    /// Aligned lines.
    pub(crate) fn to_text(&self, look: Look) -> String {
        let padded = format!("{:7}", self.status.as_str());
        let (mark, color) = self.status.mark();
        let (shown, width) = match look {
            Look::Plain => (padded, 0),
            Look::Marks => (format!("{mark} {padded}"), 2),
            Look::Colors => (format!("\x1b[{color}m{mark} {padded}\x1b[0m"), 2),
        };
        let mut label = format!("{shown}  {:11}  ", self.name);
        let indent = " ".repeat(width + 7 + 2 + 11 + 2);
        let mut text = String::new();
        for line in self.found.lines() {
            text += &format!("{label}{line}\n");
            label.clone_from(&indent);
        }
        if let Some(advice) = &self.advice {
            text += &format!("{indent}-> {advice}\n");
        }
        text
    }
}

/// The look of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// For files and pipes.
    Plain,
    /// For terminals without colours, or with `NO_COLOR`.
    Marks,
    /// For terminals.
    Colors,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// In the order of [`ORDER`].
    pub checks: Vec<Check>,
}

#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    compatible: &'static str,
    time: String,
    failures: usize,
    warnings: usize,
    checks: &'a [Check],
}

impl Report {
    /// Brings checks that ended in any order into the report's.
    pub(super) fn new(mut checks: Vec<Check>) -> Report {
        checks.sort_by_key(|check| ORDER.iter().position(|name| *name == check.name));
        Report { checks }
    }

    /// Returns whether something must be done.
    pub(crate) fn has_failed(&self) -> bool {
        self.count(Status::Failure) > 0
    }

    /// The line above the checks, and an empty one.
    pub(crate) fn title() -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!("session-manager-plugin {version} (compatible with {COMPATIBLE_VERSION})\n\n")
    }

    /// An empty line and the result.
    pub(crate) fn summary(&self) -> String {
        let count = |status, one: &str| match self.count(status) {
            1 => format!("1 {one}"),
            count => format!("{count} {one}s"),
        };
        let (failures, warnings) = (count(Status::Failure, "failure"), count(Status::Warning, "warning"));
        match self.count(Status::Failure) + self.count(Status::Warning) {
            0 => format!("\nno problems found ({failures}, {warnings})\n"),
            _ => format!("\n{failures}, {warnings}\n"),
        }
    }

    /// One JSON object and a newline. The order of fields and checks is always the same.
    pub(crate) fn to_json(&self) -> String {
        let report = Json {
            version: env!("CARGO_PKG_VERSION"),
            compatible: COMPATIBLE_VERSION,
            time: time(SystemTime::now()),
            failures: self.count(Status::Failure),
            warnings: self.count(Status::Warning),
            checks: &self.checks,
        };
        // Strings, numbers and names of ours are no reason to fail.
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    }

    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

/// A time in UTC as in RFC 3339, of fixed width: whole seconds.
pub(super) fn time(time: SystemTime) -> String {
    let seconds = DateTime::from(time).secs();
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap_or_default()
}

/// The order of the checks in a report.
const ORDER: [&str; 14] = [
    "settings",
    "plugin",
    "aws-cli",
    "region",
    "credentials",
    "instance",
    "encryption",
    "dns",
    "proxy",
    "trust",
    "clock",
    "websocket",
    "terminal",
    "log",
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::failure("dns", "no"),
            Check::ok("region", "eu-west-1").field("region", "eu-west-1"),
            Check::warning("plugin", "one\ntwo\x1b[2J").advice("do it"),
        ])
    }

    fn text(look: Look) -> String {
        report().checks.iter().map(|check| check.to_text(look)).collect()
    }

    #[test]
    fn lines_are_aligned_and_cannot_steer_a_terminal() {
        assert_eq!(
            text(Look::Plain).lines().collect::<Vec<_>>(),
            [
                "warning  plugin       one",
                "                      two\\x1b[2J",
                "                      -> do it",
                "ok       region       eu-west-1",
                "FAILURE  dns          no",
            ]
        );
        assert_eq!(report().summary(), "\n1 failure, 1 warning\n");
        assert!(report().has_failed());
        let json: Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["checks"][0]["status"], "warning");
        assert_eq!(json["checks"][1]["fields"], json!({"region": "eu-west-1"}));
        assert_eq!((&json["failures"], &json["checks"][1]["advice"]), (&json!(1), &json!(null)));
    }

    #[test]
    fn marks_and_colors_keep_the_columns() {
        let marks = text(Look::Marks);
        assert!(marks.starts_with("! warning  plugin       one\n                        two"), "{marks}");
        assert!(text(Look::Colors).contains("\x1b[31m\u{2717} FAILURE\x1b[0m  dns          no\n"));
    }

    #[test]
    fn the_result_and_the_order_of_fields() {
        let report = Report::new(vec![Check::ok("region", "eu-west-1")]);
        assert_eq!(report.summary(), "\nno problems found (0 failures, 0 warnings)\n");
        let json = report.to_json();
        let places: Vec<_> =
            ["version", "compatible", "time", "failures", "warnings", "checks", "name", "found"]
                .iter()
                .map(|name| json.find(&format!("\"{name}\"")).unwrap())
                .collect();
        assert!(places.is_sorted(), "{json}");
        let precise = UNIX_EPOCH + Duration::from_millis(1_798_761_599_125);
        assert_eq!(time(precise), "2026-12-31T23:59:59Z");
        assert_eq!(time(UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
