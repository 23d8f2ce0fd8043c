//! `--help` and the manual page: settings come from the table; events, escapes and doctor's options are listed here.

use super::table::TABLE;
use crate::version::COMPATIBLE_VERSION;

/// The text of `--help`, made from [`TABLE`].
pub(crate) fn help() -> String {
    let mut text = format!(
        "session-manager-plugin {VERSION} (compatible with {COMPATIBLE_VERSION})\n\
         Called by the AWS CLI:\n  \
         session-manager-plugin <response> <region> StartSession [<profile> [<request> [<endpoint>]]]\n\
         By hand:\n  \
         session-manager-plugin --version | --help\n  \
         session-manager-plugin doctor {DOCTOR}\n  \
         session-manager-plugin help: {COMMANDS}\n\n\
         Settings, from the environment or {EXAMPLE_FILE}:\n",
    );
    let width = TABLE.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in TABLE {
        text += &format!("  {:width$}  {} [{}]\n", row.name, row.text(), row.default_text());
    }
    text += "AWS_CA_BUNDLE, or the profile's ca_bundle, replaces the certificates that are trusted, as in the AWS CLI.\n";
    text
}

/// The manual page in roff (man(7)), made from [`TABLE`] and with the sections about `commands`. It has no date: the same source gives the same page.
pub(crate) fn manual(commands: &str) -> String {
    let mut text = format!(
        ".\\\" Made by session-manager-plugin --man. Changes belong into src/settings.\n\
         .TH SESSION\\-MANAGER\\-PLUGIN 1 \"\" \"session\\-manager\\-plugin {VERSION}\" \"User Commands\"\n\
         .SH NAME\n\
         session\\-manager\\-plugin \\- shells, port forwarding and SSH over AWS Systems Manager\n\
         .SH SYNOPSIS\n\
         .B session\\-manager\\-plugin\n\
         .I response region\n\
         .B StartSession\n\
         .RI [ profile \" [\" request \" [\" endpoint ]]]\n\
         .br\n\
         .B session\\-manager\\-plugin doctor\n\
         {doctor}\n\
         .br\n\
         .B session\\-manager\\-plugin \\-\\-version\n\
         |\n\
         .B \\-\\-help\n\
         .SH DESCRIPTION\n\
         The AWS CLI starts this program for\n\
         .BR \"aws ssm start\\-session\" \" and \" \"aws ecs execute\\-command\" ,\n\
         as it would start the official plugin, with which it is compatible ({COMPATIBLE_VERSION}).\n\
         Run it directly for these commands, or to ask\n\
         .B doctor\n\
         what is wrong: it checks the installation, the AWS CLI, region and credentials, the clock, name resolution,\n\
         proxies, trust, a websocket to the region's endpoint, the terminal and the logs, and says what to do.\n",
        doctor = roff(DOCTOR),
    );
    text += commands;
    text += ".SH DOCTOR OPTIONS\n";
    for (option, meaning) in DOCTOR_OPTIONS {
        text += &format!(".TP\n.B {}\n{}\n", roff(option), roff(meaning));
    }
    text += ".SH ESCAPES\nIn an interactive shell, at the start of a line:\n";
    for (escape, meaning) in ESCAPES {
        text += &format!(".TP\n.B {}\n{}\n", roff(escape), roff(meaning));
    }
    text += ".SH EVENTS\n\
        With SSM_PLUGIN_STATUS=json each line on stderr is a JSON object with\n\
        .B time\n\
        (UTC, as in RFC 3339) and\n\
        .BR event ,\n\
        which is one of these, with these fields. Fields in brackets may be absent: an event without a\n\
        destination is about the one on the command line. When several sessions share a port, lost, resumed, paused\n\
        and unpaused are reported for the oldest only. New events and fields may be added; existing ones are stable.\n";
    for (event, fields) in EVENTS {
        text += &format!(".TP\n.B {}\n{}\n", roff(event), roff(fields));
    }
    text += ".SH ENVIRONMENT\n\
        An invalid value causes one warning, and the default applies. The default is in brackets.\n\
        Sizes may have the unit K, M or G (by 1024), times s, m, h or d; a number without unit is in bytes or seconds.\n\
        Switches take 1, true, yes or on, and 0, false, no or off.\n\
        smp#, agent# and cli# are issues of aws/session-manager-plugin, aws/amazon-ssm-agent and aws/aws-cli.\n";
    for row in TABLE {
        text += &format!(
            ".TP\n.B {}\n{} [{}]. Why: {}.\n",
            roff(row.name),
            roff(&sentence(&row.text())),
            roff(&row.default_text()),
            roff(row.reason)
        );
    }
    text += &format!(
        ".PP\n\
         .BR HTTPS_PROXY \", \" HTTP_PROXY \", \" ALL_PROXY \", \" NO_PROXY \", \" AWS_CA_BUNDLE \", \" SSL_CERT_FILE ,\n\
         and the AWS SDKs' variables for credentials, region and endpoints are honoured.\n\
         AWS_CA_BUNDLE, or the profile's ca_bundle, replaces the certificates that are trusted, as in the AWS CLI.\n\
         .SH FILES\n\
         .TP\n\
         .I {}\n\
         The same settings in TOML, under their full names, or without SSM_PLUGIN_, in upper or lower case, such as\n\
         .BR \"restart = true\" .\n\
         A list may be an array.\n\
         .IP\n\
         A section\n\
         .B [[match]]\n\
         holds settings for some sessions only. Its conditions are patterns (* for any text, ? for one character), or\n\
         arrays of patterns, that are compared with the session\\(aqs arguments: profile, target, region, document, host and\n\
         port (of the destination), and caller (aws for the AWS CLI, otherwise the name of the program that started the\n\
         plugin). All conditions must match; a value that is absent matches no pattern. As in ssh_config, the first\n\
         section that matches wins for each setting. The environment wins over all sections, and the sections win over\n\
         the settings at the top of the file.\n\
         .IP\n\
         .nf\n\
         [[match]]\n\
         profile = \"prod\\-*\"\n\
         host = \"db.internal\"\n\
         restart = true\n\
         forward = [\"16379:cache.internal:6379\"]\n\
         .fi\n\
         .IP\n\
         The file is ignored if another user owns it or can write to it or to a directory\n\
         on the way to it.\n\
         (macOS: ~/Library/Application Support; Windows: %LOCALAPPDATA%.)\n\
         A file's name may begin with \\(ti/, the home directory; \\(tiuser/ is not expanded.\n\
         .TP\n\
         .I ~/.local/state/session\\-manager\\-plugin/\n\
         Diagnostics, one file a day, when SSM_PLUGIN_LOG asks for them.\n\
         .SH EXIT STATUS\n\
         0 under the AWS CLI, always: it would otherwise print the arguments, a token among them. To other callers, with\n\
         SSM_PLUGIN_EXIT_CODE=1, the remote command's status, and 255 when the plugin itself has failed; without it, 0.\n\
         .PP\n\
         The agent sends a command's status only in sessions whose document has separate output streams:\n\
         AWS\\-StartNonInteractiveCommand with separateOutputStream=True, and documents of your own of the type\n\
         NonInteractiveCommands with that property. A command that could not be started is 1 with and without it.\n\
         Shells (SSM\\-SessionManagerRunShell, Standard_Stream), AWS\\-StartInteractiveCommand, port forwarding, SSH and\n\
         aws ecs execute\\-command never return a status.\n\
         .B session\\-manager\\-plugin run\n\
         uses such a document and returns the command's status without the AWS CLI.\n\
         .PP\n\
         .B doctor\n\
         exits with 1 if a check has failed, and with 2 if its arguments are not understood.\n\
         .SH SEE ALSO\n\
         .BR ssh (1)\n",
        roff(EXAMPLE_FILE),
    );
    text
}

