//! `[[match]]`: sections of the settings file for some sessions only, by patterns over their arguments.

use toml::{Table, Value};

/// The session that settings are read for. A value that is absent matches no pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub profile: Option<String>,
    pub target: Option<String>,
    pub region: Option<String>,
    /// The name of the session document.
    pub document: Option<String>,
    /// The remote host of a forwarded port.
    pub host: Option<String>,
    /// The remote port of a forwarded port.
    pub port: Option<String>,
    /// The name of the program that started this one.
    pub caller: Option<String>,
}

impl Subject {
    /// The value that the condition `name` compares.
    fn value(&self, name: &str) -> Option<&str> {
        let value = match name {
            "profile" => &self.profile,
            "target" => &self.target,
            "region" => &self.region,
            "document" => &self.document,
            "host" => &self.host,
            "port" => &self.port,
            "caller" => &self.caller,
            _ => &None,
        };
        value.as_deref()
    }
}

/// The conditions of a section.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<(&'static str, Vec<String>)>);

impl Conditions {
    /// Takes the conditions out of a section, so that its settings are left.
    ///
    /// # Errors
    /// A phrase about a condition that cannot be read: without it the section would match too much.
    pub(super) fn take(section: &mut Table) -> Result<Conditions, String> {
        let mut conditions = Vec::new();
        for name in NAMES {
            let Some(value) = section.remove(name) else { continue };
            let patterns = match value {
                Value::Array(values) => values.into_iter().map(pattern).collect(),
                value => pattern(value).map(|pattern| vec![pattern]),
            };
            let patterns =
                patterns.ok_or_else(|| format!("{name} must be a pattern or a list of patterns"))?;
            conditions.push((name, patterns));
        }
        Ok(Conditions(conditions))
    }

    /// Returns whether each condition has a pattern that matches. Without conditions, all sessions match.
    pub(super) fn match_session(&self, subject: &Subject) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let Some(value) = subject.value(name) else { return false };
            patterns.iter().any(|pattern| is_match(pattern, value))
        })
    }

    /// The names of all conditions.
    pub(super) fn names() -> &'static [&'static str] {
        &NAMES
    }
}

fn pattern(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Compares with a pattern in which `*` stands for any text and `?` for one character.
fn is_match(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut position) = (0, 0);
    // Where the last `*` stands, and where the text that it stands for ends.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(letter) if *letter == '?' || Some(letter) == text.get(position) => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((start, end)) = star else { return false };
                star = Some((start, end + 1));
                (at, position) = (start + 1, end + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|letter| *letter == '*'))
}

const NAMES: [&str; 7] = ["profile", "target", "region", "document", "host", "port", "caller"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("prod-*", "prod-eu", true),
            ("prod-*", "prod-", true),
            ("prod-*", "my-prod-eu", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.internal", "db.internal", true),
            ("*.internal", "db.internal.x", false),
            ("*b*c", "abbbcabc", true),
            ("*b*c", "abbbcab", false),
            ("db", "DB", false),
            ("?", "\u{fc}", true),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} {text}");
        }
        // Not exponential.
        assert!(!is_match(&"a*".repeat(5000), &"a".repeat(4999)));
    }

    #[test]
    fn all_conditions_and_one_pattern_of_each() {
        let conditions = |text: &str| Conditions::take(&mut text.parse().unwrap());
        let subject =
            Subject { profile: Some("prod-eu".into()), port: Some("5432".into()), ..Subject::default() };
        for (text, expected) in [
            ("", true),
            ("profile = 'prod-*'", true),
            ("profile = ['dev', 'prod-eu']", true),
            ("profile = 'prod-*'\nport = 5432", true),
            ("profile = 'prod-*'\nport = 5433", false),
            ("host = '*'", false),
            ("profile = []", false),
        ] {
            assert_eq!(conditions(text).unwrap().match_session(&subject), expected, "{text}");
        }
        assert_eq!(conditions("host = true").unwrap_err(), "host must be a pattern or a list of patterns");
    }
}
