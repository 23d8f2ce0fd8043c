//! `session-manager-plugin`: argv in, exit status out.

use std::io::{self, Write};
use std::process::ExitCode;

use session_manager_plugin::cli::{self, Invocation};
use session_manager_plugin::settings::{self, Settings};
use session_manager_plugin::{notice, term};

fn main() -> ExitCode {
    // Before any thread exists: the response is taken out of the environment here.
    let invocation = cli::parse(std::env::args_os(), term::take_var);
    let text = match invocation {
        Ok(Invocation::Version) => notice::version(),
        Ok(Invocation::Installed) => notice::INSTALLED.to_owned(),
        Ok(Invocation::Help) => settings::help(),
        Ok(Invocation::UnknownOperation(word)) => notice::unknown_operation(&word),
        Ok(Invocation::InvalidOperation) => notice::INVALID_OPERATION.to_owned(),
        Ok(Invocation::StartSession(_start)) => String::new(),
        Err(err) => return fail(&notice::cannot_start(err)),
    };
    print(&text);
    ExitCode::SUCCESS
}

/// Says what went wrong on stdout, where callers look for it. The status is 0, as the official
/// plugin's, unless the settings ask for it: the AWS CLI prints our argv when it is another.
fn fail(text: &str) -> ExitCode {
    print(text);
    let (settings, _) = Settings::from_env(|name| std::env::var_os(name));
    if settings.exit_code { ExitCode::from(OWN_FAILURE) } else { ExitCode::SUCCESS }
}

/// A reader that is gone wants to know nothing more.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The plugin's own failures, when a status is asked for: ssh's number.
const OWN_FAILURE: u8 = 255;
