//! The manual page (`--man`): commands, settings, events and escapes come from their tables.

mod page;

use self::page::Page;
use crate::doctor::OPTIONS;
use crate::output::{events, official};
use crate::settings::TABLE;
use crate::version::COMPATIBLE_VERSION;
use crate::{commands, settings};

/// Returns the manual page as source for troff.
pub(crate) fn manual() -> String {
    let mut page = Page::new(
        "Made by session-manager-plugin --man. Change src/manual or the tables it reads.",
        PROGRAM,
        &format!("{PROGRAM} {VERSION}"),
    );
    introduction(&mut page);
    commands(&mut page);
    page.section("ESCAPES").text("In an interactive shell, at the start of a line:");
    for (escape, meaning) in escapes() {
        page.item(escape, &sentence(if escape == "~?" { "list the escapes" } else { meaning }));
    }
    page.section("EVENTS").text(EVENTS);
    for (name, meaning, fields) in events() {
        page.item(&name, &format!("{meaning} {}", sentence(&format!("fields: {fields}"))));
    }
    environment(&mut page);
    files(&mut page);
    exit_status(&mut page);
    page.section("SEE ALSO").text("`ssh`(1)");
    page.render()
}

fn introduction(page: &mut Page) {
    let doctor: String = OPTIONS
        .iter()
        .map(|(option, value, _)| match *value {
            "" => format!(" [{option}]"),
            value => format!(" [{option} <{value}>]"),
        })
        .collect();
    page.section("NAME")
        .text("session-manager-plugin - shells, port forwarding and SSH over AWS Systems Manager")
        .section("SYNOPSIS")
        .text("`session-manager-plugin` response region `StartSession` [profile [request [endpoint]]]")
        .line("`session-manager-plugin` COMMAND [ARGUMENT]...")
        .line(&format!("`session-manager-plugin doctor`{doctor}"))
        .line("`session-manager-plugin` `--version` | `--help` | `--man`")
        .section("DESCRIPTION")
        .text("The AWS CLI starts this program for `aws ssm start-session` and `aws ecs execute-command`,")
        .text(&format!(
            "as it would start the official plugin, with which it is compatible ({COMPATIBLE_VERSION})."
        ))
        .text("Run it yourself for the commands below.")
        .text("`doctor` checks the installation, the AWS CLI, region and credentials, the clock, name resolution,")
        .text("proxies, trust, the key of encrypted shells, a websocket to the region's endpoint, the terminal and the logs, and tells you what to do.");
}

fn commands(page: &mut Page) {
    page.section("COMMANDS")
        .text("Sessions without the AWS CLI. A failure of the command itself exits with 255, unknown arguments with 2.");
    for command in commands::manual() {
        page.item(&command.usage, &command.about);
        for argument in command.arguments {
            page.line(&argument);
        }
    }
    page.section("COMMAND OPTIONS");
    for (option, meaning) in commands::common_options() {
        page.item(&option, &meaning);
    }
    page.section("DOCTOR OPTIONS");
    for (option, value, meaning) in OPTIONS {
        page.item(
            &if value.is_empty() { (*option).to_owned() } else { format!("{option} {value}") },
            meaning,
        );
    }
}

fn environment(page: &mut Page) {
    page.section("ENVIRONMENT")
        .text("An invalid value causes one warning, and the default applies. The default is in brackets.")
        .text("Sizes may have the unit K, M or G (by 1024), times s, m, h or d; a number without unit is in bytes or seconds.")
        .text("Switches take 1, true, yes or on, and 0, false, no or off.");
    for row in TABLE {
        page.item(row.name, &format!("{} [{}].", sentence(&row.text()), row.default_text()));
    }
    page.paragraph("`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, `AWS_CA_BUNDLE`, `SSL_CERT_FILE`,")
        .text("and the AWS SDKs' variables for credentials, region and endpoints are honoured.")
        .text("`AWS_CA_BUNDLE`, or the profile's ca_bundle, replaces the certificates that are trusted, as in the AWS CLI.");
}

