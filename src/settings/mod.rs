//! Every setting the plugin reads itself, in one table ([`TABLE`]): environment variables, and under the same names
//! an optional file in the user's configuration directory ([`config_file`]), over which the environment wins.
//!
//! A setting is one row of the table: from that come its field in [`Settings`], how it is read, and its lines in `--help`
//! and the manual page. A value that cannot be used costs one warning and the default: a setting never stops a session.
//! (Proxy, trust and credential variables belong to the code that uses them and follow the AWS SDKs.)

mod file;
mod forward;
mod kind;
mod matching;
mod name;
mod reader;
mod safeguards;
mod table;
mod tunnel;
mod warning;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

pub(crate) use self::file::{FILE_RULE, config_file, ignored_file};
pub(crate) use self::forward::{Forward, Forwards};
pub(crate) use self::kind::{SocksAddress, When};
pub(crate) use self::matching::Subject;
pub(crate) use self::name::PREFIX;
use self::reader::Reader;
pub(crate) use self::reader::Source;
pub(crate) use self::safeguards::Relaxation;
pub(crate) use self::table::{Settings, TABLE};
pub(crate) use self::tunnel::Tunnel;
pub(crate) use self::warning::Warning;
use self::warning::limited;
use crate::link::StreamHosts;

impl Settings {
    /// Reads this process's environment and the user's settings file for the session `subject`.
    pub(crate) fn load(subject: &Subject) -> LoadedSettings {
        let get = |name: &str| std::env::var_os(name);
        let file = config_file(get);
        let names = std::env::vars_os().map(|(name, _)| name);
        LoadedSettings::from(get, names, file.as_deref(), subject)
    }

    /// The names of those that only forwarded ports have, where they are not left to their defaults.
    pub(crate) fn of_ports(&self) -> Vec<&'static str> {
        let all = [
            ("SSM_PLUGIN_RESTART", self.restart),
            ("SSM_PLUGIN_FORWARD", !self.forward.is_empty()),
            ("SSM_PLUGIN_SOCKS", self.socks.is_some()),
            ("SSM_PLUGIN_SESSIONS", self.sessions > 1),
        ];
        all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// Returns whether the connections of a forwarded port are reported on stderr.
    pub(crate) fn shows_connections(&self) -> bool {
        self.log_connections || self.status == When::Json
    }

    /// The hosts that stream URLs may lead to, in addition to AWS's.
    pub(crate) fn stream_hosts(&self) -> StreamHosts {
        StreamHosts { allowed: self.allow_stream_host.clone(), instead: self.stream_host.clone() }
    }
}

impl Default for Settings {
    /// All defaults, as with an empty environment.
    fn default() -> Settings {
        LoadedSettings::from(|_| None, std::iter::empty(), None, &Subject::default()).settings
    }
}

/// Settings with where they come from.
#[derive(Debug, Clone)]
pub(crate) struct LoadedSettings {
    /// The settings.
    pub settings: Settings,
    /// Warnings about rejected values.
    pub warnings: Vec<Warning>,
    /// The settings that are not left to their defaults, by the names of their variables.
    pub set: Vec<(&'static str, Source)>,
}

impl LoadedSettings {
    /// From an environment (`get`, and the `names` of its variables) and the settings file at `path`, if there is one.
    pub(crate) fn from(
        get: impl Fn(&str) -> Option<OsString>,
        names: impl Iterator<Item = OsString>,
        path: Option<&Path>,
        subject: &Subject,
    ) -> LoadedSettings {
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let unknown = names.filter(|name| name.starts_with(PREFIX) && table::find(name).is_none());
        let known = || TABLE.iter().map(|row| row.name.to_owned());
        let unknown = unknown.map(|name| Warning::unknown(&name, known())).collect();
        let mut warnings: Vec<_> =
            limited("unknown settings: ", unknown).into_iter().map(Warning::new).collect();
        let file = match path {
            Some(path) => file::read(path, subject, &mut warnings),
            None => BTreeMap::new(),
        };
        let mut reader = Reader { get, file, warnings, set: Vec::new() };
        let settings = Settings::read(&mut reader);
        LoadedSettings { settings, warnings: reader.warnings, set: reader.set }
    }
}

#[cfg(test)]
mod tests;
