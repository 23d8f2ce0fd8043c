//! Output that callers parse, byte for byte, and the status lines.
//!
//! Ansible waits for `Starting session with SessionId:`, tunnels for `Port N opened`: what goes to stdout is the official
//! plugin's to the last newline. [`StatusLines`] and the answers to escapes ([`ESCAPE_HELP`], [`ESCAPES_DISABLED`],
//! [`report`]) are for a person at the terminal and go to stderr. Errors have their texts at their types, and
//! `doctor` has its own.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::printable::one_line;
use crate::protocol::Stats;
use crate::settings::When;
use crate::term;

/// Without any argument. Installers search for it; the CLI runs this before `ecs execute-command`.
pub(crate) const INSTALLED: &str =
    "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n";

/// The operation is not `StartSession`. Has no newline.
pub(crate) const INVALID_OPERATION: &str = "Invalid Operation";

/// A multiplexed port session, right after its port line.
pub(crate) const WAITING_FOR_CONNECTIONS: &str = "Waiting for connections...\n";

/// The agent could not reach the destination port (flag 3).
pub(crate) const DESTINATION_FAILED: &str =
    "\nConnection to destination port failed, check SSM Agent logs.\n";

/// A port session got SIGINT, SIGQUIT or SIGTSTP; [`exiting`] follows.
pub(crate) const TERMINATE_SIGNAL: &str = "Terminate signal received, exiting.\n";

/// Answer to `~?`, for stderr of a terminal in raw mode: the official plugin's text since 1.2.835, and a line for `~#`.
pub(crate) const ESCAPE_HELP: &str = "\r\nSupported escape sequence commands:\
    \r\n  ~? - this help message\
    \r\n  ~~ - send the ~ character to the remote target\
    \r\n  ~- - disable escape sequences for the rest of this session\
    \r\n  ~. - disconnect and terminate session\
    \r\n  ~# - show the state of the connection\
    \r\n(Note that escapes are only recognized immediately after newline.)\r\n";

/// Answer to `~-`, likewise.
pub(crate) const ESCAPES_DISABLED: &str = "\r\nEscape sequences disabled for this session.\r\n";

/// Mintty without winpty: what works there, and how the rest does. On stderr.
pub(crate) const PIPE_TERMINAL: &str = "this terminal (Git Bash, mintty) sends input line by line; port forwarding, SSH and \
    commands work; for a shell, prefix the command with winpty or use Windows Terminal";

/// The answer to `--version`.
pub(crate) fn version(reported: &str) -> String {
    format!("{reported}\n")
}

/// One or two words that are no request.
pub(crate) fn unknown_operation(word: &str) -> String {
    format!("\nUnknown operation {word}. \nUse session-manager-plugin --version to check the version.\n\n")
}

/// The first line of every session.
pub(crate) fn starting_session(id: &str) -> String {
    format!("\nStarting session with SessionId: {id}\n")
}

/// The session could not be started, or ended with an error.
pub(crate) fn cannot_start(reason: impl std::fmt::Display) -> String {
    format!("Cannot perform start session: {}\n", one_line(&reason.to_string()))
}

/// The agent's message to the customer, from the end of the handshake; nothing if there is none.
pub(crate) fn customer_message(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!("{message}\n") }
}

/// After the agent's message to the customer in an encrypted session, unless it is the usual one.
pub(crate) const UNPROTECTED: &str = "the message above is outside the session's encryption";

/// The channel was closed without output, or a port session ends at a signal.
pub(crate) fn exiting(id: &str) -> String {
    format!("\n\nExiting session with sessionId: {id}.\n\n")
}

/// The channel was closed: with `output` if the service gave a reason, like [`exiting`] if not.
pub(crate) fn channel_closed(id: &str, output: &str) -> String {
    if output.is_empty() { exiting(id) } else { format!("\n\nSessionId: {id} : {output}\n\n") }
}

/// The reason for which the channel was closed, in one line for stderr, where stdout carries the remote's bytes alone.
pub(crate) fn closed_because(output: &str) -> String {
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("the session has ended: {}", one_line(&words))
}

/// Of an SSH session that the other side has closed before its first byte and without a reason.
pub(crate) const NOTHING_CAME: &str =
    "the session has ended before the remote sent anything; is there a server at that port?";

