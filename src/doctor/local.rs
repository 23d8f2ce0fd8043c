//! This machine: settings, programs, terminal, log.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use super::report::{Check, Status};
use crate::logging;
use crate::protocol::TerminalSize;
use crate::settings::{LoadedSettings, Relaxation, Settings, Source, config_file, ignored_file};
use crate::term::{RawMode, current_size, stdin_is_pipe_terminal, stdin_is_terminal, stdout_is_terminal};

/// Lists the settings in use, their mistakes, and the safeguards that they relax.
pub(super) fn settings(loaded: &LoadedSettings) -> Check {
    const NAME: &str = "settings";
    let names = |source| -> Vec<&str> {
        loaded.set.iter().filter(|(_, of)| *of == source).map(|(name, _)| *name).collect()
    };
    let path = config_file(|name| std::env::var_os(name));
    let file = path.as_ref().map(|path| path.display().to_string());
    let place = file.as_deref().unwrap_or("the settings file");
    let in_use: Vec<String> = [("the environment", Source::Environment), (place, Source::File)]
        .into_iter()
        .map(|(place, source)| (place, names(source)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(place, names)| format!("set in {place}: {}", names.join(", ")))
        .collect();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let relaxations = loaded.settings.relaxations();
    let advice = match (warnings.as_slice(), relaxations.as_slice()) {
        ([], []) => None,
        ([], _) => Some("unset the settings that you do not need"),
        _ if ignored_file(|name| std::env::var_os(name)).is_some() => {
            Some("correct the settings file, its owner or its permissions")
        }
        _ => Some("session-manager-plugin --help lists all settings"),
    };
    let relaxed = relaxations.iter().map(ToString::to_string);
    let lines: Vec<String> = warnings.iter().cloned().chain(relaxed).chain(in_use).collect();
    let found = if lines.is_empty() {
        format!("all settings have their defaults; {}", state_of_file(path.as_deref()))
    } else {
        lines.join("\n")
    };
    let check = match advice {
        Some(advice) => Check::warning(NAME, found).advice(advice),
        None => Check::ok(NAME, found),
    };
    let relaxed = |relaxation: &Relaxation| {
        let Relaxation { name, value, meaning, .. } = relaxation;
        json!({"name": name, "value": value, "meaning": meaning})
    };
    check
        .field("environment", names(Source::Environment))
        .field("file", names(Source::File))
        .field("path", file)
        .field("warnings", warnings)
        .field("relaxed", relaxations.iter().map(relaxed).collect::<Vec<_>>())
}

/// Reason that the settings file sets nothing: no setting of it applies, or there is none.
fn state_of_file(path: Option<&Path>) -> String {
    match path {
        Some(path) if path.exists() => {
            format!("the settings file {} sets none for this profile, region and target", path.display())
        }
        Some(path) => format!("the settings file {} does not exist", path.display()),
        None => "without a home directory there is no settings file".to_owned(),
    }
}

/// Looks for the plugin that the AWS CLI would call, and for the one of callers that know only the official package's path.
pub(super) async fn plugin() -> Check {
    let check = plugin_on_path().await;
    if cfg!(windows) {
        return check;
    }
    let usual = Path::new(USUAL_PLACE);
    let with =
        |text: &str| Check { found: format!("{}\n{USUAL_PLACE}: {text}", check.found), ..check.clone() };
    if !is_program(usual) {
        // Only Ansible's collections before 9.1 look there and nowhere else.
        return if has_ansible() {
            with("not found; with community.aws older than 9.1, Ansible's aws_ssm connection looks only here")
        } else {
            check
        };
    }
    // The programs on the PATH are reported already.
    if is_this_program(usual) || check.found.contains(USUAL_PLACE) {
        return check;
    }
    if !has_ansible() {
        return with("a different program");
    }
    let other =
        with("a different program; with community.aws older than 9.1, Ansible's aws_ssm connection uses it");
    match check.status {
        Status::Ok => Check { status: Status::Warning, ..other }
            .advice("set ansible_aws_ssm_plugin to the path of this program; or, if the official package is not installed, replace the file with a link to this program"),
        _ => other,
    }
}

fn has_ansible() -> bool {
    !on_path("ansible").is_empty() || !on_path("ansible-playbook").is_empty()
}

async fn plugin_on_path() -> Check {
    const NAME: &str = "plugin";
    let found = plugins_on_path();
    let Some(first) = found.first() else {
        if let Some(folder) = official_folder().filter(|folder| folder.join(PLUGIN_EXE).is_file()) {
            let text = format!("installed in {}, which is not on PATH", folder.display());
            return Check::failure(NAME, text)
                .advice("open a new console: consoles opened before the installation keep the old PATH");
        }
        let this = std::env::current_exe().ok();
        let dir = this.as_deref().and_then(Path::parent).map(|dir| dir.display().to_string());
        return Check::failure(NAME, "session-manager-plugin is not on PATH, so the AWS CLI cannot find it")
            .advice(format!("add {} to PATH", dir.unwrap_or_else(|| "its directory".to_owned())));
    };
    let mut lines = Vec::new();
    let paths: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    for path in &found {
        let what = if is_this_program(path) {
            "this program".to_owned()
        } else {
            match output(path, &["--version"]).await {
                Ok(version) => format!("a different program, version {version}"),
                Err(reason) => format!("a different program that fails to run: {reason}"),
            }
        };
        lines.push(format!("{}: {what}", path.display()));
    }
    let text = lines.join("\n");
    if is_this_program(first) {
        return Check::ok(NAME, text).field("paths", paths);
    }
    Check::warning(NAME, text)
        .advice("the AWS CLI uses the first plugin on PATH; put this program's directory first")
        .field("paths", paths)
}

/// Looks for the AWS CLI: its version, and how it will call us.
pub(super) async fn aws_cli() -> Check {
    const NAME: &str = "aws-cli";
    let Some(path) = on_path("aws").into_iter().next() else {
        return Check::warning(NAME, "aws is not on PATH").advice(
            "install the AWS CLI to use aws ssm start-session; this program's own commands do not need it",
        );
    };
    let words = match output(&path, &["--version"]).await {
        Ok(words) => words,
        Err(reason) => {
            return Check::failure(NAME, format!("{} cannot be run: {reason}", path.display()))
                .advice("reinstall the AWS CLI");
        }
    };
    let name = words.split_whitespace().next().unwrap_or_default();
    let found = format!("{}: {name}", path.display());
    let check = match version(&words) {
        Some(version) if hands_over_in_argv(version) => Check::warning(
            NAME,
            format!(
                "{found}; it passes the session's token as a command-line argument, which every local user can read"
            ),
        )
        .advice("update the AWS CLI: current versions pass the token in the environment"),
        Some(_) => Check::ok(NAME, found),
        None => Check::warning(NAME, format!("{found}; this does not look like the AWS CLI"))
            .advice("check that the first aws on PATH is the AWS CLI"),
    };
    let version = version(&words).and(name.split('/').nth(1));
    check.field("path", path.display().to_string()).field("version", version)
}

pub(super) fn terminal() -> Check {
    const NAME: &str = "terminal";
    if !stdin_is_terminal() {
        return Check::skipped(NAME, "stdin is not a terminal");
    }
    if let Err(error) = RawMode::enter().map(drop) {
        return Check::failure(NAME, format!("cannot switch the terminal to raw mode: {error}"))
            .advice("input will be sent line by line; start the session from an ordinary terminal");
    }
    let unknown = TerminalSize { cols: 0, rows: 0 };
    let current = current_size(unknown);
    let term = std::env::var("TERM").unwrap_or_default();
    let fields = |check: Check| {
        check.field("columns", current.cols).field("lines", current.rows).field("term", term.as_str())
    };
    let size = match current {
        size if size == unknown => "unknown size".to_owned(),
        TerminalSize { cols, rows } => format!("{cols} by {rows}"),
    };
    if stdin_is_pipe_terminal() {
        return fields(Check::warning(NAME, format!("{size} in Git Bash (mintty), which sends input line by line")).advice(
            "for a shell, prefix the command with winpty or use Windows Terminal; port forwarding, SSH and commands work",
        ));
    }
    let output = if stdout_is_terminal() { "" } else { "; stdout is not a terminal" };
    if cfg!(unix) && matches!(term.as_str(), "" | "dumb" | "unknown") {
        return fields(
            Check::warning(NAME, format!("{size}, TERM is {term:?}{output}"))
                .advice("programs like vi and less need TERM, for example TERM=xterm-256color"),
        );
    }
    fields(Check::ok(NAME, format!("{size}, raw mode, TERM={term}{output}")))
}

pub(super) fn log(settings: &Settings) -> Check {
    let state = if settings.log.is_some() { "on" } else { "off" };
    let place = logging::place(settings).map(|path| path.display().to_string());
    let check = match logging::check(settings) {
        Ok(path) => Check::ok("log", format!("{state}; the log path {} is writable", path.display())),
        Err(error) => Check::warning("log", format!("{state}; {error:#}"))
            .advice("set SSM_PLUGIN_LOG_FILE to a writable path"),
    };
    let check = check.field("filter", settings.log.as_deref()).field("path", place);
    with_official_configuration(check, &official_log_configuration())
}

/// Reports that the official plugin's configuration of its log is not read, where there is one.
fn with_official_configuration(check: Check, path: &Path) -> Check {
    if !path.is_file() {
        return check;
    }
    let found = format!("{}\n{} is ignored: it configures the official plugin", check.found, path.display());
    let advice = match check.advice {
        Some(advice) => advice,
        None => {
            "SSM_PLUGIN_LOG=debug turns on this program's log; SSM_PLUGIN_LOG_FILE sets its path".to_owned()
        }
    };
    Check { found, advice: Some(advice), ..check }
}

/// Path where the official plugin looks for `seelog.xml` (its source, `getLogConfigBytes`).
fn official_log_configuration() -> PathBuf {
    match std::env::var_os("ProgramFiles").filter(|_| cfg!(windows)) {
        Some(programs) => PathBuf::from(programs).join(r"Amazon\SessionManagerPlugin\seelog.xml"),
        None => PathBuf::from("/usr/local/sessionmanagerplugin/seelog.xml"),
    }
}

/// All programs of this name, in the order in which a shell would take them.
fn on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extensions = if cfg!(windows) { std::env::var("PATHEXT").ok() } else { None };
    search(&path, &file_names(name, extensions.as_deref()))
}

