//! Code shared by all kinds of sessions.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::input::Handled;
use super::send::Sender;
#[cfg(unix)]
use super::shell;
use super::{AgentSpec, Document, command, port_basic, port_mux, version};

/// A running session: where the client's messages go. Dropped, it ends all it has started.
pub(super) enum Session {
    #[cfg(unix)]
    Shell(shell::Input),
    Command(command::Input),
    Mux(port_mux::Input),
    Basic(port_basic::Input),
}

impl Session {
    /// Starts what the document says. The first of `tasks` that ends ends the session, with its output.
    ///
    /// # Errors
    /// The agent's reason why the session cannot start.
    pub(super) fn start(
        spec: &AgentSpec,
        client_version: &str,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Result<Session, String> {
        match &spec.document {
            #[cfg(not(unix))]
            Document::Shell | Document::InteractiveCommand { .. } => Err(NO_PTY.to_owned()),
            #[cfg(unix)]
            Document::Shell | Document::InteractiveCommand { .. } => {
                shell::Input::start(spec, sender, tasks).map(Session::Shell)
            }
            Document::NonInteractiveCommand { command, separate_output_stream } => {
                let is_known =
                    version::compare(spec.options.agent_version(), FIRST_WITH_SEPARATE_OUTPUT).is_ge();
                let separate = *separate_output_stream && is_known;
                command::Input::start(command, separate, &spec.options, sender, tasks).map(Session::Command)
            }
            Document::PortForward { host, port, properties } => {
                if properties.contains_key("host")
                    && version::compare(spec.options.agent_version(), FIRST_WITHOUT_LOOPBACK).is_ge()
                    && is_loopback(host, *port)
                {
                    return Err(format!("Forwarding to IP address {host} is forbidden."));
                }
                let local =
                    properties.get("type").and_then(|kind| kind.as_str()) == Some("LocalPortForwarding");
                let multiplexed = local
                    && version::compare(spec.options.agent_version(), LAST_WITHOUT_MUX).is_gt()
                    && version::compare(client_version, MUX_CLIENT).is_ge();
                let destination = (host_or_localhost(host), *port);
                Ok(if multiplexed {
                    let keep_alive = version::compare(client_version, LAST_WITH_KEEP_ALIVE).is_le();
                    Session::Mux(port_mux::Input::start(
                        destination,
                        keep_alive,
                        &spec.options,
                        sender,
                        tasks,
                    ))
                } else {
                    Session::Basic(port_basic::Input::start(destination, local, &spec.options, sender, tasks))
                })
            }
            Document::Ssh { port, .. } => {
                let destination = (host_or_localhost(""), *port);
                Ok(Session::Basic(port_basic::Input::start(destination, false, &spec.options, sender, tasks)))
            }
        }
    }

    /// Takes one message of the client; waits as long as the destination takes nothing.
    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        match self {
            #[cfg(unix)]
            Session::Shell(input) => input.handle(payload_type, payload).await,
            Session::Command(input) => input.handle(payload_type, payload).await,
            Session::Mux(input) => input.handle(payload_type, payload).await,
            Session::Basic(input) => input.handle(payload_type, payload).await,
        }
    }
}

/// Returns whether one of a host's addresses is the instance itself.
fn is_loopback(host: &str, port: u16) -> bool {
    use std::net::ToSocketAddrs as _;
    (host, port).to_socket_addrs().is_ok_and(|mut addresses| addresses.any(|to| to.ip().is_loopback()))
}

fn host_or_localhost(host: &str) -> String {
    if host.is_empty() { "localhost".to_owned() } else { host.to_owned() }
}

/// Terminals are played on UNIX alone.
#[cfg(not(unix))]
const NO_PTY: &str = "Unable to start command: Failed to start pty: this simulator has none on Windows\n\n";
/// The last agent version that carries one connection at a time (client source).
const LAST_WITHOUT_MUX: &str = "3.0.196.0";
/// Earlier agents ignore the property: release notes of 3.1.1511.0.
const FIRST_WITH_SEPARATE_OUTPUT: &str = "3.1.1511.0";
/// The first agent version that forwards to loopback addresses only where the document has no `host`.
const FIRST_WITHOUT_LOOPBACK: &str = "3.3.4851.0";
/// Agent source: `muxSupportedClientVersion`.
const MUX_CLIENT: &str = "1.1.70";
/// Agent source: `muxKeepAliveDisabledAfterThisClientVersion`.
const LAST_WITH_KEEP_ALIVE: &str = "1.2.331.0";
