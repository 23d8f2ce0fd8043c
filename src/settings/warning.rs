//! Warnings about settings that cannot be used.

use std::fmt;

use super::matching::Conditions;

/// Something about the settings that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(super) text: String,
    /// Not a mistake in settings of this program: variables of another program, the file of another user. Printed by
    /// `doctor` and in the log, not at every start.
    pub is_minor: bool,
}

impl Warning {
    pub(super) fn new(text: String) -> Warning {
        Warning { text, is_minor: false }
    }

    pub(super) fn minor(text: String) -> Warning {
        Warning { text, is_minor: true }
    }

    /// The text for a name that no setting has, with the known one that looks most like it.
    pub(super) fn unknown(name: &str, known: impl Iterator<Item = String>) -> String {
        let name = shown(name);
        match nearest(&name, known) {
            _ if Conditions::names().contains(&name.as_str()) => {
                format!("{name} is a condition, and belongs in a [[match]] section")
            }
            Some(known) => format!("unknown setting {name}; did you mean {known}?"),
            None => format!("unknown setting {name}; see --help"),
        }
    }

    /// The text for a name in a `[[match]]` section that is neither a condition nor a setting.
    pub(super) fn unknown_in_match(name: &str, settings: impl Iterator<Item = String>) -> String {
        let name = shown(name);
        let conditions = Conditions::names();
        match nearest(&name, settings.chain(conditions.iter().map(|&name| name.to_owned()))) {
            Some(known) => format!("unknown condition or setting {name}; did you mean {known}?"),
            None => format!(
                "{name} is neither a condition ({}) nor a setting (see --help)",
                conditions.join(", ")
            ),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The known name that looks most like `name`, if one does.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (errors, known) = known.map(|known| (strsim::levenshtein(name, &known), known)).min()?;
    (errors <= MAX_TYPOS && errors < name.len() / 2).then_some(known)
}

/// The first lines about a list, and one with the number of the others, after the `prefix`.
pub(super) fn limited(prefix: &str, mut lines: Vec<String>) -> Vec<String> {
    let rest = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    if rest > 0 {
        lines.push(format!("{prefix}{rest} more mistakes"));
    }
    lines
}

/// The beginning of something that may be long.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_WORD).collect()
}

/// Characters of a bad name or value shown in its warning.
const MAX_WORD: usize = 40;
/// Mistakes of one list that are shown.
const MAX_LINES: usize = 10;
/// Beyond this edit distance, no suggestion is made.
const MAX_TYPOS: usize = 3;
