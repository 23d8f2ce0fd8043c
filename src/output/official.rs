//! Output that callers parse: the official plugin's, to the last newline.
//!
//! Ansible waits for `Starting session with SessionId:`, tunnels for `Port N opened`. All of it goes to stdout, but the
//! answers to escapes ([`ESCAPE_HELP`], [`ESCAPES_DISABLED`]), which go to stderr.

use crate::printable::one_line;

/// The output without any argument. Installers search for it; the CLI runs this before `ecs execute-command`.
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

/// The output of `--version`.
pub(crate) fn version(reported: &str) -> String {
    format!("{reported}\n")
}

/// One or two arguments that are not a request.
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

/// The channel was closed without output, or a port session ends at a signal.
pub(crate) fn exiting(id: &str) -> String {
    format!("\n\nExiting session with sessionId: {id}.\n\n")
}

/// The channel was closed: with `output` if the service gave a reason, like [`exiting`] if not.
pub(crate) fn channel_closed(id: &str, output: &str) -> String {
    if output.is_empty() { exiting(id) } else { format!("\n\nSessionId: {id} : {output}\n\n") }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn text_from_outside_stays_on_its_line() {
        const FORGED: &str = "late\x1b]0;t\x07\r\nsession-manager-plugin: connection resumed";
        const SHOWN: &str = r"late\x1b]0;t\x07\x0d\x0asession-manager-plugin: connection resumed";
        assert_eq!(cannot_start(FORGED), format!("Cannot perform start session: {SHOWN}\n"));
        assert_eq!(unix_socket_opened(FORGED, "s"), format!("Unix socket {SHOWN} opened for sessionId s.\n"));
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

    /// Output of the official plugin in the recorded session `name`.
    fn recorded(name: &str) -> String {
        let path = format!("{}/compat-tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let vector: serde_json::Value = serde_json::from_str(&text).expect(&path);
        vector["plugin_stdout"].as_str().expect("plugin_stdout").to_owned()
    }

    fn id(recorded: &str) -> &str {
        let after = recorded.strip_prefix("\nStarting session with SessionId: ").expect("first line");
        after.lines().next().expect("id")
    }

    const NO_SUCH_FILE: &str = "ls: cannot access '/nonexistent-x': No such file or directory\n";
}
