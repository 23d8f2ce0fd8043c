//! Every setting the plugin reads itself, in one table ([`TABLE`]): environment variables, and under the same names
//! an optional file in the user's configuration directory ([`config_file`]), over which the environment wins.
//!
//! A setting is one row of the table: from that come its field in [`Settings`], how it is read, and its lines in `--help`
//! and the manual page. A value that cannot be used costs one warning and the default: a setting never stops a session.
//! (Proxy, trust and credential variables belong to the code that uses them and follow the AWS SDKs.)

mod file;
mod kind;
mod page;
mod table;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

pub use self::file::config_file;
use self::kind::Kind;
pub use self::page::{help, manual};
pub use self::table::{PREFIX, Settings, TABLE, Variable};
use crate::link::StreamHosts;

/// When to print status lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Only when stderr is a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
    /// Always, as JSON for tools.
    Json,
}

impl Settings {
    /// Reads this process's environment and the user's settings file.
    pub fn load() -> Loaded {
        let get = |name: &str| std::env::var_os(name);
        let file = config_file(get);
        let names = std::env::vars_os().map(|(name, _)| name);
        Loaded::from(get, names, file.as_deref())
    }

    /// The hosts that stream URLs lead to beside AWS's.
    pub fn stream_hosts(&self) -> StreamHosts {
        StreamHosts { allowed: self.allow_stream_host.clone(), instead: self.stream_host.clone() }
    }
}

impl Default for Settings {
    /// All defaults, as with an empty environment.
    fn default() -> Settings {
        Loaded::from(|_| None, std::iter::empty(), None).settings
    }
}

/// Settings with where they come from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What could not be used.
    pub warnings: Vec<Warning>,
    /// The settings that are not left to their defaults, by the names of their variables.
    pub set: Vec<(&'static str, Source)>,
}

impl Loaded {
    /// From an environment (`get`, and the `names` of its variables) and the settings file at `path`, if there is one.
    pub fn from(
        get: impl Fn(&str) -> Option<OsString>,
        names: impl Iterator<Item = OsString>,
        path: Option<&Path>,
    ) -> Loaded {
        let mut warnings = Vec::new();
        for name in names {
            let name = name.to_string_lossy();
            if name.starts_with(PREFIX) && table::find(&name).is_none() {
                warnings.push(Warning::unknown(&name, TABLE.iter().map(|row| row.name.to_owned())));
            }
        }
        let file = match path {
            Some(path) => file::read(path, &mut warnings),
            None => BTreeMap::new(),
        };
        let mut reader = Reader { get, file, warnings, set: Vec::new() };
        let settings = Settings::read(&mut reader);
        Loaded { settings, warnings: reader.warnings, set: reader.set }
    }
}

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
}

/// Something about the settings that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    text: String,
    /// Not a mistake that somebody made for this program: the variables of another, the file of another user. Said by
    /// `doctor` and in the log, not at every start.
    pub is_minor: bool,
}

impl Warning {
    fn new(text: String) -> Warning {
        Warning { text, is_minor: false }
    }

    fn minor(text: String) -> Warning {
        Warning { text, is_minor: true }
    }

    /// A name that no setting has, with the known one that looks most like it.
    fn unknown(name: &str, known: impl Iterator<Item = String>) -> Warning {
        let nearest = known.map(|known| (distance(name, &known), known)).min();
        let name = shown(name);
        Warning::new(match nearest {
            Some((errors, known)) if errors <= MAX_TYPOS => {
                format!("unknown setting {name}; did you mean {known}?")
            }
            _ => format!("unknown setting {name}; see --help"),
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Reader<G> {
    get: G,
    /// The settings file's values, by the names of the variables.
    file: BTreeMap<&'static str, String>,
    warnings: Vec<Warning>,
    set: Vec<(&'static str, Source)>,
}

impl<G: Fn(&str) -> Option<OsString>> Reader<G> {
    /// A setting's value, or its default: one that cannot be used costs a warning.
    fn read<K: Kind>(&mut self, name: &'static str, kind: &K) -> K::Value {
        let Some((value, source)) = self.given(name) else { return kind.default() };
        kind.read(&value).unwrap_or_else(|| {
            self.warn(name, source, &value, kind);
            kind.default()
        })
    }

    /// What is given for a setting. Nothing but white space is nothing.
    fn given(&mut self, name: &'static str) -> Option<(OsString, Source)> {
        let is_given = |value: &OsString| !value.as_encoded_bytes().trim_ascii().is_empty();
        let found = match (self.get)(name).filter(is_given) {
            Some(value) => (value, Source::Environment),
            None => (self.file.get(name).map(OsString::from).filter(is_given)?, Source::File),
        };
        self.set.push((name, found.1));
        Some(found)
    }

    fn state_dir(&self) -> Option<PathBuf> {
        let absolute = |name: &str| (self.get)(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if cfg!(windows) {
            return absolute("LOCALAPPDATA");
        }
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
    }

    fn warn(&mut self, name: &'static str, source: Source, value: &OsStr, kind: &impl Kind) {
        let row = table::find(name);
        let value = shown(&value.to_string_lossy());
        let given = match (source, row) {
            (Source::File, Some(row)) => format!("{} = {value:?} in the settings file", row.key()),
            _ => format!("{name}={value:?}"),
        };
        let text = format!("{given} is not {}, using {}", kind.wanted(), kind.default_text());
        self.warnings.push(Warning { text, is_minor: row.is_some_and(|row| !row.is_ours()) });
    }
}

/// The beginning of something that may be long.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// How many characters must be added, left out or replaced to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.chars().take(MAX_SHOWN).enumerate() {
        let mut corner = line;
        let mut last = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(&to) {
            let here = (corner + usize::from(left != *right)).min(*cell + 1).min(last + 1);
            corner = std::mem::replace(cell, here);
            last = here;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Characters of a bad name or value shown in its warning.
const MAX_SHOWN: usize = 40;
/// Further off, a name is not taken for a misspelt one.
const MAX_TYPOS: usize = 3;

#[cfg(test)]
mod tests;
