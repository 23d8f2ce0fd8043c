//! Reading of single settings from the environment and the settings file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::forward::NONE;
use super::kind::Kind;
use super::name;
use super::warning::{Warning, shown};

/// Source of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
}

/// Reads the values of settings and collects warnings.
pub(super) struct Reader<G> {
    pub get: G,
    /// The settings file's values, by the names of the variables.
    pub file: BTreeMap<&'static str, String>,
    pub warnings: Vec<Warning>,
    pub set: Vec<(&'static str, Source)>,
}

impl<G: Fn(&str) -> Option<OsString>> Reader<G> {
    /// A setting's value, or its default: one that cannot be used costs a warning.
    pub(super) fn read<K: Kind>(&mut self, name: &'static str, kind: &K) -> K::Value {
        let Some((value, source)) = self.given(name) else { return kind.default() };
        let found = if K::IS_PATH { self.in_home(&value) } else { Ok(value.clone()) };
        let read = found.and_then(|value| {
            kind.read(&value).ok_or_else(|| format!("the value must be {}", kind.wanted()))
        });
        match read {
            Ok(read) => {
                // The session that uses the setting reports them.
                self.warnings.extend(K::mistakes(&read).iter().cloned().map(Warning::minor));
                read
            }
            Err(mistake) => {
                self.warn(name, source, &value, &mistake, kind.default_text());
                kind.default()
            }
        }
    }

    /// Returns the value given for a setting. Blank values count as unset.
    fn given(&mut self, name: &'static str) -> Option<(OsString, Source)> {
        let is_given = |value: &OsString| !value.as_encoded_bytes().trim_ascii().is_empty();
        let found = match (self.get)(name).filter(is_given) {
            Some(value) => (value, Source::Environment),
            None => (self.file.get(name).map(OsString::from).filter(is_given)?, Source::File),
        };
        self.set.push((name, found.1));
        Some(found)
    }

    /// A path with the home directory in the place of `~/`. `~user/` stays as it is.
    ///
    /// # Errors
    /// Without a home directory.
    fn in_home(&self, path: &OsStr) -> Result<OsString, String> {
        let Ok(rest) = Path::new(path).strip_prefix("~") else { return Ok(path.to_owned()) };
        match (self.get)(HOME).map(PathBuf::from).filter(|home| home.is_absolute()) {
            Some(home) => Ok(home.join(rest).into_os_string()),
            None => Err(format!("~/ cannot be expanded, because {HOME} is not set")),
        }
    }

    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        let absolute = |name: &str| (self.get)(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if cfg!(windows) {
            return absolute("LOCALAPPDATA");
        }
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
    }

    fn warn(&mut self, name: &'static str, source: Source, value: &OsStr, mistake: &str, default: String) {
        let value = shown(&value.to_string_lossy());
        let given = match source {
            Source::File => format!("{} = {value:?} in the settings file", name::key(name)),
            Source::Environment => format!("{name}={value:?}"),
        };
        let effect = match default {
            none if none == NONE => "the setting is ignored".to_owned(),
            default => format!("using the default, {default}"),
        };
        let text = format!("{given}: {mistake}; {effect}");
        self.warnings.push(Warning { text, is_minor: !name::is_ours(name) });
    }
}

/// The variable with the home directory.
const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
