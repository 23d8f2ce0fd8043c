//! The command that runs while ports are forwarded.
//!
//! It has our standard streams and our process group, so that it is in the foreground of our terminal, whose keys reach it
//! without us. Other signals are passed on to it. When we are killed, the system kills it.

use std::ffi::{OsStr, OsString};
use std::process::ExitStatus;

use tokio::process::{Child, Command};

#[cfg(unix)]
use crate::commands::failure::SIGNAL_BASE;
use crate::process::{self, Signal, Tie};
use crate::session::{Bound, OWN_FAILURE};

/// A running command.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    _tie: Tie,
}

impl Running {
    /// Starts it with the ports in its environment (`PORT`, `PORT_1`, …, `SOCKS_PORT`) and in place of `{port}`,
    /// `{port_1}`, … in its arguments.
    ///
    /// # Errors
    /// A phrase about why it cannot be started.
    pub(super) fn start(words: &[OsString], bound: &[Bound]) -> Result<Running, String> {
        let variables = variables(bound);
        let words: Vec<OsString> = words.iter().map(|word| filled(word, &variables)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err("missing COMMAND".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let spawned = process::spawn_tied(&mut command);
        let spawned = spawned.map(|(child, tie)| Running { child, _tie: tie });
        spawned.map_err(|error| format!("cannot start {}: {error}", program.to_string_lossy()))
    }

    /// Its process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Returns its status, 128 and the signal's number if one has ended it.
    pub(super) async fn wait(&mut self) -> u8 {
        match self.child.wait().await {
            Ok(status) => status_of(status),
            Err(_) => OWN_FAILURE,
        }
    }
}

/// Passes a signal on to the command. Returns true: the tunnels stay until the command has ended.
pub(super) fn handle_signal(id: Option<u32>, signal: Signal) -> bool {
    let is_key = matches!(signal, Signal::Interrupt | Signal::Quit | Signal::Suspend);
    let is_passed_by_terminal = (is_key && process::is_in_foreground()) || signal == Signal::WindowChanged;
    if let Some(id) = id.filter(|_| !is_passed_by_terminal) {
        process::pass_on(id, signal);
    }
    if signal == Signal::Suspend {
        process::stop();
    }
    true
}

fn status_of(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(number) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return SIGNAL_BASE.saturating_add(u8::try_from(number).unwrap_or_default());
    }
    match status.code() {
        // Windows has statuses of 32 bits: a failure must not become 0.
        Some(code) if code != 0 && code & 0xff == 0 => OWN_FAILURE,
        Some(code) => (code & 0xff) as u8,
        None => OWN_FAILURE,
    }
}

fn variables(bound: &[Bound]) -> Vec<(String, String)> {
    let value = |bound: &Bound| bound.port.map_or_else(|| bound.address.clone(), |port| port.to_string());
    let ports = bound.iter().filter(|bound| bound.destination.is_some()).map(value);
    let mut variables: Vec<(String, String)> =
        ports.enumerate().map(|(index, value)| (format!("PORT_{}", index + 1), value)).collect();
    let socks = bound.iter().find(|bound| bound.destination.is_none()).map(value);
    let first = variables.first().map(|(_, value)| value.clone()).or_else(|| socks.clone());
    variables.extend(first.map(|value| ("PORT".to_owned(), value)));
    variables.extend(socks.map(|value| ("SOCKS_PORT".to_owned(), value)));
    variables
}

/// The word with each variable in braces and small letters replaced by its value.
fn filled(word: &OsStr, variables: &[(String, String)]) -> OsString {
    let Some(text) = word.to_str() else { return word.to_owned() };
    let filled = variables.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{}}}", name.to_ascii_lowercase()), value)
    });
    filled.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_for_a_command() {
        let bound = |port: Option<u16>, destination: Option<&str>| Bound {
            address: "/tmp/db".to_owned(),
            port,
            destination: destination.map(str::to_owned),
        };
        let all = [bound(Some(1), Some("a:1")), bound(None, Some("b:1")), bound(Some(3), None)];
        let variables = variables(&all);
        let fill = |word: &str| filled(OsStr::new(word), &variables).into_string().unwrap();
        assert_eq!(
            fill("h={port} {port_1} {port_2} {socks_port} {port_3} {x}"),
            "h=1 1 /tmp/db 3 {port_3} {x}"
        );
    }
}
