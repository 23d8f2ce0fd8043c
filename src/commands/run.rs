//! `run`: one command, with separate streams and its own exit status.
//!
//! AWS-StartNonInteractiveCommand splits its `command` as a shell does and starts the first word, without a shell. So each
//! argument is quoted. A POSIX shell in between, which the program replaces, turns a program that is not there into the
//! status 127 that scripts expect; the agent itself would report 1. A signal's effect comes back as -1, whatever the
//! signal was.

use std::io::IsTerminal as _;

use serde_json::json;

use super::connect::{Connection, signal_status};
use super::failure::{Failure, OWN_FAILURE, report};
use super::grammar::Run;
use super::quote;
use crate::output::Style;
use crate::session::Outcome;
use crate::settings::{Settings, When};

/// Runs `run`. Returns the command's exit status.
pub(super) async fn run(options: &Run, settings: &Settings) -> Result<u8, Failure> {
    let command = command_line(options)?;
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    if settings.status != When::Never && has_input() {
        report(settings, "run: stdin is not passed to the command");
    }
    let parameters = json!({ "command": [command], "separateOutputStream": ["True"] });
    let request = connection.request(Some(DOCUMENT), Some(parameters));
    let outcome = connection.run(request, Style::Plain).await?;
    Ok(status(&outcome))
}

fn command_line(options: &Run) -> Result<String, Failure> {
    let words = options.command.iter().map(|word| {
        let word = word.to_str().ok_or_else(|| Failure::usage("an argument of the command is not UTF-8"))?;
        if word.contains('\0') { Err(Failure::usage("an argument holds a NUL")) } else { Ok(word) }
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    Ok(quote::join(WRAPPER.into_iter().chain(words)))
}

/// The command's status; without one, that of the signal that ended us or of a failure.
fn status(outcome: &Outcome) -> u8 {
    match outcome.exit_code {
        Some(code @ 0..=255) => code as u8,
        // Ended by a signal: ours, if we have passed one on.
        Some(_) => signal_status(outcome).unwrap_or(OWN_FAILURE),
        None if outcome.is_reader_gone => BROKEN_PIPE,
        None => signal_status(outcome).unwrap_or(OWN_FAILURE),
    }
}

/// Returns whether something other than a terminal or nothing is on stdin.
fn has_input() -> bool {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return false;
    }
    crate::term::stdin_has_data()
}

const DOCUMENT: &str = "AWS-StartNonInteractiveCommand";
/// Replaces itself by the program: status 127 when there is none, 126 when it cannot be run.
const WRAPPER: [&str; 4] = ["sh", "-c", r#"exec "$@""#, "sh"];
/// Status of a program that SIGPIPE has ended.
const BROKEN_PIPE: u8 = 141;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Signal;

    #[test]
    fn statuses() {
        let outcome = |exit_code, signal| Outcome { is_well: true, exit_code, signal, is_reader_gone: false };
        for (code, signal, expected) in [
            (Some(0), None, 0),
            (Some(3), None, 3),
            (Some(127), None, 127),
            (Some(-1), None, 255),
            (Some(-1), Some(Signal::Interrupt), 130),
            (None, Some(Signal::Terminate), 143),
            (None, None, 255),
            (Some(0), Some(Signal::Interrupt), 0),
        ] {
            assert_eq!(status(&outcome(code, signal)), expected, "{code:?} {signal:?}");
        }
        assert_eq!(status(&Outcome { is_reader_gone: true, ..Outcome::default() }), 141);
    }

    #[test]
    fn each_argument_stays_one() {
        let command = ["printf", r"%s\n", "a b", "$c"].map(Into::into).to_vec();
        let line = command_line(&Run { command, ..Run::default() }).unwrap();
        assert_eq!(line, r#"sh -c 'exec "$@"' sh printf '%s\n' 'a b' '$c'"#);
    }
}