/// Names and fields of the events in `output::status`.
const EVENTS: &[(&str, &str)] = &[
    ("opening", "The session is being opened. session"),
    (
        "ready",
        "The session or an additional listener is ready. kind (shell, command, ssh, port, forward, socks), [session], [port], \
         [socket], [destination]",
    ),
    (
        "lost",
        "The connection to the service is lost and is being opened again. reason, [session], [destination]",
    ),
    ("resumed", "The connection is back. [session], [destination]"),
    (
        "paused",
        "The service has paused the session, usually because the agent is not connected. [session], [destination]",
    ),
    ("unpaused", "The agent is connected again. [session], [destination]"),
    ("session_started", "An additional session behind a port has started. session, [destination]"),
    ("session_ended", "A session ended; its port stays open. session, reason, [destination]"),
    ("connection_opened", "A local connection was accepted. connection (a number), from, [destination]"),
    (
        "connection_closed",
        "The connection closed. connection, seconds, sent, received (bytes to the remote and back)",
    ),
    ("destination_refused", "The agent could not reach a destination. [destination]"),
    (
        "reader_stalled",
        "A slow local client has blocked its session for several seconds. [session], [destination]",
    ),
    ("message", "Any other message for people. text, [session], [destination]"),
    ("failure", "An error. text"),
    (
        "end",
        "The end of the program. cause (closed, finished, reader_gone, interrupted, terminated, timed_out, not_started, \
         failed), reason (may be empty)",
    ),
];

