//! Sentences for people: status, failures and advice, without the program's name and the end of the line.
//!
//! Errors have their texts at their types, and `doctor` has its own.

use std::net::IpAddr;
use std::time::Duration;

use crate::printable::one_line;
use crate::process::Stranger;
use crate::protocol::Stats;

/// Mintty without winpty: the kinds of session that work there, and a way to make the others work. On stderr.
pub(crate) const PIPE_TERMINAL: &str = "this terminal (Git Bash, mintty) sends input line by line; port forwarding, SSH and \
    commands work; for a shell, prefix the command with winpty or use Windows Terminal";

/// Printed after the agent's message to the customer in an encrypted session, unless it is the usual one.
pub(crate) const UNPROTECTED: &str =
    "the message above arrived unencrypted, so it may not come from the instance";

/// The reason for which the channel was closed, in one line for stderr, where stdout carries the remote's bytes alone.
pub(crate) fn closed_because(output: &str) -> String {
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("the session ended: {}", one_line(&words))
}

/// An SSH session that the other side closed before its first byte and without a reason.
pub(crate) const NOTHING_CAME: &str =
    "the session ended before the remote sent anything; check that an SSH server listens on that port";

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
    format!("{name} is ignored: it is not an http, https or socks5 URL")
}

/// Progress: a websocket is being opened; with the time from the second line on.
pub(crate) fn connecting(host: &str, waited: Duration) -> String {
    let first = format!("connecting to {host} …");
    if waited < AGAIN { first } else { format!("{first} ({} s)", waited.as_secs()) }
}

/// Status: the connection is lost and is being opened again.
pub(crate) fn reconnecting(reason: impl std::fmt::Display) -> String {
    format!("connection lost ({reason}), reconnecting")
}

/// Status: a slow local client blocks its session.
pub(crate) const READER_STALLS: &str =
    "a local client is not reading; its session waits until the client reads again";

/// Status: additional sessions behind a port could not be started, or have ended.
pub(crate) fn fewer_sessions(ready: usize, requested: usize, reason: impl std::fmt::Display) -> String {
    format!("continuing with {ready} of {requested} sessions: {reason}")
}

/// Status: a session behind a port that outlives it has ended.
pub(crate) fn session_ended(destination: Option<&str>, reason: impl std::fmt::Display) -> String {
    format!("the session{} ended ({reason}); the next connection starts a new one", to(destination))
}

/// Status: a session has started because a connection needs it.
pub(crate) fn session_started(destination: Option<&str>) -> String {
    format!("a session{} has started", to(destination))
}

/// Status: the sessions behind a port are complete.
pub(crate) fn sessions_ready(sessions: usize) -> String {
    format!("{sessions} sessions share the port")
}

/// Status: an additional local port and its destination.
pub(crate) fn forward_opened(port: u16, destination: &str) -> String {
    format!("port {port} forwards to {destination}")
}

/// Status: the proxy's address.
pub(crate) fn socks_opened(port: u16) -> String {
    format!("SOCKS and HTTP proxy on 127.0.0.1:{port}")
}

/// Status: the proxy's socket file.
pub(crate) fn socks_file_opened(path: &str) -> String {
    format!("SOCKS and HTTP proxy on unix:{path}")
}

/// A client of another local user was refused.
pub(crate) fn stranger_refused(stranger: Stranger) -> String {
    format!("refused a client of another user ({stranger}); SSM_PLUGIN_ANY_USER=1 accepts all local users")
}

/// Another process listens on an address that clients of `localhost` may try first.
pub(crate) fn address_taken(address: std::net::SocketAddr) -> String {
    format!("another process listens on {address}; clients that connect to it do not reach the tunnel")
}

/// Status: the agent could not reach a destination that is not argv's.
pub(crate) fn destination_refused(destination: &str) -> String {
    format!("the connection to {destination} failed; see the SSM Agent log on the instance")
}

/// Status: a session that a connection waits for could not be started.
pub(crate) fn not_started(destination: Option<&str>, reason: impl std::fmt::Display) -> String {
    format!("cannot start a session{}: {reason}", to(destination))
}

/// Appended to the reason for which a session was not started.
pub(crate) const RETRYING: &str = "trying again while a client waits";

/// Status: a client requested something that the proxy does not support.
pub(crate) fn socks_refused(reason: impl std::fmt::Display) -> String {
    format!("refused a proxy request: {reason}")
}

/// Status: a proxy client requested a destination beyond the limit.
pub(crate) const TOO_MANY_DESTINATIONS: &str = "refused a proxy request: too many destinations in use";

/// Status: session starts wait because the run has reached its limit for now.
pub(crate) const STARTS_WAIT: &str = "too many session starts: limiting new sessions to two per second, to protect the account's StartSession quota";

/// The state of a destination without a session.
pub(crate) fn no_session(connections: usize) -> String {
    match connections {
        0 => "no session; the next connection starts one".to_owned(),
        count => format!("no session yet; connections waiting: {count}"),
    }
}

