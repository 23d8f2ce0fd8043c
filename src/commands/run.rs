//! `run`: one command, with its own exit status.
//!
//! AWS-StartNonInteractiveCommand splits its `command` as a shell does and starts the first word, without a shell and
//! without stdin. So each argument is quoted. A POSIX shell in between, which the program replaces, turns a program that is
//! not there into the status 127 that scripts expect; the agent itself would report 1. A signal's effect comes back as -1,
//! whatever the signal was.
//!
//! | agent or region | streams | status |
//! |---|---|---|
//! | agents from 3.1.1511.0 on | separate | the agent's |
//! | older agents: one file for both streams, which the shell in between sees | together | printed behind a mark |
//! | a region without the document | together, in a shell session | printed behind a mark |
//!
//! stdin is not passed in any of them: the document has none, a terminal is not 8-bit clean, and a parameter would show it
//! in the audit log.

use std::io::IsTerminal as _;

use uuid::Uuid;

use super::connect::{Connection, signal_status};
use super::failure::{Failure, refused, report};
use super::request::Run;
use crate::aws::ErrorKind;
use crate::quote;
use crate::session::{self, OWN_FAILURE, Outcome, Script};
use crate::settings::{Settings, When};

/// Runs `run`. Returns the command's exit status.
pub(super) async fn run(options: &Run, settings: &Settings) -> Result<u8, Failure> {
    let words = words(options)?;
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    if connection.is_windows == Some(true) {
        return Err(windows());
    }
    if settings.status != When::Never && has_input() {
        report(settings, "run: stdin is not passed to the command");
    }
    let mark = Uuid::new_v4().simple().to_string();
    let parameters = session::command_parameters(&mark, &words);
    let request = connection.request(Some(session::COMMAND_DOCUMENT), Some(parameters));
    let outcome = match connection.try_run(request, Script::untyped(&mark)).await? {
        Ok(outcome) => outcome,
        Err(error) if error.kind == ErrorKind::UnknownDocument => {
            // Its shell would take the line for input, and wait for more.
            if connection.look_up_windows().await {
                return Err(windows());
            }
            if settings.status != When::Never {
                report(
                    settings,
                    &format!("run: {error}; using a shell instead, which does not keep stderr separate"),
                );
            }
            let line = typed_line(&mark, &words)?;
            let request = connection.request(None, None);
            connection.try_run(request, Script::typed(line, &mark)).await?.map_err(|error| refused(&error))?
        }
        Err(error) => return Err(refused(&error)),
    };
    // An id is not looked up before the session, which would cost each run a call and a permission.
    if outcome.has_powershell_error && outcome.exit_code != Some(0) && connection.look_up_windows().await {
        return Err(windows());
    }
    if is_ended_by_signal(&outcome) {
        report(settings, "run: the remote command was ended by a signal");
    }
    Ok(status(&outcome))
}

/// Returns whether a signal has ended the remote command that we have not passed on: the agent reports Go's -1 then.
fn is_ended_by_signal(outcome: &Outcome) -> bool {
    outcome.exit_code.is_some_and(|code| code < 0) && signal_status(outcome).is_none()
}

fn windows() -> Failure {
    Failure::new("the target runs Windows, which has no POSIX shell")
        .with_advice("use session-manager-plugin shell, or aws ssm send-command")
}

fn words(options: &Run) -> Result<Vec<&str>, Failure> {
    let words = options.command.iter().map(|word| {
        let word =
            word.to_str().ok_or_else(|| Failure::usage("an argument of COMMAND is not valid UTF-8"))?;
        if word.contains('\0') {
            Err(Failure::usage("an argument of COMMAND contains a NUL character"))
        } else {
            Ok(word)
        }
    });
    words.collect()
}

/// A line for any shell. The mark is in two parts, so that the line's echo is not taken for it.
///
/// # Errors
/// When a terminal would cut the line off.
fn typed_line(mark: &str, words: &[&str]) -> Result<String, Failure> {
    let (first, second) = mark.split_at(mark.len() / 2);
    let all = ["exec", "sh", "-c", TYPED_WRAPPER, "sh", first, second];
    let line = quote::join(all.into_iter().chain(words.iter().copied())) + "\n";
    if line.len() > MAX_LINE {
        return Err(Failure::new(format!(
            "the command is too long for a shell session: together with the wrapper that the plugin adds, its line has {} bytes, but a terminal may accept at \
             most {MAX_LINE}",
            line.len()
        )));
    }
    if words.iter().any(|word| word.chars().any(|char| char.is_control())) {
        return Err(Failure::new(
            "COMMAND contains a line break or another control character, which cannot be sent through a shell session",
        ));
    }
    Ok(line)
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

/// Runs the program in a terminal, which passes bytes as they are from then on.
const TYPED_WRAPPER: &str = r#"trap : INT; stty -echo -opost 2>/dev/null; m=$1$2; shift 2; printf "%s<" "$m"; "$@" </dev/null; printf "%s>%d;" "$m" $?"#;
/// Bytes of a line that terminals take at once, MAX_CANON on macOS; Linux takes 4,095.
const MAX_LINE: usize = 1024;
/// Status of a program that SIGPIPE has ended.
const BROKEN_PIPE: u8 = 141;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Signal;

    #[test]
    fn statuses() {
        let outcome = |exit_code, signal| Outcome { is_well: true, exit_code, signal, ..Outcome::default() };
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
        let words = ["printf", r"%s\n", "a b", "$c"];
        let line = typed_line("abcd", &words).unwrap();
        assert!(line.starts_with("exec sh -c 'trap "), "{line}");
        assert!(line.ends_with(" sh ab cd printf '%s\\n' 'a b' '$c'\n"), "{line}");
        assert!(typed_line("abcd", &["x".repeat(2000).as_str()]).is_err());
        assert!(typed_line("abcd", &["a\nb"]).is_err());
    }
}
