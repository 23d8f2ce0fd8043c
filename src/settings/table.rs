//! The table itself.

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

impl Variable {
    /// Its name in the settings file: in lower case, without the prefix.
    pub fn key(&self) -> String {
        self.name.strip_prefix(PREFIX).unwrap_or(self.name).to_ascii_lowercase()
    }
}

/// The row of the variable `name`.
pub fn find(name: &str) -> Option<&'static Variable> {
    TABLE.iter().find(|row| row.name == name)
}

/// What the names of our own variables begin with.
pub const PREFIX: &str = "SSM_PLUGIN_";

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
        "1: keep running when the AWS CLI that called has died",
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
        "SSM_PLUGIN_LOG_CONNECTIONS",
        "0",
        "1: each forwarded connection on stderr: from where, how long, bytes",
        "smp#139: what a tunnel did is found out afterwards; in SSM_PLUGIN_LOG=info in any case",
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
    row(
        "SSM_PLUGIN_WIRE_LOG",
        "none",
        "file that records the session's frames, to attach to a report",
        "reports without a trace cannot be reproduced (smp#135)",
    ),
    row(
        "SSM_PLUGIN_WIRE_LOG_PAYLOADS",
        "0",
        "1: record what was typed and shown, too, not only its length",
        "off: a recording shall be fit to be shown",
    ),
    row("COLUMNS", "300", "width sent when no terminal can tell", "the official plugin's fallback, smp#48"),
    row("LINES", "100", "height sent when no terminal can tell", "the official plugin's fallback, smp#48"),
];
