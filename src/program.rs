//! The program: argv in, exit status out.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use crate::cli::{self, Invocation, StartSession};
use crate::output::{self, Style, official, sentences};
use crate::process::Parent;
use crate::session::{OWN_FAILURE, Ports, Run};
use crate::settings::{self, LoadedSettings, Settings, Subject};
use crate::{commands, help, logging, manual, panics, process, session, wire_log};

/// Runs `session-manager-plugin` with the arguments, environment and standard streams of this process, and returns its
/// exit status. Call this first, before any thread exists.
pub fn main() -> ExitCode {
    panics::install_hook();
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| commands::is_command(word)) {
        return commands::main(words.collect());
    }
    // Before any thread exists: the response is taken out of the environment here.
    let invocation = cli::parse(std::env::args_os(), process::take_var);
    // `--version` and the like need no look at the caller.
    let parent = matches!(invocation, Ok(Invocation::StartSession(_)) | Err(_)).then(Parent::find);
    let loaded = Settings::load(&subject(&invocation, parent.as_ref()));
    output::set_panic_form(&loaded.settings);
    let text = match invocation {
        Ok(Invocation::Version) => official::version(&loaded.settings.reported_version),
        Ok(Invocation::Installed) => official::INSTALLED.to_owned(),
        Ok(Invocation::Help) => help_text(&loaded.settings),
        Ok(Invocation::Manual) => manual::manual(),
        Ok(Invocation::UnknownOperation(word)) => {
            if io::stderr().is_terminal() {
                let _ = io::stderr().write_all(&output::failure_line(&loaded.settings, sentences::COMMANDS));
            }
            official::unknown_operation(&word)
        }
        Ok(Invocation::InvalidOperation) => official::INVALID_OPERATION.to_owned(),
        Ok(Invocation::StartSession(start)) => {
            if start.response_is_argument {
                process::hide_argument(RESPONSE);
            }
            return start_session(*start, loaded, parent.unwrap_or_else(Parent::find));
        }
        Err(err) => {
            let parent = parent.unwrap_or_else(Parent::find);
            return fail(&official::cannot_start(err), &loaded.settings, &parent);
        }
    };
    print(&text);
    ExitCode::SUCCESS
}

// Not a part of `main`'s frame, which everything else would pay for.
#[inline(never)]
fn start_session(start: StartSession, loaded: LoadedSettings, parent: Parent) -> ExitCode {
    let LoadedSettings { settings, warnings, set, .. } = loaded;
    if !settings.core_dumps {
        process::forbid_core_dumps();
    }
    for warning in warnings.iter().filter(|warning| !warning.is_minor) {
        let _ = io::stderr().write_all(&output::failure_line(&settings, &warning.to_string()));
    }
    process::survive_file_size_limit();
    let _log = started(logging::start(&settings, &start.session_id, output::reporter(&settings)), &settings);
    for warning in &warnings {
        tracing::warn!(%warning, "settings");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        system = std::env::consts::OS,
        arch = std::env::consts::ARCH,
        settings = set.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" "),
        is_called_by_aws_cli = parent.is_aws_cli(),
        "started"
    );
    let wire_log = wire_log::start(
        settings.wire_log.as_deref(),
        settings.wire_log_payloads,
        output::reporter(&settings),
    );
    let wire_log = started(wire_log, &settings);
    process::raise_descriptor_limit();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(err) => return fail(&official::cannot_start(err), &settings, &parent),
    };
    let recording = wire_log.as_ref().map(wire_log::Guard::recording);
    let (is_under_cli, end_settings) = (parent.is_aws_cli(), settings.clone());
    let (access, parent, style) = (None, Some(parent), Style::Official);
    let outcome = runtime.block_on(Box::pin(session::run(Run {
        start,
        access,
        settings,
        recording,
        parent,
        style,
        ports: Ports::System,
        script: None,
    })));
    // A thread that still waits for the terminal or a resolver must not delay the end.
    runtime.shutdown_background();
    ExitCode::from(passed_on(outcome.status(end_settings.exit_code), is_under_cli, &end_settings))
}

/// `--help`, with the files of this user on this system.
fn help_text(settings: &Settings) -> String {
    let file = settings::config_file(|name| std::env::var_os(name));
    let diagnostics = logging::place(settings);
    help::help(help::Files { settings: file.as_deref(), diagnostics: diagnostics.as_deref() })
}

/// The session of argv, for the sections of the settings file.
fn subject(invocation: &Result<Invocation, cli::CliError>, parent: Option<&Parent>) -> Subject {
    let Ok(Invocation::StartSession(start)) = invocation else { return Subject::default() };
    Subject {
        profile: start.profile.clone(),
        target: start.target.clone(),
        region: Some(start.region.clone()).filter(|region| !region.is_empty()),
        document: start.document().map(str::to_owned),
        host: start.parameter("host").map(str::to_owned),
        port: start.parameter("portNumber").map(str::to_owned),
        caller: parent.and_then(Parent::name).map(str::to_owned),
    }
}

/// The exit status for the caller: 0 for the AWS CLI, which prints our arguments, a token among them, when it is another
/// (smp#60). That is reported on stderr.
fn passed_on(status: u8, is_under_cli: bool, settings: &Settings) -> u8 {
    if status == 0 || !is_under_cli {
        return status;
    }
    let _ = io::stderr().write_all(&output::failure_line(settings, &sentences::status_withheld(status)));
    0
}

/// Starts the parts that can be started, and reports the others on stderr.
fn started<T>(outcome: Result<Option<T>, String>, settings: &Settings) -> Option<T> {
    outcome.unwrap_or_else(|reason| {
        let _ = io::stderr().write_all(&output::failure_line(settings, &reason));
        None
    })
}

/// The runtime. It panics where there are no descriptors for its signals, so these are looked for first.
fn runtime() -> io::Result<Runtime> {
    process::check_descriptors()?;
    Builder::new_current_thread().enable_all().build()
}

/// Prints a failure on stdout, where callers look for it. The status is 0, as the official plugin's, unless the settings
/// ask for another and the caller can take it ([`passed_on`]).
fn fail(text: &str, settings: &Settings, parent: &Parent) -> ExitCode {
    print(text);
    let status = if settings.exit_code { OWN_FAILURE } else { 0 };
    ExitCode::from(passed_on(status, parent.is_aws_cli(), settings))
}

/// A closed stdout is ignored.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Position of the response in argv, if it is not in the environment.
const RESPONSE: usize = 1;