/// Status: a connection was closed because no session became ready for it.
pub(crate) const NO_SESSION_IN_TIME: &str = "closed a client connection: no session became ready in time";

/// Status: the session continues over a new connection.
pub(crate) const RESUMED: &str = "connection resumed";

/// Status: the service reports that the agent is not connected.
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

/// The commands, for a person who has mistyped one.
pub(crate) const COMMANDS: &str = "the commands are ssh, ssh-config, forward, shell, run, start-session, completions, \
    doctor and help; --help lists the settings";

/// Status: settings of forwarded ports on a session of another kind.
pub(crate) fn without_effect(names: &[&str]) -> String {
    format!("ignored in a session without port forwarding: {}", names.join(", "))
}

/// The AWS CLI gets the exit status 0 in the place of `status`.
pub(crate) fn status_withheld(status: u8) -> String {
    format!(
        "SSM_PLUGIN_EXIT_CODE: returning 0 instead of {status}, because the AWS CLI prints the session's token when the \
         plugin fails; for the real status, use session-manager-plugin run, or start this program without the AWS CLI"
    )
}

/// Status: the process that holds the requested port.
pub(crate) fn port_taken(port: u16, owner: &str) -> String {
    format!("port {port} is in use by {owner}")
}

/// Status: the service has ended the session of a tunnel, and with it the tunnel.
pub(crate) const RESTART_HINT: &str = "the service ended the session; with SSM_PLUGIN_RESTART=1 the port stays open, and the next connection starts a new session";

/// The command that investigates a failure, as a line for a person at a terminal. An empty region is left out.
pub(crate) fn investigate(profile: Option<&str>, region: &str, target: Option<&str>) -> String {
    let mut line = "to find the cause, run: session-manager-plugin doctor".to_owned();
    for (name, value) in [("--profile", profile), ("--region", Some(region)), ("--target", target)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line += &format!(" {name} {}", quoted(value));
        }
    }
    line
}

/// Failure: lines for stderr were dropped because its reader was not reading.
pub(crate) fn lines_dropped(count: u64) -> String {
    let verb = if count == 1 { "line for stderr was" } else { "lines for stderr were" };
    format!("{count} {verb} dropped because stderr was not read")
}

/// Failure: there is no data key.
pub(crate) fn cannot_encrypt(reason: impl std::fmt::Display) -> String {
    format!("cannot encrypt the session: {reason}")
}

/// Status: nothing that was sent is acknowledged.
pub(crate) fn no_progress(silence: Duration) -> String {
    format!("no data acknowledged by the remote for {} s", silence.as_secs())
}

/// Failure: settings that agents without multiplexing cannot have.
pub(crate) const AGENT_TOO_OLD: &str =
    "SSM_PLUGIN_RESTART, _FORWARD and _SOCKS require SSM Agent newer than 3.0.196.0";

/// Failure: settings (with their verb) that need the request which started the session.
pub(crate) fn needs_request(settings: &str) -> String {
    format!("{settings} no effect: the caller did not pass the StartSession request")
}

/// Failure: an additional port cannot be opened.
pub(crate) fn cannot_forward(destination: impl std::fmt::Display, error: impl std::fmt::Display) -> String {
    format!("cannot open a local port for {destination}: {error}")
}

/// Failure: the SOCKS proxy cannot be opened.
pub(crate) fn cannot_open_socks(place: impl std::fmt::Display, error: impl std::fmt::Display) -> String {
    format!("cannot open the SOCKS and HTTP proxy on {place}: {error}")
}

/// A panic of the program, with its place in the source.
pub(crate) fn internal_error(place: &str) -> String {
    format!("internal error at {place}; please report it")
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

fn to(destination: Option<&str>) -> String {
    destination.map(|destination| format!(" to {destination}")).unwrap_or_default()
}

/// A word for a POSIX shell, in single quotes unless it needs none.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

const USE_THE_DOCUMENT_WITHOUT_HOST: &str = "newer agents do not accept the instance itself as the remote host; to reach \
    one of its ports, use AWS-StartPortForwardingSession without a host";

/// A wait that has been reported before has lasted longer.
const AGAIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_investigates_is_complete_and_quoted() {
        assert_eq!(
            investigate(Some("my work"), "eu-west-1", Some("i-1")),
            "to find the cause, run: session-manager-plugin doctor --profile 'my work' --region eu-west-1 --target i-1"
        );
        let hostile = investigate(None, "", Some("$(x)'"));
        assert!(hostile.contains(r"--target '$(x)'\''"), "{hostile}");
    }

    #[test]
    fn a_reason_is_one_line_without_control_characters() {
        let output = "----ERROR----\nUnable to \x1b[31mconnect:\r\n dial\ttcp\n";
        assert_eq!(
            closed_because(output),
            "the session ended: ----ERROR---- Unable to \\x1b[31mconnect: dial tcp"
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
}
