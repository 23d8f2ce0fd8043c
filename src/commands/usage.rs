//! From words to a request, or to a text: help, completion, and one line for each mistake.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, Command};
use clap_complete::Shell;

use super::grammar::{self, PROGRAM};
use super::request::Request;
use crate::version::COMPATIBLE_VERSION;
use crate::{doctor, printable};

/// An answer instead of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// For stdout.
    Text(String),
    /// The report of `doctor`.
    Report(doctor::Options),
    /// One line about arguments that are not understood, with the form that was expected.
    Mistake(String),
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// The text to print instead.
pub(super) fn parse(words: Vec<OsString>) -> Result<Request, Answer> {
    if words.first().is_some_and(|word| word == "-V") {
        return Err(Answer::Text(format!("{PROGRAM} {VERSION} (compatible with {COMPATIBLE_VERSION})\n")));
    }
    let words = joined_wait(words);
    // An empty variable in a script, which would otherwise forward forever.
    let separator = words.iter().position(|word| word == "--");
    let has_empty_command = separator.is_some_and(|at| at + 1 == words.len());
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let subject = words.iter().find(|word| *word != "help").cloned().unwrap_or_default();
    let all = std::iter::once(OsString::from(PROGRAM)).chain(words);
    let found = grammar::command()
        .try_get_matches_from(all)
        .map_err(|error| answer(&error, &name, &subject.to_string_lossy()))?;
    match found.subcommand() {
        Some((name, _)) if has_empty_command => {
            Err(Answer::Mistake(mistake(name, "missing COMMAND after --")))
        }
        Some(("completions", found)) => {
            let shell = found.get_one::<String>("shell").map(String::as_str).unwrap_or_default();
            Err(Answer::Text(completions(shell)))
        }
        Some(("doctor", found)) => Err(Answer::Report(doctor::Options::from_matches(found))),
        Some((name, found)) => Request::from_matches(name, found)
            .ok_or_else(|| Answer::Mistake(mistake(name, "unknown command"))),
        None => Err(Answer::Mistake(mistake(&name, "unknown command"))),
    }
}

/// `--wait 60` as `--wait=60`: its number may be left out, and must not take the target for one.
fn joined_wait(words: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(words.len());
    let mut is_command = false;
    for word in words {
        let is_number = word.to_str().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        match joined.last_mut() {
            Some(last) if !is_command && is_number && last == "--wait" => {
                last.push("=");
                last.push(word);
            }
            _ => {
                is_command |= word == "--";
                joined.push(word);
            }
        }
    }
    joined
}

/// The text for `error`, in arguments that begin with the word `name`. A help is about the command `subject`, if there is
/// such a command.
fn answer(error: &clap::Error, name: &str, subject: &str) -> Answer {
    let rendered = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelp
        && let Some(command) = grammar::command().find_subcommand(subject)
    {
        return Answer::Text(help(command.clone()));
    }
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
    ) {
        return Answer::Text(rendered);
    }
    Answer::Mistake(mistake(name, &reason(&rendered)))
}

/// The help of a command in the compact layout, which clap would leave for a command with a long description.
fn help(command: Command) -> String {
    let about = command.get_long_about().or(command.get_about()).cloned().unwrap_or_default();
    command.about(about).long_about(None).render_help().to_string()
}

/// The reason of a rendered error in one line: its paragraphs before the usage.
fn reason(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let mut reason = String::new();
    // The usage that follows is more specific than a pointer to it.
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")) {
        let values = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        reason += &match (reason.chars().last(), values) {
            (None, _) => line.to_owned(),
            (_, Some(values)) => format!(" ({values})"),
            (Some(':'), _) => format!(" {line}"),
            (Some(_), _) if line.starts_with(['<', '-']) => format!(", {line}"),
            (Some(_), _) => format!("; {}", line.trim_start_matches("tip: ")),
        };
    }
    printable::one_line(&reason)
}