/// Returns advice on the agent's reason for closing the channel, for stderr; `None` if the reason needs none.
pub(crate) fn advice(output: &str) -> Option<&'static str> {
    // Agent source, `validateParameters` of its port plugin. Since 3.3.4851.0 that includes loopback.
    let host = output.trim().strip_prefix("Forwarding to IP address ")?.strip_suffix(" is forbidden.")?;
    let is_loopback = match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_loopback.then_some(USE_THE_DOCUMENT_WITHOUT_HOST)
}

/// The session cannot be resumed any more.
pub(crate) fn timed_out(id: &str) -> String {
    format!("Session: {id} timed out.\n")
}

/// A local TCP listener is open.
pub(crate) fn port_opened(port: u16, id: &str) -> String {
    format!("Port {port} opened for sessionId {id}.\n")
}

/// A local UNIX socket is open.
#[cfg_attr(not(any(unix, test)), expect(dead_code, reason = "there is none to open"))]
pub(crate) fn unix_socket_opened(path: &str, id: &str) -> String {
    format!("Unix socket {} opened for sessionId {id}.\n", one_line(path))
}

/// The first connection of a multiplexed port session.
pub(crate) fn connection_accepted_mux(id: &str) -> String {
    format!("\nConnection accepted for session [{id}]\n")
}

/// The first connection of a basic port session.
pub(crate) fn connection_accepted_basic(id: &str) -> String {
    format!("Connection accepted for session {id}.\n")
}

/// Lines about the connection, on stderr, for people: each change of state once.
///
/// Silent unless stderr is a terminal or the setting says otherwise.
#[derive(Debug)]
pub(crate) struct StatusLines {
    enabled: bool,
    /// Stderr is a terminal, and the lines are for people.
    is_for_people: bool,
    last: String,
}

impl StatusLines {
    /// Follows the setting `SSM_PLUGIN_STATUS`.
    pub(crate) fn new(when: When) -> StatusLines {
        let enabled = match when {
            When::Auto => std::io::stderr().is_terminal(),
            When::Always | When::Json => true,
            When::Never => false,
        };
        let is_for_people = enabled && when != When::Json && std::io::stderr().is_terminal();
        StatusLines { enabled, is_for_people, last: String::new() }
    }

    /// Returns whether lines about something that takes long are wanted: on a terminal only.
    pub(crate) fn shows_progress(&self) -> bool {
        self.is_for_people
    }

    /// The line to write on stderr for `text`, or `None` if it is to stay silent: switched off, or the
    /// same as the line before. Ends the line as the terminal's mode needs it.
    #[must_use]
    pub(crate) fn line(&mut self, text: &str) -> Option<Bytes> {
        if !self.enabled || self.last == text {
            return None;
        }
        text.clone_into(&mut self.last);
        Some(render(text, term::is_raw()))
    }
}

/// A status line in the place of the last one, cut so that it stays on one row.
pub(crate) fn rewritten(text: &str, columns: usize) -> String {
    let line: String = format!("{STATUS_PREFIX}{}", one_line(text));
    let fitting: String = line.chars().take(columns.saturating_sub(1)).collect();
    format!("\r{fitting}\x1b[K")
}

/// Removes a line of [`rewritten`].
pub(crate) const ERASE: &str = "\r\x1b[K";

/// A local connection of a forwarded port was accepted, on stderr where the settings want it.
pub(crate) fn connection_opened(name: &str) -> String {
    format!("{name} opened")
}

/// A local connection of a forwarded port is over: how long it lived, bytes to the remote and back.
pub(crate) fn connection_closed(name: &str, lived: Duration, sent: u64, received: u64) -> String {
    let seconds = lived.as_secs_f64();
    format!("{name} closed after {seconds:.1} s, sent {sent} bytes, received {received} bytes")
}

/// Status: a proxy variable that is read by neither the AWS CLI nor the official plugin does not count.
pub(crate) fn proxy_ignored(name: &str) -> String {
    format!("{name} is ignored: it is not a proxy URL (http, https or socks5)")
}

/// Status: the connection is lost and is being opened again.
pub(crate) fn reconnecting(reason: impl std::fmt::Display) -> String {
    format!("connection lost ({reason}), reconnecting")
}

/// Status: a local reader holds up a forwarding session.
pub(crate) const READER_STALLS: &str = "a client is not reading; its session is paused until it does";

/// Status: a further session behind a port is not there.
pub(crate) fn fewer_sessions(reason: impl std::fmt::Display) -> String {
    format!("continuing with fewer sessions: {reason}")
}

