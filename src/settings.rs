//! Every setting the plugin reads itself, in one table ([`TABLE`]): environment variables, and under the same names
//! an optional file in the user's configuration directory ([`config_file`]), over which the environment wins.
//!
//! The table feeds `--help` and the manual page. A value that cannot be used costs one warning and the default: a
//! setting never stops a session. (Proxy, trust and credential variables belong to the code that uses them and follow
//! the AWS SDKs.)

mod file;
mod page;
mod table;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::file::config_file;
pub use self::page::{help, manual};
pub use self::table::{PREFIX, TABLE, Variable};

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
}

/// The settings of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Exit with the remote command's status.
    pub exit_code: bool,
    /// Address a forwarded port listens on; `None` is `localhost`, both families.
    pub local_host: Option<String>,
    /// Sessions that share one forwarded port, 1 to 8.
    pub sessions: usize,
    /// Keep running when the AWS CLI that called us has died.
    pub keep_alive_without_parent: bool,
    /// One more host the stream URL may name.
    pub allow_stream_host: Option<String>,
    /// Host to connect to instead of the stream URL's.
    pub stream_host: Option<String>,
    /// No credentials, no signing, no resume.
    pub skip_client_configure: bool,
    /// Filter of the diagnostics; `None` is off.
    pub log: Option<String>,
    /// File of the diagnostics; `None` is a daily file in [`Settings::state_dir`].
    pub log_file: Option<PathBuf>,
    /// The user's directory for state, from `XDG_STATE_HOME` or the home directory.
    pub state_dir: Option<PathBuf>,
    /// Data messages per second; `None` is unlimited.
    pub message_rate: Option<u32>,
    /// Bytes in a data message.
    pub max_payload: usize,
    /// Bytes that may be unacknowledged.
    pub window: usize,
    /// File that records the session's frames.
    pub wire_log: Option<PathBuf>,
    /// Record payloads in full.
    pub wire_log_payloads: bool,
    /// When to print status lines on stderr.
    pub status: When,
    /// Lines about local connections on stderr.
    pub log_connections: bool,
    /// No notices on stdout.
    pub quiet: bool,
    /// Time to open the connection.
    pub open_timeout: Duration,
    /// Time until the agent must have answered.
    pub handshake_timeout: Duration,
    /// How long to keep trying to connect again.
    pub reconnect_timeout: Duration,
    /// Between two websocket pings.
    pub ping_interval: Duration,
    /// Width sent when no terminal can tell.
    pub columns: u16,
    /// Height sent when no terminal can tell.
    pub lines: u16,
}

impl Settings {
    /// Reads the environment through `get`. Bad values give a warning and the default.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> (Settings, Vec<Warning>) {
        let loaded = Loaded::from(get, std::iter::empty(), None);
        (loaded.settings, loaded.warnings)
    }

    /// Reads this process's environment and the user's settings file.
    pub fn load() -> Loaded {
        let get = |name: &str| std::env::var_os(name);
        let file = config_file(get);
        let names = std::env::vars_os().map(|(name, _)| name);
        Loaded::from(get, names, file.as_deref())
    }
}

