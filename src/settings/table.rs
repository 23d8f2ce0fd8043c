//! The table itself. A setting is one row here: everything else about it comes from that.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::kind::When;
use super::kind::{
    Bytes, Checked, Choice, File, Filter, Flag, ForwardList, Host, Kind, Number, Seconds, Socks, Text,
    Version,
};
use super::name;
use super::reader::Reader;
use crate::version::COMPATIBLE_VERSION;
use crate::{link, protocol};

/// One setting, as it is described.
#[derive(Clone, Copy)]
pub(crate) struct Variable {
    /// The environment variable's name.
    pub name: &'static str,
    /// Meaning, for `--help`.
    pub meaning: &'static str,
    /// Heading in `--help`.
    pub group: &'static str,
    kind: &'static dyn Checked,
}

impl Variable {
    /// Its name in the settings file: in lower case, without the prefix.
    pub(crate) fn key(&self) -> String {
        name::key(self.name)
    }

    /// The default in words.
    pub(crate) fn default_text(&self) -> String {
        self.kind.default_text()
    }

    /// The words for its values, to follow "is not".
    pub(super) fn wanted(&self) -> String {
        self.kind.wanted()
    }

    /// Returns whether a value can be used.
    pub(super) fn accepts(&self, value: &OsStr) -> bool {
        self.kind.accepts(value)
    }

    /// Returns whether the file may have an array for it.
    pub(super) fn is_list(&self) -> bool {
        self.kind.is_list()
    }

    /// Returns the meaning, with the accepted numbers.
    pub(crate) fn text(&self) -> String {
        match self.kind.range() {
            Some(range) => format!("{} ({range})", self.meaning),
            None => self.meaning.to_owned(),
        }
    }
}

/// The row of the variable `name`.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    TABLE.iter().find(|row| row.name == name)
}

/// The row of a key of the settings file: its name there, the variable's, or the variable's without the prefix.
pub(super) fn find_key(key: &str) -> Option<&'static Variable> {
    let name = key.to_ascii_uppercase();
    TABLE.iter().find(|row| row.name == name || row.name.strip_prefix(name::PREFIX) == Some(&name))
}

/// Makes [`Settings`], [`TABLE`] and the reading of them from groups of rows: field, kind with its default, name, meaning
/// and the reason for it.
macro_rules! settings {
    ($($group:literal { $($field:ident: $kind:ty = $value:expr, $name:literal, $meaning:literal, $reason:literal;)* })*) => {
        /// The settings of one run.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct Settings {
            $($(
                #[doc = concat!("`", $name, "`\n\n```text\n", $meaning, "\n", $reason, "\n```")]
                pub $field: <$kind as Kind>::Value,
            )*)*
            /// The user's directory for state, from `XDG_STATE_HOME` or the home directory.
            pub state_dir: Option<PathBuf>,
        }

        impl Settings {
            pub(super) fn read<G: Fn(&str) -> Option<std::ffi::OsString>>(reader: &mut Reader<G>) -> Settings {
                Settings {
                    $($($field: reader.read::<$kind>($name, &$value),)*)*
                    state_dir: reader.state_dir(),
                }
            }
        }

        /// All settings, in the order `--help` shows them.
        pub(crate) const TABLE: &[Variable] = &[
            $($(Variable { name: $name, group: $group, meaning: $meaning, kind: &$value },)*)*
        ];
    };
}