/// Status: a session behind a port that outlives it has ended.
pub(crate) fn session_ended(destination: Option<&str>, reason: impl std::fmt::Display) -> String {
    format!("the session{} ended ({reason}); a new one will start with the next connection", to(destination))
}

/// Status: a session has started since a connection needs it.
pub(crate) fn session_started(destination: Option<&str>) -> String {
    format!("a session{} has started", to(destination))
}

/// Status: what a further local port is for.
pub(crate) fn forward_opened(port: u16, destination: &str) -> String {
    format!("port {port} forwards to {destination}")
}

/// Status: the SOCKS proxy's address.
pub(crate) fn socks_opened(port: u16) -> String {
    format!("SOCKS5 proxy on 127.0.0.1:{port}")
}

/// Status: the SOCKS proxy's socket file.
pub(crate) fn socks_file_opened(path: &str) -> String {
    format!("SOCKS5 proxy on unix:{path}")
}

/// A client of another local user was refused.
pub(crate) fn stranger_refused(uid: u32) -> String {
    format!("refused a client of another user (uid {uid}); SSM_PLUGIN_ANY_USER=1 accepts all local users")
}

/// Another process listens on an address that clients of `localhost` may try first.
pub(crate) fn address_taken(address: std::net::SocketAddr) -> String {
    format!("another process listens on {address}; clients that connect to that address reach that process")
}

/// Status: the agent could not reach a destination that is not argv's.
pub(crate) fn destination_refused(destination: &str) -> String {
    format!("the connection to {destination} failed; see the SSM Agent log on the instance")
}

/// Status: a session that a connection waits for could not be started.
pub(crate) fn not_started(destination: Option<&str>, reason: impl std::fmt::Display) -> String {
    format!("could not start a session{} for a local connection: {reason}", to(destination))
}

/// Status: a SOCKS client asks for something that the proxy does not do.
pub(crate) fn socks_refused(reason: impl std::fmt::Display) -> String {
    format!("SOCKS request refused: {reason}")
}

/// Status: a SOCKS client asks for one destination more than there may be.
pub(crate) const TOO_MANY_DESTINATIONS: &str = "SOCKS request refused: too many destinations in use";

/// Status: the run has started as many sessions as it may, for the time being.
pub(crate) const STARTS_WAIT: &str =
    "many session starts: the next ones wait, two per second, to spare the account's StartSession quota";

/// The state of a destination without a session.
pub(crate) fn no_session(connections: usize) -> String {
    match connections {
        0 => "no session; the next connection starts one".to_owned(),
        count => format!("no session yet; connections waiting: {count}"),
    }
}

/// Status: a connection was closed since there was no session for it.
pub(crate) const WAITED_IN_VAIN: &str = "closed a client connection: no session became ready in time";

/// Status: the session goes on over a new connection.
pub(crate) const RESUMED: &str = "connection resumed";

/// Status: the service says that the agent is not connected.
pub(crate) const AGENT_AWAY: &str =
    "the service has paused the session (usually the agent is not connected); waiting";

/// Status: the pause is over.
pub(crate) const AGENT_BACK: &str = "the agent is connected";

/// Status: no new connection could be made.
pub(crate) fn gave_up(reason: impl std::fmt::Display) -> String {
    format!("gave up reconnecting: {reason}")
}

/// Status: keys do not reach the remote as they are typed, at the start or after `fg`.
pub(crate) fn stays_in_line_mode(reason: impl std::fmt::Display) -> String {
    format!("cannot switch the terminal to raw mode: {reason}")
}

fn to(destination: Option<&str>) -> String {
    destination.map(|destination| format!(" to {destination}")).unwrap_or_default()
}

/// The commands, for a person who has mistyped one.
pub(crate) const COMMANDS: &str = "the commands are ssh, ssh-config, forward, shell, run, start-session, completions, \
    doctor and help; --help lists the settings";

/// Status: settings of forwarded ports on a session of another kind.
pub(crate) fn without_effect(names: &[&str]) -> String {
    format!("no effect on this session, which forwards no port: {}", names.join(", "))
}

/// The AWS CLI gets the exit status 0 in the place of `status`.
pub(crate) fn status_withheld(status: u8) -> String {
    format!(
        "SSM_PLUGIN_EXIT_CODE: exit status {status} is replaced by 0, because the AWS CLI prints the session's token when \
         the plugin fails; to get the status, use session-manager-plugin run, or start this program without the AWS CLI"
    )
}

/// A failure, as a line for stderr.
pub(crate) fn failure(text: &str) -> Bytes {
    render(text, term::is_raw())
}

