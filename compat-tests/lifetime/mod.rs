//! Lifetime of a session, seen from outside: signals, a dead parent, a lost network, deadlines, pipes and
//! terminals. Each test looks at what must not be left behind: a process, an open session at the service, a
//! port, a socket file, a terminal in raw mode.
//!
//! That a panic restores the terminal is tested in `src/term/tests/raw.rs`: nothing from outside provokes one.

mod callers;
mod deadlines;
mod foreground;
mod killed_aws;
mod kills;
mod processes;
mod proxy_command;
mod scripts;
mod shell;
mod signals;
mod terminal;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use ssm_sim::agent::Generation;
use ssm_sim::{SessionState, Sim};

use crate::harness::api::Started;
use crate::harness::net::Server;
use crate::harness::output::Output;
use crate::harness::sim::{sim, sim_with_agent};
use crate::harness::{PATIENCE, World, is_root, required};

/// The kinds of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A shell.
    Shell,
    /// An interactive command.
    Command,
    /// A command without a terminal.
    Batch,
    /// The connection is stdin and stdout.
    Stdio,
    /// Forwarding, many connections.
    Mux,
    /// Forwarding with an old agent.
    Basic,
}

impl Kind {
    fn sim(self) -> Sim {
        if self == Kind::Basic { sim_with_agent(Generation::V3_0) } else { sim() }
    }

    /// Starts a session that stays up; `far` is where forwarded connections go.
    #[track_caller]
    fn start(self, sim: &Sim, far: &Server) -> Started {
        let endpoint = sim.endpoint();
        match self {
            Kind::Shell => Started::at(&endpoint, None, json!({})),
            Kind::Command => {
                let command = format!("echo {UP}; exec sleep 1000");
                Started::at(&endpoint, Some("AWS-StartInteractiveCommand"), json!({"command": [command]}))
            }
            Kind::Batch => {
                let command = format!("sh -c 'echo {UP}; exec sleep 1000'");
                batch(sim, &command)
            }
            Kind::Stdio => {
                let port = far.port().to_string();
                Started::at(&endpoint, Some("AWS-StartSSHSession"), json!({"portNumber": [port]}))
            }
            Kind::Mux | Kind::Basic => Started::port(&endpoint, far.port(), 0),
        }
    }

    /// Waits until the session is up.
    #[track_caller]
    fn wait_until_up(self, output: &Output) {
        match self {
            Kind::Shell => output.wait_for(prompt()),
            Kind::Command | Kind::Batch => output.wait_for(UP),
            Kind::Stdio => output.wait_for(GREETING),
            Kind::Mux => output.wait_for("Waiting for connections...\n".trim_end()),
            Kind::Basic => output.wait_for(" opened for sessionId "),
        };
    }

    /// Returns whether a terminal is at the other end.
    fn has_terminal(self) -> bool {
        matches!(self, Kind::Shell | Kind::Command)
    }
}

/// A server that greets and then keeps the connection, for [`Kind::Stdio`].
fn greeter() -> Server {
    Server::start(|mut stream| {
        if stream.write_all(GREETING.as_bytes()).is_ok() {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    })
}

/// A command without a terminal, its streams and exit code apart.
#[track_caller]
fn batch(sim: &Sim, command: &str) -> Started {
    let parameters = json!({"command": [command], "separateOutputStream": ["True"]});
    Started::at(&sim.endpoint(), Some("AWS-StartNonInteractiveCommand"), parameters)
}

/// A command on a remote terminal, run by a shell.
#[track_caller]
fn interactive(sim: &Sim, command: &str) -> Started {
    Started::at(&sim.endpoint(), Some("AWS-StartInteractiveCommand"), json!({"command": [command]}))
}

/// `command` as the child of an AWS CLI that waits for it: a stand-in that does with the plugin what the real one does,
/// but needs no second to start.
fn under_the_cli(world: &World, command: &Command) -> Command {
    let script = world.path("aws");
    std::fs::write(&script, WAITING_CLI).expect("write the stand-in");
    let mut cli = world.command(required("/usr/bin/python3"));
    cli.arg("-IS").arg(&script).arg(command.get_program()).args(command.get_args());
    cli.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // As bash, zsh and ksh have it.
    cli.env("_", &script);
    cli
}

/// The CLI ignores what is typed for the remote while it waits.
const WAITING_CLI: &str = "import signal, subprocess, sys
for number in signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP:
    signal.signal(number, signal.SIG_IGN)
subprocess.check_call(sys.argv[1:])
";

/// `command` as the child of a shell that runs `then` after it.
fn under(world: &World, command: &Command, then: &str) -> Command {
    let mut parent = world.command("/bin/sh");
    parent.args(["-c", &format!("\"$@\"; {then}"), "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            parent.env(name, value);
        }
    }
    parent
}

/// The session is over at the service within [`PROMPT`].
#[track_caller]
fn assert_ended(sim: &Sim, id: &str) {
    let ended = sim.wait_for(PROMPT, |sessions| {
        sessions.iter().any(|session| session.id == id && session.state == SessionState::Ended)
    });
    assert!(ended, "the session is still open: {:#?}", sim.session(id));
}

/// Prompt of `sh`.
fn prompt() -> &'static str {
    if is_root() { "# " } else { "$ " }
}

/// First output of a command.
const UP: &str = "the-command-is-up";

/// First output of a server.
const GREETING: &str = "SSH-2.0-greeter\r\n";

/// An end is promised within 2 s; the rest is for a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(5);
const _: () = assert!(PROMPT.as_secs() < PATIENCE.as_secs());
