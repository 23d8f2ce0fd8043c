//! The manual page (`--man`): commands, settings, events and escapes come from their tables.

mod page;

use self::page::Page;
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
    page.section("NAME")
        .text("session-manager-plugin - shells, port forwarding and SSH over AWS Systems Manager")
        .section("SYNOPSIS")
        .text("`session-manager-plugin` response region `StartSession` [profile [request [endpoint]]]")
        .line("`session-manager-plugin` COMMAND [ARGUMENT]...")
        .line("`session-manager-plugin` `--version` | `--help` | `--man`")
        .section("DESCRIPTION")
        .text("The AWS CLI starts this program in place of the official plugin, for `aws ssm start-session` and `aws ecs execute-command`.")
        .text(&format!("It is compatible with version {COMPATIBLE_VERSION} of the official plugin."))
        .text("Run it yourself to use the commands below.")
        .text("If sessions do not work, run `session-manager-plugin doctor`: it checks the usual causes and tells you what to do.");
}

fn commands(page: &mut Page) {
    page.section("COMMANDS").text("These commands need no AWS CLI.");
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
}

fn environment(page: &mut Page) {
    page.section("ENVIRONMENT")
        .text("For an invalid value, one warning is printed and the default is used. The default is in brackets.")
        .text("Sizes accept the units K, M and G (powers of 1024), and times s, m, h and d; a number without a unit is in bytes or seconds.")
        .text("Switches accept 1, true, yes or on, and 0, false, no or off.");
    for row in TABLE {
        page.item(row.name, &format!("{} [{}].", sentence(&row.text()), row.default_text()));
    }
    page.paragraph("`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, `AWS_CA_BUNDLE`, `SSL_CERT_FILE`,")
        .text("and the AWS SDKs' variables for credentials, region and endpoints are honoured.")
        .text("`AWS_CA_BUNDLE`, or the profile's ca_bundle, replaces the trusted certificates, as in the AWS CLI.");
}

fn files(page: &mut Page) {
    page.section("FILES")
        .item(EXAMPLE_FILE, "The same settings in TOML. Their names may be in upper or lower case, with or without SSM_PLUGIN_,")
        .text("such as `restart = true`. A list may be a TOML array.")
        .text("`--help` prints the path on this system.")
        .more("A `[[match]]` section holds settings for matching sessions only. Its conditions are")
        .text("profile, target, region, document, host and port (of the destination), and caller (aws for the AWS CLI,")
        .text("otherwise the name of the program that started the plugin). A condition is a pattern or an array of patterns:")
        .text("* matches any text, and ? matches one character.")
        .text("All conditions must match. A condition does not match a session that has no value for it. For example, a")
        .text("profile condition does not match a session without a profile. (Version 2 of the AWS CLI passes both --profile and")
        .text("AWS_PROFILE on to the plugin, version 1 only --profile.) For each setting, the first matching section wins, as in")
        .text("ssh_config. Environment variables override all sections, and sections override the settings at the top of the file.")
        .more("For sessions of the program's own commands (`shell`, `forward` and so on), only the conditions profile, target and region")
        .text("can match. They are compared with the session's values, wherever these come from: the command line, the environment, the")
        .text("profile or a `[tunnels.NAME]` section.")
        .example("[[match]]\nprofile = \"prod-*\"\nhost = \"db.internal\"\nrestart = true\nforward = [\"16379:cache.internal:6379\"]")
        .more("A `[tunnels.NAME]` section holds arguments for `session-manager-plugin forward NAME`.")
        .text("The keys are target (required), forwards (an array of SPECs), profile, region, socks (a port) and sessions.")
        .text("Options on the command line override the section. SPECs on the command line are added to those of the section.")
        .example("[tunnels.db]\ntarget = \"tag:Name=bastion\"\nprofile = \"prod-eu\"\nforwards = [\"15432:db.internal:5432\"]\nsocks = 1080")
        .more("The file is ignored if another user owns it, or can write to it or to any directory in its path.")
        .more(&format!("If the variable XDG_CONFIG_HOME is set, the directory session-manager-plugin is in $XDG_CONFIG_HOME. {}", settings::FILE_RULE))
        .more("In log_file and wire_log, ~/ is expanded to the home directory; ~user/ is not. In all other settings and in SPECs, write the whole path.")
        .item("~/.local/state/session-manager-plugin/", "Log files, one per day, if SSM_PLUGIN_LOG is set.");
}

fn exit_status(page: &mut Page) {
    page.section("EXIT STATUS")
        .text("Under the AWS CLI, the exit status is always 0, because with any other status the AWS CLI prints the plugin's")
        .text("arguments, including the session's token.")
        .paragraph("Other callers that pass the arguments of the AWS CLI (see SYNOPSIS) get 0 by default. With SSM_PLUGIN_EXIT_CODE=1, they")
        .text("get the remote command's status, or 255 if the plugin fails.")
        .paragraph("The agent sends a command's status only in sessions whose document has separate output streams:")
        .text("AWS-StartNonInteractiveCommand with separateOutputStream=True, and your own documents of the type")
        .text("NonInteractiveCommands with that property. There is one exception: if the command of a session cannot be started, the")
        .text("status is 1 even without separate output streams.")
        .text("Shells (SSM-SessionManagerRunShell, Standard_Stream), AWS-StartInteractiveCommand, port forwarding, SSH and")
        .text("aws ecs execute-command never return a status.")
        .paragraph("The commands that start a session exit with 255 if the session fails. `run` and `forward` with COMMAND otherwise exit")
        .text("with the status of COMMAND; `run` exits with 255 if a signal ends COMMAND on the target, and reports it.")
        .text("`doctor` exits with 1 if a check failed. All commands exit with 2 for invalid arguments.");
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
    With SSM_PLUGIN_STATUS=json, each line on stderr is a JSON object with the fields `time` (UTC, as in RFC 3339) and \
    `event`. The events and their additional fields are listed below. Fields in brackets may be absent. If the AWS \
    CLI started the session, an event about a port or a connection may lack the field `destination`; it then concerns the \
    destination of that session. When several sessions share a port, the events `lost`, \
    `resumed`, `paused` and `unpaused` are reported only for the oldest session. New events and fields may be added; existing \
    ones are stable.";

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
        assert!(
            ["--target TARGET:", "--url URL:", "--region REGION: AWS region to check", "--json: Print"]
                .iter()
                .all(|option| shown(option))
        );
        for name in ["shell", "ssh", "ssh-config", "forward", "run", "start-session", "completions", "doctor"]
        {
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