/// Begins with a capital, unless a value comes first.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// Text that means the same in roff.
pub(crate) fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti").replace('^', "\\(ha");
    // Not every troff reads UTF-8.
    let text = text.replace('…', "...");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const EXAMPLE_FILE: &str = "~/.config/session-manager-plugin/config.toml";
const DOCTOR: &str = "[--json] [--region <region>] [--profile <profile>] [--target <target>] [--url <url>]";
/// Sessions without the AWS CLI.
const COMMANDS: &str = "ssh, ssh-config, forward, shell, run, start-session, completions";
const DOCTOR_OPTIONS: [(&str, &str); 5] = [
    ("--json", "Answer as one JSON object."),
    ("--region", "Look at this region instead of the environment's or the profile's."),
    ("--profile", "Look at this profile."),
    ("--target", "Look up this instance: its connection, platform and agent."),
    ("--url", "Open a websocket to this URL instead of the region's endpoint."),
];
const ESCAPES: [(&str, &str); 5] = [
    ("~.", "Terminate the session."),
    ("~#", "Show the state of the connection."),
    ("~-", "Disable the escapes."),
    ("~?", "List them."),
    ("~~", "Send a tilde."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_one_screen() {
        let help = help();
        assert!(help.lines().count() <= 40, "{}", help.lines().count());
        for line in help.lines() {
            assert!(line.len() <= 120, "{} is {} long", line, line.len());
        }
        assert!(TABLE.iter().all(|row| help.contains(row.name)));
        assert!(help.contains(VERSION) && help.contains(COMPATIBLE_VERSION));
    }

    #[test]
    fn the_committed_manual_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/session-manager-plugin.1");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == manual(&crate::commands::manual()),
            "cargo run -- --man >scripts/session-manager-plugin.1"
        );
    }

    #[test]
    fn no_text_is_taken_for_a_request() {
        assert_eq!(roff(".x-y ~ \\"), "\\&.x\\-y \\(ti \\e");
        assert_eq!(sentence("1: exit"), "1: exit");
        assert_eq!(sentence("data"), "Data");
        let known =
            [".TH", ".SH", ".IP", ".nf", ".fi", ".B", ".I", ".RI", ".BR", ".br", ".TP", ".PP", ".\\\""];
        assert!(manual(&crate::commands::manual()).is_ascii());
        for line in manual(&crate::commands::manual()).lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap_or_default();
            assert!(known.contains(&request), "{line}");
        }
    }
}