settings! {
    "Everyday" {
        local_host: Host = Host("localhost"),
            "SSM_PLUGIN_LOCAL_HOST",
            "address on which a forwarded port listens",
            "smp#14, smp#54; named as proposed in smp#133";
        restart: Flag = Flag,
            "SSM_PLUGIN_RESTART",
            "1: keep a forwarded port open when its session ends; the next connection starts a new session",
            "smp#55, smp#135: tunnels drop when idle, on reboot and on failover";
        forward: ForwardList = ForwardList,
            "SSM_PLUGIN_FORWARD",
            "additional ports to forward, separated by commas or spaces, each as [BIND:]PORT:HOST:HOSTPORT",
            "smp#24: one terminal for each port; each is a StartSession in the audit log";
        socks: Socks = Socks,
            "SSM_PLUGIN_SOCKS",
            "loopback port for a SOCKS and HTTP proxy (0: any free port), or unix:<path> for a socket file",
            "smp#88; each destination is a StartSession in the audit log";
        sessions: Number<usize> = Number { default: 1, least: 1, most: MAX_SESSIONS },
            "SSM_PLUGIN_SESSIONS",
            "number of sessions that share a forwarded port",
            "the service's limit of messages per second counts per session";
        any_user: Flag = Flag,
            "SSM_PLUGIN_ANY_USER",
            "1: let other local users connect to SOCKS, FORWARD and RESTART ports",
            "sessions started through such a port use your AWS permissions";
        status: Choice<When> = Choice(&[("auto", When::Auto), ("always", When::Always), ("never", When::Never), ("json", When::Json)]),
            "SSM_PLUGIN_STATUS",
            "status lines on stderr: auto (if a terminal), always, never, json",
            "without them a lost connection looks like a hang (smp#135, cli#9282)";
        log_connections: Flag = Flag,
            "SSM_PLUGIN_LOG_CONNECTIONS",
            "1: report each forwarded connection on stderr: origin, duration, bytes",
            "smp#139: so that you can see afterwards what a tunnel did; SSM_PLUGIN_LOG=info always includes it";
        quiet: Flag = Flag,
            "SSM_PLUGIN_QUIET",
            "1: print only the session's output on stdout, no plugin notices",
            "agent#358, smp#94";
        exit_code: Flag = Flag,
            "SSM_PLUGIN_EXIT_CODE",
            "1: exit with the remote command's status, or 255 if the plugin fails; no effect under the AWS CLI, where the status is always 0",
            "smp#59; off, and without effect under the AWS CLI, which prints our arguments when the status is not 0 (smp#60)";
    }
    "Logs and recordings" {
        log: Filter = Filter,
            "SSM_PLUGIN_LOG",
            "diagnostics: error, warn, info, debug, trace, or a filter such as session_manager_plugin::link=debug",
            "smp#139: logs are needed, but off by default";
        log_file: File = File("a daily file in the log directory"),
            "SSM_PLUGIN_LOG_FILE",
            "path of the log file, which may begin with ~/",
            "the official plugin's log folder needs root";
        wire_log: File = File("none"),
            "SSM_PLUGIN_WIRE_LOG",
            "file in which to record the session's websocket frames, for a bug report",
            "reports without a trace cannot be reproduced (smp#135)";
        wire_log_payloads: Flag = Flag,
            "SSM_PLUGIN_WIRE_LOG_PAYLOADS",
            "1: also record input and output, not only their length",
            "off: a recording should be safe to share";
        core_dumps: Flag = Flag,
            "SSM_PLUGIN_CORE_DUMPS",
            "1: allow core dumps after a crash, if the system is configured to write them",
            "off: the memory holds the token, credentials and what was typed";
    }
    "Connection" {
        open_timeout: Seconds = Seconds(link::Config::OPEN_TIMEOUT),
            "SSM_PLUGIN_OPEN_TIMEOUT",
            "time allowed for opening the connection",
            "smp#68: a blocked network looks like a hang";
        handshake_timeout: Seconds = Seconds(protocol::Config::HANDSHAKE_TIMEOUT),
            "SSM_PLUGIN_HANDSHAKE_TIMEOUT",
            "time allowed for the agent's first message, and again for the rest of the handshake",
            "agent#636";
        reconnect_timeout: Seconds = Seconds(link::Config::RECONNECT_TIMEOUT),
            "SSM_PLUGIN_RECONNECT_TIMEOUT",
            "time to keep trying to reconnect",
            "smp#135, smp#136: five tries are too few";
        ping_interval: Seconds = Seconds(link::Config::PING_INTERVAL),
            "SSM_PLUGIN_PING_INTERVAL",
            "time between websocket pings",
            "smp#15: 5 minutes is too slow for proxies";
        stream_host: Text = Text("none"),
            "SSM_PLUGIN_STREAM_HOST",
            "connect to this host instead of the host in the websocket URL from StartSession",
            "private vpce hosts (smp#122)";
        allow_stream_host: Text = Text("none"),
            "SSM_PLUGIN_ALLOW_STREAM_HOST",
            "additional host allowed in the websocket URL from StartSession",
            "the official plugin refuses hosts other than AWS's since 1.2.889";
        skip_client_configure: Flag = Flag,
            "SSM_PLUGIN_SKIP_CLIENT_CONFIGURE",
            "1: open the first websocket unsigned, without looking up credentials",
            "kept from the official plugin";
        reported_version: Version = Version(COMPATIBLE_VERSION),
            "SSM_PLUGIN_REPORTED_VERSION",
            "version reported to the AWS CLI, the service and the agent",
            "AWS has announced that older versions will be rejected";
    }
    "Tuning" {
        message_rate: Number<u32> = Number { default: protocol::Config::MESSAGE_RATE, least: 0, most: MAX_MESSAGE_RATE },
            "SSM_PLUGIN_MESSAGE_RATE",
            "data messages that a session may send per second; 0: unlimited",
            "the service stops sessions near 1000";
        max_payload: Bytes = Bytes { default: protocol::Config::MAX_PAYLOAD, least: MIN_PAYLOAD, most: MAX_PAYLOAD },
            "SSM_PLUGIN_MAX_PAYLOAD",
            "bytes of data in one message",
            "the official plugin's StreamDataPayloadSize";
        window: Bytes = Bytes { default: protocol::Config::MAX_WINDOW, least: MAX_PAYLOAD, most: MAX_WINDOW },
            "SSM_PLUGIN_WINDOW",
            "bytes of data that may be unacknowledged",
            "measured: an agent without a window stalls";
        buffer: Bytes = Bytes { default: 64 << 20, least: MIN_BUFFER, most: MAX_BUFFER },
            "SSM_PLUGIN_BUFFER",
            "memory for the unread data of one slow local client; for all clients together, four times this",
            "smp#139: a reader that pauses must not stop the others of its session";
        keep_alive_without_parent: Flag = Flag,
            "SSM_PLUGIN_KEEP_ALIVE_WITHOUT_PARENT",
            "1: keep running when the AWS CLI that started the plugin exits or is killed",
            "orphaned plugins keep a port open (cli#5149)";
        columns: Number<u16> = Number { default: protocol::Config::COLUMNS, least: 1, most: u16::MAX },
            "COLUMNS",
            "columns to report to the remote if the terminal size is unknown",
            "the official plugin's fallback, smp#48";
        lines: Number<u16> = Number { default: protocol::Config::LINES, least: 1, most: u16::MAX },
            "LINES",
            "lines to report to the remote if the terminal size is unknown",
            "the official plugin's fallback, smp#48";
    }
}

/// The most sessions that may share a port: each is a separate StartSession.
const MAX_SESSIONS: usize = 8;
const MIN_BUFFER: usize = 1 << 20;
/// 4 GiB; 2 GiB where 32 bits count it.
const MAX_BUFFER: usize = if usize::BITS > 32 { 1 << (usize::BITS / 2) } else { 2 << 30 };
const MAX_MESSAGE_RATE: u32 = 1_000_000;
const MIN_PAYLOAD: usize = 64;
/// Live agents were seen to take single messages of this size.
const MAX_PAYLOAD: usize = 32_768;
const MAX_WINDOW: usize = 64 << 20;
