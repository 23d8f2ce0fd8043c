//! The text of `--help`, for terminals of 80 columns.

use std::path::Path;

use crate::commands;
use crate::settings::TABLE;
use crate::version::COMPATIBLE_VERSION;

/// Files of this user on this system; `None` without a home directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Files<'a> {
    /// The settings file.
    pub settings: Option<&'a Path>,
    /// The directory of the diagnostics.
    pub diagnostics: Option<&'a Path>,
}

/// Returns the text of `--help`.
pub(crate) fn help(files: Files<'_>) -> String {
    let mut text = format!(
        "session-manager-plugin {VERSION} (compatible with {COMPATIBLE_VERSION})\n\n\
         USAGE\n  \
         Called by aws ssm start-session and aws ecs execute-command:\n    \
         session-manager-plugin <response> <region> StartSession\n      \
         [<profile> [<request> [<endpoint>]]]\n  \
         Run it yourself:\n    \
         session-manager-plugin COMMAND [ARGUMENT]...\n    \
         session-manager-plugin --version | --help | --man\n\n\
         COMMANDS\n"
    );
    for (name, meaning) in commands::list() {
        text += &row(&name, &meaning, COMMAND_WIDTH);
    }
    text += &row("help [COMMAND]", "Explain all commands, or the named one.", COMMAND_WIDTH);
    let mut group = "";
    for variable in TABLE {
        if group != variable.group {
            group = variable.group;
            text += &format!("\nSETTINGS: {}\n", group.to_uppercase());
        }
        let meaning = format!("{} [{}]", variable.text(), variable.default_text());
        text += &row(variable.name, &meaning, SETTING_WIDTH);
    }
    text += &format!("\n{SETTINGS_NOTE}\n{EXAMPLES}\nFILES\n");
    for (path, meaning) in [
        (files.settings, "the same settings in TOML, such as: restart = true"),
        (files.diagnostics, "log files, if SSM_PLUGIN_LOG is set"),
    ] {
        let path =
            path.map_or_else(|| "(unknown: no home directory)".to_owned(), |path| path.display().to_string());
        text += &format!("  {path}\n      {meaning}\n");
    }
    text
}

/// A name and its meaning in two columns, the second of which begins after `width` characters.
fn row(name: &str, meaning: &str, width: usize) -> String {
    let mut lines = wrapped(meaning, COLUMNS - width - 4).into_iter();
    let mut text = if name.chars().count() > width {
        format!("  {name}\n")
    } else {
        format!("  {name:width$}  {}\n", lines.next().unwrap_or_default())
    };
    for line in lines {
        text += &format!("  {:width$}  {line}\n", "");
    }
    text
}

/// Text in lines of at most `width` characters, unless a word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const COLUMNS: usize = 80;
const COMMAND_WIDTH: usize = 14;
/// Characters of most names; longer ones have a line to themselves.
const SETTING_WIDTH: usize = 28;
const SETTINGS_NOTE: &str = "  The default is in brackets. Sizes accept K, M or G (64M); times accept s, m, h
  or d (30s); switches accept 1/0, true/false, yes/no or on/off. Environment
  variables override the settings file. A [[match]] section of the file applies
  only to matching sessions; a [tunnels.NAME] section defines the ports that
  \"session-manager-plugin forward NAME\" opens. The manual describes both
  sections: man session-manager-plugin (without an installed manual:
  session-manager-plugin --man >/tmp/manual.1, then man /tmp/manual.1).
  AWS_CA_BUNDLE, or the profile's ca_bundle, replaces the trusted certificates.
  HTTPS_PROXY and NO_PROXY select the proxy, as in the AWS CLI.
";
const EXAMPLES: &str = "\
EXAMPLES
  Open a tunnel that survives idle timeouts and reboots of the instance:
    SSM_PLUGIN_RESTART=1 aws ssm start-session --target i-0123456789abcdef0 \\
      --document-name AWS-StartPortForwardingSession \\
      --parameters portNumber=5432,localPortNumber=15432
  Do the same without the AWS CLI, to a database behind the instance:
    session-manager-plugin forward i-0123456789abcdef0 15432:db.internal:5432
  Make ssh ec2-user@i-0123456789abcdef0 work (run this once):
    session-manager-plugin ssh-config >>~/.ssh/config
  Find out why a session fails:
    session-manager-plugin doctor --target i-0123456789abcdef0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_80_columns_and_is_complete() {
        let files = Files { settings: Some(Path::new("/a/config.toml")), diagnostics: Some(Path::new("/b")) };
        for text in [help(files), help(Files::default())] {
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS, "{} is too long: {line}", line.len());
                assert_eq!(line.trim_end(), line, "{line:?}");
            }
        }
        let text = help(files);
        assert!(TABLE.iter().all(|row| text.contains(row.name)));
        for word in [
            VERSION,
            COMPATIBLE_VERSION,
            "--man",
            "ssh-config",
            "[[match]]",
            "[tunnels.NAME]",
            "/a/config.toml",
            "  /b\n",
        ] {
            assert!(text.contains(word), "{word}");
        }
        let place = |heading: &str| text.find(heading).unwrap_or_else(|| panic!("no {heading}"));
        let headings = ["SETTINGS: EVERYDAY", "SETTINGS: TUNING", "EXAMPLES", "FILES"].map(place);
        assert!(headings.is_sorted(), "{text}");
    }

    #[test]
    fn each_group_of_settings_has_one_heading() {
        let text = help(Files::default());
        for row in TABLE {
            assert_eq!(text.matches(&format!("SETTINGS: {}\n", row.group.to_uppercase())).count(), 1);
        }
    }

    #[test]
    fn rows() {
        assert_eq!(row("name", "a meaning", 6), "  name    a meaning\n");
        assert_eq!(row("longer name", "a meaning", 6), "  longer name\n          a meaning\n");
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    }
}