/// Plugins on the PATH, by any name the file may have. On Windows the AWS CLI starts it without a shell, which
/// finds `.exe` alone.
fn plugins_on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    search(&path, &file_names(PLUGIN, cfg!(windows).then_some(".exe")))
}

/// The names that a program's file may have, in the order of `PATHEXT`, which only Windows has.
fn file_names(name: &str, extensions: Option<&str>) -> Vec<String> {
    match extensions {
        None if cfg!(windows) => file_names(name, Some(".COM;.EXE;.BAT;.CMD")),
        None => vec![name.to_owned()],
        Some(extensions) => {
            let extensions = extensions.split(';').filter(|extension| !extension.is_empty());
            extensions.map(|extension| format!("{name}{}", extension.to_ascii_lowercase())).collect()
        }
    }
}

/// Folder of the official installer on Windows, and of ours.
fn official_folder() -> Option<PathBuf> {
    let programs = std::env::var_os("ProgramFiles").filter(|_| cfg!(windows))?;
    Some(Path::new(&programs).join(r"Amazon\SessionManagerPlugin\bin"))
}

fn search(path: &OsStr, names: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for dir in std::env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty()) {
        for file in names.iter().map(|name| dir.join(name)).filter(|file| is_program(file)) {
            let real = file.canonicalize().unwrap_or_else(|_| file.clone());
            if !seen.contains(&real) {
                seen.push(real);
                found.push(file);
            }
        }
    }
    found
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

