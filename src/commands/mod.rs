//! Commands of our own: sessions without the AWS CLI.
//!
//! | command | module |
//! |---|---|
//! | `start-session`, `shell` | `shell` |
//! | `ssh` | `ssh`, `push_key`, `identity`, `ssh_agent`, `agent_socket` |
//! | `ssh-config` | `ssh_config` |
//! | `run` | `run` |
//! | `forward` | `forward` |
//! | `doctor` | `report` |
//! | `completions`, `help`, `-V` | `usage` |
//!
//! ```text
//! main ─▶ usage (words to a [`Request`]) ─▶ one module per command ─▶ connect (target, StartSession) ─▶ session
//! ```
//!
//! The grammar, from which help and completion come too, is in `grammar`. A command shares nothing with the AWS CLI's call
//! ([`crate::cli`]) except the session that it starts, and that call never comes here: [`is_command`] compares the first
//! argument with a list of names, and nothing else of this module runs.

#[cfg(unix)]
mod agent_socket;
mod connect;
mod failure;
mod forward;
mod grammar;
mod identity;
mod parameters;
mod push_key;
mod report;
mod request;
mod run;
mod runtime;
mod shell;
mod ssh;
#[cfg(unix)]
mod ssh_agent;
mod ssh_config;
mod target;
mod usage;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::process::ExitCode;

use self::failure::{Failure, USAGE};
use self::request::{Common, Request};
use self::runtime::{Runtime, runtime, subject};
pub(crate) use self::usage::CommandManual;
use crate::settings::{Forwards, LoadedSettings, Settings, Subject, When};
use crate::{aws, logging, output, process};

/// Returns whether a first argument names one of these commands.
pub(crate) fn is_command(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| grammar::NAMES.contains(&word))
}

/// Returns the commands with their meanings in one line.
pub(crate) fn list() -> Vec<(String, String)> {
    usage::list()
}

/// Returns the commands for the manual page.
pub(crate) fn manual() -> Vec<CommandManual> {
    usage::manual()
}

/// Returns the options of all commands, with their meanings.
pub(crate) fn common_options() -> Vec<(String, String)> {
    usage::common_options()
}

/// Runs the command that the arguments (without the program's name) ask for.
#[inline(never)]
pub(crate) fn main(words: Vec<OsString>) -> ExitCode {
    let request = match usage::parse(words) {
        Ok(request) => request,
        Err(usage::Answer::Text(text)) => {
            report::print(&text);
            return ExitCode::SUCCESS;
        }
        Err(usage::Answer::Report(options)) => return report::run(options),
        Err(usage::Answer::Mistake(line)) => {
            let _ = writeln!(io::stderr(), "{line}");
            return ExitCode::from(USAGE);
        }
    };
    let (name, common) = (request.name(), request.common().clone());
    let fail = |failure: Failure| failure.end(name, &settings(&common, &Subject::default()).settings);
    process::raise_descriptor_limit();
    match (with_tunnel(request), runtime()) {
        (Ok(request), Ok(runtime)) => run_request(&request, runtime),
        (Err(failure), _) => fail(failure),
        (_, Err(error)) => fail(Failure::new(error.to_string())),
    }
}

fn run_request(request: &Request, runtime: Runtime) -> ExitCode {
    let (name, common) = (request.name(), request.common());
    let target = request.target().map(str::to_owned);
    let subject = subject(common.profile.clone(), common.region.clone(), target);
    let loaded = settings(common, &runtime.block_on(subject));
    let settings = &loaded.settings;
    output::set_panic_form(settings);
    if !settings.core_dumps {
        process::forbid_core_dumps();
    }
    process::survive_file_size_limit();
    let log = match common.verbose {
        0 => logging::start(settings, name, output::reporter(settings)),
        verbosity => logging::to_stderr(verbosity, output::log_form(settings)).map(Some),
    };
    let _log = log.unwrap_or_else(|reason| {
        failure::report(settings, &reason);
        None
    });
    for warning in loaded.warnings.iter().filter(|warning| !warning.is_minor) {
        failure::report(settings, &warning.to_string());
    }
    let ended = runtime.block_on(dispatch(request, &loaded));
    // A thread that still waits for the terminal or a resolver must not delay the end.
    runtime.shutdown_background();
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.end(name, settings),
    }
}

/// The request with the arguments of the tunnel that it names.
fn with_tunnel(request: Request) -> Result<Request, Failure> {
    match request {
        Request::Forward(options) => forward::with_tunnel(options).map(Request::Forward),
        request => Ok(request),
    }
}

async fn dispatch(request: &Request, loaded: &LoadedSettings) -> Result<u8, Failure> {
    let settings = &loaded.settings;
    match request {
        Request::StartSession(options) => shell::start_session(options, settings).await,
        Request::Shell(options) => shell::shell(options, settings).await,
        Request::Ssh(options) => ssh::run(options, settings).await,
        Request::SshConfig(options) => {
            // A misspelt name would be found out by the first ssh only.
            if let Some(profile) = &options.common.profile
                && let Ok(files) = aws::profiles(Some(profile)).await
            {
                connect::check_profile(profile, &files)?;
            }
            report::print(&ssh_config::block(options)?);
            Ok(0)
        }
        Request::Run(options) => run::run(options, settings).await,
        Request::Forward(options) => forward::run(options, settings).await,
    }
}

/// The settings of the environment and the file, under the options of the command line.
fn settings(common: &Common, subject: &Subject) -> LoadedSettings {
    let mut loaded = Settings::load(subject);
    let settings = &mut loaded.settings;
    settings.status = match (common.json, common.quiet, common.verbose) {
        (true, _, _) => When::Json,
        (_, true, _) => When::Never,
        (_, _, 1..) => When::Always,
        _ => settings.status,
    };
    // Additional ports are `forward`'s to open.
    (settings.forward, settings.socks, settings.restart) = (Forwards::default(), None, false);
    loaded
}
