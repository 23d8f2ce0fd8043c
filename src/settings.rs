//! Every environment variable the plugin reads itself, in one table ([`TABLE`]).
//!
//! The table feeds `--help`; [`Settings::from_env`] follows it. A value that cannot be used costs one
//! warning and the default: a setting never stops a session. (Proxy, trust and credential variables
//! belong to the code that uses them and follow the AWS SDKs.)

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::COMPATIBLE_VERSION;

/// One variable: its name, its default in words, what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The value that counts when it is absent.
    pub default: &'static str,
    /// What it does, for `--help`.
    pub meaning: &'static str,
    /// Why it exists and why the default is what it is.
    pub source: &'static str,
}

/// Shorthand for the rows of [`TABLE`].
const fn row(
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
    source: &'static str,
) -> Variable {
    Variable { name, default, meaning, source }
}

/// All variables, in the order `--help` shows them.
pub const TABLE: &[Variable] = &[
    row(
        "SSM_PLUGIN_EXIT_CODE",
        "0",
        "1: exit with the remote command's status, 255 for own failures",
        "smp#59; off because the AWS CLI prints our argv when we exit non-zero (smp#60)",
    ),
    row(
        "SSM_PLUGIN_LOCAL_HOST",
        "localhost",
        "address a forwarded port listens on",
        "smp#14, smp#54, the name of smp#133",
    ),
    row(
        "SSM_PLUGIN_SESSIONS",
        "1",
        "sessions that share a forwarded port, 1 to 8",
        "the service's limit of messages per second counts per session",
    ),
    row(
        "SSM_PLUGIN_KEEP_ALIVE_WITHOUT_PARENT",
        "0",
        "1: keep running when the calling process has died",
        "orphaned plugins keep a port open (cli#5149)",
    ),
    row(
        "SSM_PLUGIN_ALLOW_STREAM_HOST",
        "none",
        "one more host the stream URL may name",
        "the official plugin refuses other than AWS hosts since 1.2.889",
    ),
    row(
        "SSM_PLUGIN_STREAM_HOST",
        "none",
        "connect to this host instead of the stream URL's",
        "private vpce hosts (smp#122)",
    ),
    row(
        "SSM_PLUGIN_SKIP_CLIENT_CONFIGURE",
        "false",
        "true: no credentials, unsigned open, no resume",
        "the official plugin's",
    ),
    row(
        "SSM_PLUGIN_LOG",
        "off",
        "diagnostics: error, warn, info, debug, trace or a tracing filter",
        "smp#139: logs are needed and off",
    ),
    row(
        "SSM_PLUGIN_LOG_FILE",
        "in the state directory",
        "file for the diagnostics",
        "the official plugin's folder needs root",
    ),
    row(
        "SSM_PLUGIN_MESSAGE_RATE",
        "900",
        "data messages per second a session may send, 0: unlimited",
        "the service stops sessions near 1000",
    ),
    row(
        "SSM_PLUGIN_MAX_PAYLOAD",
        "1024",
        "bytes in a data message, 64 to 32768",
        "the official plugin's StreamDataPayloadSize",
    ),
    row(
        "SSM_PLUGIN_WINDOW",
        "262144",
        "bytes that may be unacknowledged",
        "measured: an agent without a window stalls",
    ),
    row(
        "SSM_PLUGIN_STATUS",
        "auto",
        "lines about the connection on stderr: auto (if a terminal), always, never",
        "users see a hang (smp#135, cli#9282)",
    ),
    row(
        "SSM_PLUGIN_QUIET",
        "0",
        "1: no notices of the plugin on stdout, only the session's bytes",
        "agent#358, smp#94",
    ),
    row(
        "SSM_PLUGIN_OPEN_TIMEOUT",
        "30",
        "seconds to open the connection",
        "smp#68: a blocked network looks like a hang",
    ),
    row("SSM_PLUGIN_HANDSHAKE_TIMEOUT", "60", "seconds until the agent must have answered", "agent#636"),
    row(
        "SSM_PLUGIN_RECONNECT_TIMEOUT",
        "300",
        "seconds to keep trying to connect again",
        "smp#135, smp#136: five tries are too few",
    ),
    row(
        "SSM_PLUGIN_PING_INTERVAL",
        "30",
        "seconds between websocket pings",
        "smp#15: 5 minutes is too slow for proxies",
    ),
    row("COLUMNS", "300", "width sent when no terminal can tell", "the official plugin's fallback, smp#48"),
    row("LINES", "100", "height sent when no terminal can tell", "the official plugin's fallback, smp#48"),
];

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
    /// Keep running when the parent has died.
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
    /// When to print status lines on stderr.
    pub status: When,
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
        let mut reader = Reader { get, warnings: Vec::new() };
        let settings = reader.settings();
        (settings, reader.warnings)
    }
}

impl Default for Settings {
    /// All defaults, as with an empty environment.
    fn default() -> Settings {
        Settings::from_env(|_| None).0
    }
}

/// A value that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    name: &'static str,
    value: String,
    wanted: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning { name, value, wanted } = self;
        write!(f, "{name}={value:?} is not {wanted}, using {}", default_of(name))
    }
}

/// The text of `--help`, made from [`TABLE`].
pub fn help() -> String {
    let mut text = format!(
        "session-manager-plugin {} (compatible with {COMPATIBLE_VERSION})\n\n\
         Called by the AWS CLI:\n  \
         session-manager-plugin <response> <region> StartSession [<profile> [<request> [<endpoint>]]]\n  \
         session-manager-plugin --version | --help\n\n\
         Environment:\n",
        env!("CARGO_PKG_VERSION"),
    );
    let width = TABLE.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for Variable { name, default, meaning, .. } in TABLE {
        text += &format!("  {name:width$}  {meaning} [{default}]\n");
    }
    text
}

struct Reader<G> {
    get: G,
    warnings: Vec<Warning>,
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
            log_file: self.value("SSM_PLUGIN_LOG_FILE").map(PathBuf::from),
            state_dir: self.state_dir(),
            message_rate: Some(self.number("SSM_PLUGIN_MESSAGE_RATE", 0..=MAX_MESSAGE_RATE))
                .filter(|&rate| rate > 0),
            max_payload: self.number("SSM_PLUGIN_MAX_PAYLOAD", MIN_PAYLOAD..=MAX_PAYLOAD),
            window: self.number("SSM_PLUGIN_WINDOW", MAX_PAYLOAD..=MAX_WINDOW),
            status: self.when("SSM_PLUGIN_STATUS"),
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
    fn value(&self, name: &str) -> Option<OsString> {
        debug_assert!(TABLE.iter().any(|row| row.name == name), "{name} is not in the table");
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.value(name)?;
        match value.to_str() {
            Some(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            None => {
                self.warn(name, &value, "valid UTF-8".to_owned());
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
        if let Some(value) = self.value(name) {
            match value.to_str().and_then(|text| convert(text.trim())) {
                Some(value) => return Some(value),
                None => self.warn(name, &value, wanted()),
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

    fn warn(&mut self, name: &'static str, value: &OsStr, wanted: String) {
        let value = value.to_string_lossy().chars().take(MAX_SHOWN).collect();
        self.warnings.push(Warning { name, value, wanted });
    }
}

fn default_of(name: &str) -> &'static str {
    TABLE.iter().find(|row| row.name == name).map_or("", |row| row.default)
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
/// Characters of a bad value shown in its warning.
const MAX_SHOWN: usize = 40;

#[cfg(test)]
mod tests;