/// Status: the process that has the port which was asked for.
pub(crate) fn port_taken(port: u16, owner: &str) -> String {
    format!("port {port} is in use by {owner}")
}

/// Status: the service has ended the session of a tunnel, and with it the tunnel.
pub(crate) const RESTART_HINT: &str = "the service ended the session; SSM_PLUGIN_RESTART=1 keeps the port open and starts a new one with the next connection";

/// The command that investigates a failure, as a line for a person at a terminal. An empty region is left out.
pub(crate) fn investigate(profile: Option<&str>, region: &str, target: Option<&str>) -> String {
    let mut line = "run: session-manager-plugin doctor".to_owned();
    for (name, value) in [("--profile", profile), ("--region", Some(region)), ("--target", target)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line += &format!(" {name} {}", quoted(value));
        }
    }
    line
}

/// A word for a POSIX shell, in single quotes unless it needs none.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Lines for stderr that were dropped while its reader took nothing.
pub(crate) fn lines_dropped(count: u64) -> String {
    format!("{count} lines for stderr were dropped because it was not read")
}

/// The state of a session in one line, for SIGUSR1 and the escape `~#`.
pub(crate) fn report(id: &str, is_open: bool, stats: &Stats, connections: Option<usize>) -> String {
    let state = if is_open { "connected" } else { "reconnecting" };
    let rtt = stats.rtt.as_secs_f64() * 1e3;
    let mut line = format!(
        "session {id}: {state}, round trip {rtt:.1} ms, sent {} bytes in {} messages ({} retransmitted), \
         received {} bytes in {} messages, {} bytes unacknowledged",
        stats.bytes_sent,
        stats.messages_sent,
        stats.messages_resent,
        stats.bytes_received,
        stats.messages_received,
        stats.outstanding_bytes,
    );
    match connections {
        Some(1) => line += ", 1 connection",
        Some(count) => line += &format!(", {count} connections"),
        None => {}
    }
    line
}

/// The only way from a text to stderr, except for the fixed answers to escapes: reasons, names and messages in it may
/// come from anybody.
fn render(text: &str, raw: bool) -> Bytes {
    let (start, end) = if raw { ("\r\n", "\r\n") } else { ("", "\n") };
    Bytes::from(format!("{start}{STATUS_PREFIX}{}{end}", one_line(text)))
}

const USE_THE_DOCUMENT_WITHOUT_HOST: &str = "newer agents reject the instance itself as a remote host; to reach one of its \
    own ports, use AWS-StartPortForwardingSession without a host";