/// One line about a mistake in the arguments of the command `name`, with its form.
pub(super) fn mistake(name: &str, reason: &str) -> String {
    let command = grammar::command();
    let known = command.get_subcommands().find(|command| command.get_name() == name);
    match known {
        Some(known) => {
            let usage = known.clone().render_usage().to_string();
            let usage = usage.trim_start_matches("Usage: ").trim().to_owned();
            format!("{PROGRAM} {name}: {reason}; usage: {usage}")
        }
        None => format!("{PROGRAM}: {reason}; see: {PROGRAM} help"),
    }
}

/// A command, for the manual page.
pub(crate) struct CommandManual {
    /// The program's name, the command and its arguments.
    pub usage: String,
    pub about: String,
    /// One line for each argument that is not common to all commands.
    pub arguments: Vec<String>,
}

/// Returns the commands for the manual page.
pub(super) fn manual() -> Vec<CommandManual> {
    let common = grammar::common_args();
    // doctor has options of the same names with other meanings.
    let is_same =
        |one: &Arg, other: &Arg| one.get_id() == other.get_id() && one.get_help() == other.get_help();
    let is_common = |arg: &Arg| common.iter().any(|common| is_same(common, arg));
    let described = |command: &Command| {
        let usage = command.clone().render_usage().to_string();
        let about = command.get_long_about().or(command.get_about());
        let arguments = command.get_arguments().filter(|arg| !is_common(arg) && arg.get_id() != "help");
        CommandManual {
            usage: usage.trim_start_matches("Usage: ").trim().to_owned(),
            about: about.map(ToString::to_string).unwrap_or_default(),
            arguments: arguments.map(|arg| described(arg, ": ")).collect(),
        }
    };
    grammar::command().get_subcommands().map(described).collect()
}

/// Returns the options of all commands, with their meanings.
pub(super) fn common_options() -> Vec<(String, String)> {
    let both = |arg: &Arg| {
        let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        (described(&arg.clone().help(""), ""), meaning)
    };
    grammar::common_args().iter().map(both).collect()
}

/// Returns the commands with their meanings in one line.
pub(super) fn list() -> Vec<(String, String)> {
    let both = |command: &Command| {
        (command.get_name().to_owned(), command.get_about().map(ToString::to_string).unwrap_or_default())
    };
    grammar::command().get_subcommands().map(both).collect()
}

/// `-s, --long VALUE: help`.
fn described(arg: &Arg, separator: &str) -> String {
    let names =
        [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))];
    let mut words = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let values = arg.get_value_names().filter(|_| arg.is_positional() || arg.get_action().takes_values());
    for value in values.unwrap_or_default() {
        let is_optional = arg.is_require_equals_set();
        let gap = if words.is_empty() { "" } else { " " };
        words += &if is_optional { format!("[={value}]") } else { format!("{gap}{value}") };
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!("{words}{separator}{help}")
}