impl Default for Settings {
    /// All defaults, as with an empty environment.
    fn default() -> Settings {
        Settings::from_env(|_| None).0
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
        let settings = reader.settings();
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
pub struct Warning(String);

impl Warning {
    /// A name that no setting has, with the known one that looks most like it.
    fn unknown(name: &str, known: impl Iterator<Item = String>) -> Warning {
        let nearest = known.map(|known| (distance(name, &known), known)).min();
        let name = shown(name);
        Warning(match nearest {
            Some((errors, known)) if errors <= MAX_TYPOS => format!("{name} is no setting; {known} is one"),
            _ => format!("{name} is no setting, see --help"),
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    fn settings(&mut self) -> Settings {
        Settings {
            exit_code: self.flag("SSM_PLUGIN_EXIT_CODE"),
            local_host: self.text("SSM_PLUGIN_LOCAL_HOST"),
            sessions: self.number("SSM_PLUGIN_SESSIONS", 1..=MAX_SESSIONS),
            keep_alive_without_parent: self.flag("SSM_PLUGIN_KEEP_ALIVE_WITHOUT_PARENT"),
            allow_stream_host: self.text("SSM_PLUGIN_ALLOW_STREAM_HOST"),
            stream_host: self.text("SSM_PLUGIN_STREAM_HOST"),
            skip_client_configure: self.flag("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE"),
            log: self.text("SSM_PLUGIN_LOG").filter(|filter| !is_off(filter)),
            log_file: self.value("SSM_PLUGIN_LOG_FILE").map(|(path, _)| PathBuf::from(path)),
            state_dir: self.state_dir(),
            message_rate: Some(self.number("SSM_PLUGIN_MESSAGE_RATE", 0..=MAX_MESSAGE_RATE))
                .filter(|&rate| rate > 0),
            max_payload: self.number("SSM_PLUGIN_MAX_PAYLOAD", MIN_PAYLOAD..=MAX_PAYLOAD),
            window: self.number("SSM_PLUGIN_WINDOW", MAX_PAYLOAD..=MAX_WINDOW),
            wire_log: self.value("SSM_PLUGIN_WIRE_LOG").map(|(path, _)| PathBuf::from(path)),
            wire_log_payloads: self.flag("SSM_PLUGIN_WIRE_LOG_PAYLOADS"),
            status: self.when("SSM_PLUGIN_STATUS"),
            log_connections: self.flag("SSM_PLUGIN_LOG_CONNECTIONS"),
            quiet: self.flag("SSM_PLUGIN_QUIET"),
            open_timeout: self.seconds("SSM_PLUGIN_OPEN_TIMEOUT"),
            handshake_timeout: self.seconds("SSM_PLUGIN_HANDSHAKE_TIMEOUT"),
            reconnect_timeout: self.seconds("SSM_PLUGIN_RECONNECT_TIMEOUT"),
            ping_interval: self.seconds("SSM_PLUGIN_PING_INTERVAL"),
            columns: self.number("COLUMNS", 1..=u16::MAX),
            lines: self.number("LINES", 1..=u16::MAX),
        }
    }

    /// An empty variable counts as absent.
    fn value(&mut self, name: &'static str) -> Option<(OsString, Source)> {
        debug_assert!(table::find(name).is_some(), "{name} is not in the table");
        let found = match (self.get)(name).filter(|value| !value.is_empty()) {
            Some(value) => (value, Source::Environment),
            None => (OsString::from(self.file.get(name)?), Source::File),
        };
        self.set.push((name, found.1));
        Some(found)
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let (value, source) = self.value(name)?;
        match value.to_str() {
            Some(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            None => {
                self.warn(name, source, &value, "valid UTF-8");
                None
            }
        }
    }

    /// The value as `convert` reads it, or the table's default.
    fn converted<T>(
        &mut self,
        name: &'static str,
        convert: impl Fn(&str) -> Option<T>,
        wanted: impl FnOnce() -> String,
    ) -> Option<T> {
        if let Some((value, source)) = self.value(name) {
            match value.to_str().and_then(|text| convert(text.trim())) {
                Some(value) => return Some(value),
                None => self.warn(name, source, &value, &wanted()),
            }
        }
        convert(default_of(name))
    }

    fn flag(&mut self, name: &'static str) -> bool {
        self.converted(name, flag, || "0 or 1".to_owned()).unwrap_or_default()
    }

    fn when(&mut self, name: &'static str) -> When {
        self.converted(name, when, || "auto, always or never".to_owned()).unwrap_or_default()
    }

    fn seconds(&mut self, name: &'static str) -> Duration {
        Duration::from_secs(self.number(name, 1..=MAX_SECONDS))
    }

    fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> T
    where
        T: std::str::FromStr + PartialOrd + Copy + fmt::Display,
    {
        let (low, high) = (*range.start(), *range.end());
        let convert = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.converted(name, convert, || format!("a number from {low} to {high}")).unwrap_or(low)
    }

    fn state_dir(&self) -> Option<PathBuf> {
        let absolute = |name: &str| (self.get)(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if cfg!(windows) {
            return absolute("LOCALAPPDATA");
        }
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
    }

    fn warn(&mut self, name: &'static str, source: Source, value: &OsStr, wanted: &str) {
        let value = shown(&value.to_string_lossy());
        let default = default_of(name);
        let text = match (source, table::find(name)) {
            (Source::File, Some(row)) => {
                format!("{} = {value:?} in the settings file is not {wanted}, using {default}", row.key())
            }
            _ => format!("{name}={value:?} is not {wanted}, using {default}"),
        };
        self.warnings.push(Warning(text));
    }
}

fn default_of(name: &str) -> &'static str {
    table::find(name).map_or("", |row| row.default)
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

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn when(text: &str) -> Option<When> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(When::Auto),
        "always" => Some(When::Always),
        "never" => Some(When::Never),
        _ => None,
    }
}

fn is_off(filter: &str) -> bool {
    filter.eq_ignore_ascii_case("off") || filter == "0"
}

/// The most sessions that may share a port: each is an own StartSession at AWS.
const MAX_SESSIONS: usize = 8;
const MAX_MESSAGE_RATE: u32 = 1_000_000;
const MIN_PAYLOAD: usize = 64;
/// Live agents were seen to take single messages of this size.
const MAX_PAYLOAD: usize = 32_768;
const MAX_WINDOW: usize = 64 << 20;
const MAX_SECONDS: u64 = 86_400;
/// Characters of a bad name or value shown in its warning.
const MAX_SHOWN: usize = 40;
/// Further off, a name is not taken for a misspelt one.
const MAX_TYPOS: usize = 3;

#[cfg(test)]
mod tests;