fn is_this_program(path: &Path) -> bool {
    let this = std::env::current_exe().and_then(|this| this.canonicalize());
    this.is_ok_and(|this| path.canonicalize().is_ok_and(|path| path == this))
}

/// The first line a program prints; it is killed when it takes too long.
async fn output(program: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_TIMEOUT, command.output()).await;
    let output = output.map_err(|_| format!("no response within {} s", PROGRAM_TIMEOUT.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().chars().take(MAX_OUTPUT).collect())
}

/// The number in `aws-cli/2.15.3 Python/...`: major, minor, patch.
fn version(words: &str) -> Option<Version> {
    let number = words.split_whitespace().next()?.strip_prefix("aws-cli/")?;
    // Some packagers append a word to the last part.
    let mut parts = number.split('.').map(|part| {
        let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end)?.parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default()))
}

/// Returns whether `aws ssm start-session` of this version puts the token among our arguments, whatever we answer to
/// `--version`. (`aws ecs execute-command` does so in every version.)
fn hands_over_in_argv(version: Version) -> bool {
    match version.0 {
        0 | 1 => version < FIRST_1_WITH_VARIABLE,
        _ => version < FIRST_2_WITH_VARIABLE,
    }
}

type Version = (u32, u32, u32);

/// "Pass StartSession API response as environment variable to session-manager-plugin": the AWS CLI's changelog, its
/// `.changes/1.30.3.json` (aws-cli#8336) and `.changes/2.13.37.json` (aws-cli#8340), both of November 2023.
const FIRST_1_WITH_VARIABLE: Version = (1, 30, 3);
const FIRST_2_WITH_VARIABLE: Version = (2, 13, 37);