fn completions(shell: &str) -> String {
    let mut script = Vec::new();
    if let Ok(shell) = shell.parse::<Shell>() {
        clap_complete::generate(shell, &mut grammar::command(), PROGRAM, &mut script);
    }
    // clap_complete 4.6.11 gives the functions of a hyphenated program two different names in bash.
    String::from_utf8_lossy(&script)
        .replace("session__subcmd__manager__subcmd__plugin", "session__manager__plugin")
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::request::{Common, Run, Ssh};

    fn read(line: &str) -> Result<Request, Answer> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    fn mistake_in(line: &str) -> String {
        match read(line) {
            Err(Answer::Mistake(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        grammar::command().debug_assert();
    }

    #[test]
    fn arguments_are_read() {
        let ssh = |wait: Option<u64>, target: &str, port| {
            let common = Common { wait: wait.map(std::time::Duration::from_secs), ..Common::default() };
            Ok(Request::Ssh(Ssh { common, target: target.to_owned(), port, ..Ssh::default() }))
        };
        assert_eq!(read("ssh i-1"), ssh(None, "i-1", 22));
        assert_eq!(read("ssh i-1 2222"), ssh(None, "i-1", 2222));
        assert_eq!(read("ssh --wait web"), ssh(Some(300), "web", 22));
        assert_eq!(read("ssh --wait 60 web 2222"), ssh(Some(60), "web", 2222));
        assert_eq!(read("ssh --wait=60 web"), ssh(Some(60), "web", 22));
        let command = ["--wait", "60", "-v", "--"].map(OsString::from).to_vec();
        let run = Run { target: "web".to_owned(), command, ..Run::default() };
        assert_eq!(read("run web -- --wait 60 -v --"), Ok(Request::Run(run)));
    }

    #[test]
    fn arguments_of_doctor() {
        let report = |line: &str| match read(line) {
            Err(Answer::Report(options)) => options,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(report("doctor"), doctor::Options::default());
        let text = |text: &str| Some(text.to_owned());
        let options = doctor::Options {
            json: true,
            region: text("eu-west-1"),
            profile: text("p"),
            target: text("i-1"),
            url: text("wss://h/x?a=b"),
        };
        let line = "doctor --json --region eu-west-1 --profile=p --target i-1 --url wss://h/x?a=b";
        assert_eq!(report(line), options);
    }

    #[test]
    fn each_mistake_is_one_line_with_the_form() {
        for (line, part) in [
            ("ssh", "<TARGET>"),
            ("ssh i-1 x", "'x'"),
            ("ssh i-1 0", "'0'"),
            ("ssh i-1 22 23", "'23'"),
            ("ssh i-1 --regoin x", "--regoin"),
            ("ssh i-1 --user", "--user"),
            ("shell i-1 --wait=x", "'x'"),
            ("shell i-1 --region", "--region"),
            ("run i-1 uptime", "'uptime'"),
            ("run i-1", "COMMAND"),
            ("run i-1 --", "COMMAND"),
            ("start-session i-1", "'i-1'"),
            ("doctor --fix", "'--fix'"),
            ("doctor i-1", "'i-1'"),
            ("doctor --json=1", "'1'"),
            ("doctor --region", "--region"),
            ("doctor --url=", "--url"),
            ("start-session --target i-1 --colour red", "--colour"),
            ("completions tcsh", "'tcsh' for '<SHELL>' (possible values: bash, "),
        ] {
            let text = mistake_in(line);
            assert!(text.contains(part) && !text.contains('\n'), "{line}: {text}");
            assert!(!text.contains("For more information"), "{line}: {text}");
            let name = line.split(' ').next().unwrap();
            assert!(text.contains(&format!("; usage: {PROGRAM} {name} ")), "{line}: {text}");
        }
        let with_newline = parse(vec!["ssh".into(), "i-1".into(), "a\nb\u{1b}[2J".into()]);
        let Err(Answer::Mistake(text)) = with_newline else { panic!("{with_newline:?}") };
        assert!(!text.contains(['\n', '\u{1b}']), "{text:?}");
        assert!(mistake_in("help nonsense").contains("nonsense"));
    }

    #[test]
    fn help_has_examples() {
        for name in ["ssh", "shell", "run", "forward", "start-session", "completions", "doctor"] {
            for line in [format!("{name} --help"), format!("help {name}")] {
                let Err(Answer::Text(text)) = read(&line) else { panic!("{line}") };
                assert!(text.contains(PROGRAM) && text.contains("Example") || name == "ssh", "{text}");
                assert!(text.ends_with('\n') && !text.contains("see a summary with"), "{text}");
                assert!(text.contains("  -h, --help"), "{text}");
            }
        }
        let Err(Answer::Text(text)) = read("help") else { panic!("help") };
        assert!(["start-session", "doctor", "forward"].iter().all(|name| text.contains(name)), "{text}");
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn completion_for_each_shell() {
        for (shell, part) in [
            ("bash", "complete -F"),
            ("zsh", "#compdef"),
            ("fish", "complete -c"),
            ("powershell", "Register-"),
        ] {
            let Err(Answer::Text(text)) = read(&format!("completions {shell}")) else { panic!("{shell}") };
            assert!(text.contains(part) && text.contains("start-session"), "{shell}: {text}");
        }
    }
}
