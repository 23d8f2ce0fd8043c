//! The report: as text for people, as JSON for programs.

use serde::Serialize;
use serde_json::json;

use crate::printable::escaped;
use crate::version::COMPATIBLE_VERSION;

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Sessions work, but something is not as one would want it.
    Warning,
    /// Sessions do not work like this.
    Failure,
    /// There was nothing to look at.
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
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// How it has ended.
    pub status: Status,
    /// What was found, in a line or some.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
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

    fn new(name: &'static str, status: Status, found: String) -> Check {
        // Other programs, proxies and servers choose a part of this text.
        let found = found.lines().map(escaped).collect::<Vec<_>>().join("\n");
        Check { name, status, found, advice: None }
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// In the order of showing.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether something must be done.
    pub(crate) fn has_failed(&self) -> bool {
        self.count(Status::Failure) > 0
    }

    /// Aligned lines.
    pub(crate) fn to_text(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut text = format!("session-manager-plugin {version} (compatible with {COMPATIBLE_VERSION})\n\n");
        for check in &self.checks {
            let mut label = format!("{:7}  {:11}  ", check.status.as_str(), check.name);
            for line in check.found.lines() {
                text += &format!("{label}{line}\n");
                label = " ".repeat(label.len());
            }
            if let Some(advice) = &check.advice {
                text += &format!("{}-> {advice}\n", " ".repeat(label.len()));
            }
        }
        let count = |status, one: &str| match self.count(status) {
            1 => format!("1 {one}"),
            count => format!("{count} {one}s"),
        };
        text + &format!("\n{}, {}\n", count(Status::Failure, "failure"), count(Status::Warning, "warning"))
    }

    /// One JSON object and a newline.
    pub(crate) fn to_json(&self) -> String {
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "compatible": COMPATIBLE_VERSION,
            "failures": self.count(Status::Failure),
            "warnings": self.count(Status::Warning),
            "checks": self.checks,
        });
        format!("{report:#}\n")
    }

    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_cannot_steer_a_terminal() {
        let checks = vec![
            Check::ok("region", "eu-west-1"),
            Check::warning("plugin", "one\ntwo\x1b[2J").advice("do it"),
            Check::failure("dns", "no"),
        ];
        let report = Report { checks };
        let text = report.to_text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "ok       region       eu-west-1",
                "warning  plugin       one",
                "                      two\\x1b[2J",
                "                      -> do it",
                "FAILURE  dns          no",
                "",
                "1 failure, 1 warning",
            ]
        );
        assert!(report.has_failed());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["checks"][1]["status"], "warning");
        assert_eq!((&json["failures"], &json["checks"][0]["advice"]), (&json!(1), &json!(null)));
    }
}