fn files(page: &mut Page) {
    page.section("FILES")
        .item(EXAMPLE_FILE, "The same settings in TOML, under their full names, or without SSM_PLUGIN_, in upper or lower case,")
        .text("such as `restart = true`. A list may be an array.")
        .text("`--help` prints the path on this system.")
        .more("A section `[[match]]` holds settings for some sessions only. Its conditions are patterns (* for any text,")
        .text("? for one character), or arrays of patterns, that are compared with the session's arguments:")
        .text("profile, target, region, document, host and port (of the destination), and caller (aws for the AWS CLI,")
        .text("otherwise the name of the program that started the plugin).")
        .text("All conditions must match; a value that is absent matches no pattern. As in ssh_config, the first")
        .text("section that matches wins for each setting. The environment wins over all sections, and the sections win over")
        .text("the settings at the top of the file.")
        .example("[[match]]\nprofile = \"prod-*\"\nhost = \"db.internal\"\nrestart = true\nforward = [\"16379:cache.internal:6379\"]")
        .more("The file is ignored if another user owns it or can write to it or to a directory on the way to it.")
        .more(&format!("Its directory is XDG_CONFIG_HOME if that is set. {}", settings::FILE_RULE))
        .more("A file's name may begin with ~/, the home directory; ~user/ is not expanded.")
        .item("~/.local/state/session-manager-plugin/", "Diagnostics, one file a day, when SSM_PLUGIN_LOG asks for them.");
}

fn exit_status(page: &mut Page) {
    page.section("EXIT STATUS")
        .text("0 under the AWS CLI, always: it would otherwise print the arguments, a token among them. To other callers, with")
        .text("SSM_PLUGIN_EXIT_CODE=1, the remote command's status, and 255 when the plugin itself has failed; without it, 0.")
        .paragraph("The agent sends a command's status only in sessions whose document has separate output streams:")
        .text("AWS-StartNonInteractiveCommand with separateOutputStream=True, and documents of your own of the type")
        .text("NonInteractiveCommands with that property. A command that could not be started is 1 with and without it.")
        .text("Shells (SSM-SessionManagerRunShell, Standard_Stream), AWS-StartInteractiveCommand, port forwarding, SSH and")
        .text("aws ecs execute-command never return a status.")
        .text("`session-manager-plugin run` uses such a document and returns the command's status without the AWS CLI.")
        .paragraph("`doctor` exits with 1 if a check has failed, and with 2 if its arguments are not understood.");
}

/// The escapes and their meanings, from the text that a session prints for `~?`.
fn escapes() -> impl Iterator<Item = (&'static str, &'static str)> {
    official::ESCAPE_HELP.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(" - "))
}

/// Begins with a capital, unless a value comes first.
fn sentence(text: &str) -> String {
    if text.split([' ', ':']).next().is_some_and(|word| ["true", "1"].contains(&word)) {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

const PROGRAM: &str = "session-manager-plugin";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const EXAMPLE_FILE: &str = "~/.config/session-manager-plugin/config.toml";
const EVENTS: &str = "\
    With SSM_PLUGIN_STATUS=json each line on stderr is a JSON object with `time` (UTC, as in RFC 3339) and `event`, which is \
    one of these, with these fields. Fields in brackets may be absent: an event without a destination is about the one on \
    the command line. When several sessions share a port, lost, resumed, paused and unpaused are reported for the oldest \
    only. New events and fields may be added; existing ones are stable.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manual_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/session-manager-plugin.1");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == manual(), "cargo run -- --man >scripts/session-manager-plugin.1");
    }

    #[test]
    fn it_is_complete() {
        let source = manual();
        assert!(source.is_ascii());
        let shown = |text: &str| source.contains(&text.replace('-', "\\-").replace('~', "\\(ti"));
        assert!(TABLE.iter().all(|row| shown(row.name)));
        assert!(events().iter().all(|(name, ..)| shown(name)));
        assert_eq!(escapes().map(|(escape, _)| escape).collect::<String>(), "~?~~~-~.~#");
        assert!(OPTIONS.iter().all(|(option, ..)| shown(option)));
        for name in ["shell", "ssh", "ssh-config", "forward", "run", "start-session", "completions"] {
            assert!(shown(&format!("{PROGRAM} {name}")), "{name}");
        }
    }

    #[test]
    fn sentences() {
        assert_eq!(sentence("1: exit"), "1: exit");
        assert_eq!(sentence("true: open"), "true: open");
        assert_eq!(sentence("data"), "Data");
    }
}