const STATUS_PREFIX: &str = "session-manager-plugin: ";

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of the official plugin in the recorded session `name`.
    fn recorded(name: &str) -> String {
        let path = format!("{}/compat-tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let vector: serde_json::Value = serde_json::from_str(&text).expect(&path);
        vector["plugin_stdout"].as_str().expect("plugin_stdout").to_owned()
    }

    #[test]
    fn shells_and_commands_as_recorded() {
        for (name, output) in [
            ("shell", "$ echo hi\r\nhi\r\n$ exit\r\n"),
            ("noninteractive-separate-false", NO_SUCH_FILE),
            ("noninteractive-separate-true", &format!("{NO_SUCH_FILE}EXIT_CODE: 2")),
        ] {
            let recorded = recorded(name);
            let id = id(&recorded);
            let ours = starting_session(id) + output + &channel_closed(id, "");
            assert_eq!(ours, recorded, "{name}");
        }
        let recorded = recorded("stdio");
        assert_eq!(starting_session(id(&recorded)) + "SSH-2.0-test\r\n", recorded);
    }

    #[test]
    fn ports_as_recorded() {
        for (name, port, refused) in [("port-mux", 39_913, ""), ("port-refused", 42_281, DESTINATION_FAILED)]
        {
            let recorded = recorded(name);
            let id = id(&recorded);
            let ours = starting_session(id)
                + &port_opened(port, id)
                + WAITING_FOR_CONNECTIONS
                + &connection_accepted_mux(id)
                + refused
                + TERMINATE_SIGNAL
                + &exiting(id);
            assert_eq!(ours, recorded, "{name}");
        }
    }

    #[test]
    fn the_command_that_investigates_is_complete_and_quoted() {
        assert_eq!(
            investigate(Some("my work"), "eu-west-1", Some("i-1")),
            "run: session-manager-plugin doctor --profile 'my work' --region eu-west-1 --target i-1"
        );
        let hostile = investigate(None, "", Some("$(x)'"));
        assert!(hostile.contains(r"--target '$(x)'\''"), "{hostile}");
    }

    /// The official plugin's format strings, for what was not recorded.
    #[test]
    fn the_others_as_in_the_official_source() {
        assert_eq!(
            unknown_operation("x"),
            "\nUnknown operation x. \nUse session-manager-plugin --version to check the version.\n\n"
        );
        assert_eq!(version("1.2.896.0"), "1.2.896.0\n");
        assert_eq!(cannot_start("no"), "Cannot perform start session: no\n");
        assert_eq!(channel_closed("s", "out"), "\n\nSessionId: s : out\n\n");
        assert_eq!(timed_out("s"), "Session: s timed out.\n");
        assert_eq!(connection_accepted_basic("s"), "Connection accepted for session s.\n");
        assert_eq!(unix_socket_opened("/a b", "s"), "Unix socket /a b opened for sessionId s.\n");
        assert_eq!(customer_message("hello"), "hello\n");
        assert_eq!(customer_message(""), "");
    }

    #[test]
    fn a_reason_is_one_line_without_control_characters() {
        let output = "----ERROR----\nUnable to \x1b[31mconnect:\r\n dial\ttcp\n";
        assert_eq!(
            closed_because(output),
            "the session has ended: ----ERROR---- Unable to \\x1b[31mconnect: dial tcp"
        );
    }

    #[test]
    fn advice_for_loopback_behind_the_remote_host_document_only() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            let advice = advice(&format!("Forwarding to IP address {host} is forbidden.")).expect(host);
            assert!(advice.contains("AWS-StartPortForwardingSession without a host"), "{advice}");
        }
        for output in [
            "",
            "localhost",
            "Forwarding to IP address 169.254.169.254 is forbidden.",
            "Forwarding to IP address db.internal is forbidden.",
        ] {
            assert_eq!(advice(output), None, "{output}");
        }
    }

    #[test]
    fn each_status_once_and_only_if_wanted() {
        let mut status = StatusLines::new(When::Always);
        assert_eq!(status.line(RESUMED).unwrap(), "session-manager-plugin: connection resumed\n");
        assert_eq!(status.line(RESUMED), None);
        assert!(status.line(&gave_up("late")).is_some());
        assert!(status.line(RESUMED).is_some());
        assert_eq!(StatusLines::new(When::Never).line(RESUMED), None);
        assert_eq!(rewritten("last contact", 40), "\rsession-manager-plugin: last contact\x1b[K");
        assert_eq!(rewritten("last\ncontact", 30), "\rsession-manager-plugin: last\\\x1b[K");
        assert_eq!(render("x", true), "\r\nsession-manager-plugin: x\r\n");
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        const FORGED: &str = "late\x1b]0;t\x07\r\nsession-manager-plugin: connection resumed";
        const SHOWN: &str = r"late\x1b]0;t\x07\x0d\x0asession-manager-plugin: connection resumed";
        let line = StatusLines::new(When::Always).line(&reconnecting(FORGED)).unwrap();
        assert_eq!(line, format!("session-manager-plugin: connection lost ({SHOWN}), reconnecting\n"));
        assert_eq!(failure(FORGED), format!("session-manager-plugin: {SHOWN}\n"));
        assert_eq!(cannot_start(FORGED), format!("Cannot perform start session: {SHOWN}\n"));
        assert_eq!(unix_socket_opened(FORGED, "s"), format!("Unix socket {SHOWN} opened for sessionId s.\n"));
        assert!(failure(&"x".repeat(100_000)).len() < 600);
    }

    #[test]
    fn the_escape_help_fits_a_raw_terminal() {
        for text in [ESCAPE_HELP, ESCAPES_DISABLED] {
            let bare = text.replace("\r\n", "");
            assert!(!bare.contains(['\r', '\n']), "{text:?}");
        }
        for sequence in ["~.", "~?", "~#", "~-", "~~"] {
            assert!(ESCAPE_HELP.contains(&format!("\r\n  {sequence} - ")), "{sequence}");
        }
    }

    fn id(recorded: &str) -> &str {
        let after = recorded.strip_prefix("\nStarting session with SessionId: ").expect("first line");
        after.lines().next().expect("id")
    }

    const NO_SUCH_FILE: &str = "ls: cannot access '/nonexistent-x': No such file or directory\n";
}