const PLUGIN: &str = "session-manager-plugin";
/// Location of the official package's binary. (The default of `ansible_aws_ssm_plugin` in community.aws before
/// 9.1.)
const USUAL_PLACE: &str = "/usr/local/bin/session-manager-plugin";
const PLUGIN_EXE: &str = "session-manager-plugin.exe";
/// The AWS CLI takes a second or two to print its version.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(8);
/// Characters of another program's output that are shown.
const MAX_OUTPUT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_cli() {
        assert_eq!(version("aws-cli/2.9.19 Python/3.11.2 Linux"), Some((2, 9, 19)));
        assert_eq!(version("aws-cli/1.45.11"), Some((1, 45, 11)));
        assert_eq!(version("aws-cli/2.0.0dev4 Python/3.7"), Some((2, 0, 0)));
        assert_eq!(version("aws-cli/3.1"), Some((3, 1, 0)));
        for words in ["aws 2", "", "aws-cli/2", "aws-cli/x.y"] {
            assert_eq!(version(words), None, "{words}");
        }
        for old in [(0, 14, 4), (1, 29, 85), (1, 30, 2), (2, 0, 0), (2, 9, 19), (2, 13, 36)] {
            assert!(hands_over_in_argv(old), "{old:?}");
        }
        for new in [(1, 30, 3), (1, 31, 0), (1, 45, 11), (2, 13, 37), (2, 15, 0), (3, 0, 0)] {
            assert!(!hands_over_in_argv(new), "{new:?}");
        }
    }

    #[test]
    fn a_log_configuration_of_the_official_plugin_is_reported_as_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seelog.xml");
        let check = || Check::ok("log", "off");
        assert_eq!(with_official_configuration(check(), &path), check());
        std::fs::write(&path, "<seelog/>").unwrap();
        let told = with_official_configuration(check(), &path);
        assert_eq!(told.status, Status::Ok);
        assert_eq!(
            told.found,
            format!("off\n{} is ignored: it configures the official plugin", path.display())
        );
        assert!(told.advice.unwrap().starts_with("SSM_PLUGIN_LOG=debug"));
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_names("aws", Some(".COM;.EXE;;.CMD")), ["aws.com", "aws.exe", "aws.cmd"]);
        #[cfg(unix)]
        assert_eq!(file_names("aws", None), ["aws"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_same_program_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::create_dir(&a).unwrap();
        std::os::unix::fs::symlink(&a, &b).unwrap();
        std::fs::write(a.join("tool"), "").unwrap();
        let path = std::env::join_paths([&a, &b]).unwrap();
        let names = ["tool".to_owned()];
        assert_eq!(search(&path, &names), [""; 0].map(PathBuf::from), "it cannot be executed");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(a.join("tool"), mode).unwrap();
        assert_eq!(search(&path, &names), [a.join("tool")]);
    }
}
