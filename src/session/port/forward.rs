//! Ports and a SOCKS proxy that outlive their sessions, without a session of argv: what the command `forward` runs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::core::{DestinationId, Policy};
use super::listen::{ListenError, Listener, Ports, SocksListener};
use super::mux::{self, Run};
use super::pump::PumpEvent;
use super::signals::SignalEffect;
use crate::destination::Destination;
use crate::output::{Console, Kind, Status, Style};
use crate::process::Signal;
use crate::session::access::Access;
use crate::session::ending::End;
use crate::session::opening::link_config;
use crate::session::shutdown::Outcome;
use crate::session::starter::Starter;
use crate::session::state::Front;
use crate::session::timer::sleep_until;
use crate::session::watch::Watch;
use crate::settings::Settings;
use crate::wire_log::Recording;

/// Ports and proxies to forward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub ports: Vec<Forwarded>,
    /// Port of a SOCKS proxy on loopback; 0 is any free one.
    pub socks: Option<u16>,
}

/// A local address and its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forwarded {
    listen: ListenOn,
    destination: Destination,
}

/// A local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenOn {
    /// A port, 0 for any free one, on an address or a name; `None`: as the settings say.
    Port(Option<String>, u16),
    /// A socket file.
    File(PathBuf),
}

/// Address of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The address or the file, for people.
    pub address: String,
    pub port: Option<u16>,
    /// `None` for the SOCKS proxy.
    pub destination: Option<String>,
}

/// A port that cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenFailure {
    /// Index in [`Forwarding::ports`]; `None` for the SOCKS proxy.
    pub index: Option<usize>,
    pub port: Option<u16>,
    pub reason: String,
}

/// Listening ports, and the sessions behind them.
pub(crate) struct PortForwarder {
    run: Run,
    bound: Vec<Bound>,
}

impl Forwarded {
    /// A port that leads to a port of a host, as the instance names it.
    ///
    /// # Errors
    /// A phrase about a destination that the session documents refuse.
    pub(crate) fn new(listen: ListenOn, host: &str, port: u16) -> Result<Forwarded, String> {
        let destination = Destination::new(host, port).map_err(|error| error.to_string())?;
        Ok(Forwarded { listen, destination })
    }

    async fn bind(&self, settings: &Settings) -> Result<Listener, ListenFailure> {
        let bound = match &self.listen {
            ListenOn::Port(Some(host), port) if host.is_empty() || host == "*" => {
                match Listener::bind_port(&Ports::System, *port, Some(EVERYWHERE)).await {
                    Ok(listener) => Ok(listener),
                    // Without IPv6.
                    Err(_) => Listener::bind_port(&Ports::System, *port, Some(EVERYWHERE_IPV4)).await,
                }
            }
            ListenOn::Port(Some(host), port) => Listener::bind_port(&Ports::System, *port, Some(host)).await,
            ListenOn::Port(None, port) => {
                Listener::bind_port(&Ports::System, *port, settings.local_host.as_deref()).await
            }
            ListenOn::File(path) => Listener::bind_file(&path.to_string_lossy()),
        };
        bound.map_err(|error| {
            let port = match self.listen {
                ListenOn::Port(_, port) => Some(port),
                ListenOn::File(_) => None,
            };
            ListenFailure { index: None, port, reason: with_owner(&error) }
        })
    }
}

/// The error, with the process that has the port if it is in use.
fn with_owner(error: &ListenError) -> String {
    error.owner().map_or_else(|| error.to_string(), |owner| format!("{error}; {owner}"))
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.destination.as_deref().unwrap_or("SOCKS and HTTP proxy");
        write!(f, "{} -> {destination}", self.address)
    }
}

impl PortForwarder {
    /// Listens on all ports. `request` names the target of the sessions; connections `wait` for it if it is not connected.
    ///
    /// # Errors
    /// The first port that cannot be listened on; then none is.
    pub(crate) async fn listen(
        forwarding: &Forwarding,
        access: &Access,
        request: Value,
        settings: Settings,
        recording: Option<Recording>,
        wait: Option<Duration>,
    ) -> Result<PortForwarder, ListenFailure> {
        let other = |reason: String| ListenFailure { index: None, port: None, reason };
        let mut listening = Vec::new();
        for (index, port) in forwarding.ports.iter().enumerate() {
            let listener = port.bind(&settings).await;
            listening.push(listener.map_err(|failure| ListenFailure { index: Some(index), ..failure })?);
        }
        let socks = match forwarding.socks {
            Some(port) => {
                let socks = SocksListener::bind(&Ports::System, port, !settings.any_user);
                let failure = |reason: String| ListenFailure { index: None, port: Some(port), reason };
                Some(socks.map_err(|error| failure(with_owner(&error)))?)
            }
            None => None,
        };
        let starter = Starter {
            aws: Arc::clone(&access.aws),
            network: Arc::clone(&access.network),
            config: link_config(&settings, recording),
            request: Arc::new(request),
        };
        let console = Console::open(&settings, Style::Plain).map_err(|error| other(error.to_string()))?;
        let watch = Watch::start(None).map_err(|error| other(error.to_string()))?;
        let starter = Some(starter);
        let mut front = Front { id: String::new(), settings, console, watch, starter, ports: Ports::System };
        let policy = Policy { first_wait: wait, ..mux::policy(&front.settings) };
        let (mut pump, is_guarded) = (mux::new_pump(&front, policy), !front.settings.any_user);
        let mut bound = Vec::new();
        let mut known: Vec<(&Destination, DestinationId)> = Vec::new();
        for (port, listener) in forwarding.ports.iter().zip(listening) {
            let destination = &port.destination;
            bound.push(Bound {
                address: listener.address(),
                port: listener.port(),
                destination: Some(destination.to_string()),
            });
            let number = known.iter().find(|(known, _)| *known == destination).map(|(_, number)| *number);
            let number = number.unwrap_or_else(|| pump.add_destination(Some(destination.clone()), policy));
            known.push((destination, number));
            mux::report_taken(&mut front.console, &listener);
            pump.listeners.add(number, listener, is_guarded);
        }
        if let Some(socks) = socks {
            let port = socks.port();
            let address = format!("127.0.0.1:{}", port.unwrap_or_default());
            bound.push(Bound { address, port, destination: None });
            pump.listeners.add_socks(socks);
        }
        let run = Run { front, pump, main: None, has_accepted: false, sessions: 0 };
        Ok(PortForwarder { run, bound })
    }

    /// Listening addresses: the ports in their order, then the SOCKS proxy.
    pub(crate) fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Starts a session for each destination and waits until all are ready; for a target that is not connected, up to
    /// `wait`.
    ///
    /// # Errors
    /// The reason why one could not be started, or the signal that came while they started. All are ended then.
    pub(crate) async fn start_sessions(
        mut self,
        wait: Option<Duration>,
    ) -> Result<PortForwarder, StartFailure> {
        self.run.pump.start_all();
        let mut missing: BTreeSet<String> =
            self.bound.iter().filter_map(|bound| bound.destination.clone()).collect();
        let deadline = wait.map(|wait| Instant::now() + wait);
        let failure = loop {
            if missing.is_empty() {
                return Ok(self);
            }
            let Run { front: Front { watch, .. }, pump, .. } = &mut self.run;
            let reason = tokio::select! {
                event = pump.next() => match event {
                    PumpEvent::Report(Status::SessionStarted { destination, .. }) => {
                        missing.retain(|name| Some(name) != destination.as_ref());
                        None
                    }
                    PumpEvent::Report(Status::Failure { text }) => Some(text),
                    PumpEvent::Report(Status::Message { text, .. }) if deadline.is_none() => Some(text),
                    PumpEvent::Report(Status::SessionEnded { reason, .. }) => Some(reason),
                    _ => None,
                },
                () = sleep_until(deadline) => Some("the sessions were not ready in time".to_owned()),
                signal = watch.recv() => match signal {
                    Signal::Usr1 | Signal::WindowChanged | Signal::Continue | Signal::Suspend => None,
                    signal => break StartFailure::Signal(signal),
                },
            };
            // Without a connection that waits, no other attempt is made.
            pump.start_all();
            if let Some(reason) = reason {
                break StartFailure::Reason(reason);
            }
        };
        self.run.close().finish(End::Finished).await;
        Err(failure)
    }

    /// Prints a line for each port and `ready`, on stdout or on stderr; with JSON, an event for each on stderr.
    pub(crate) fn announce(&mut self, is_on_stdout: bool) {
        let Run { front: Front { console, .. }, .. } = &mut self.run;
        for Bound { address, port, destination } in &self.bound {
            let socket = port.is_none().then(|| address.clone());
            let kind = if destination.is_some() { Kind::Forward } else { Kind::Socks };
            let status =
                Status::Ready { kind, session: None, port: *port, socket, destination: destination.clone() };
            console.note_json(&status);
        }
        let mut text: String = self.bound.iter().map(|bound| format!("{bound}\n")).collect();
        text += READY;
        if is_on_stdout {
            console.write(text.as_bytes());
        } else if !console.is_json() {
            console.write_error(text.as_bytes());
        }
    }

    /// Forwards until `until` completes or `on_signal` returns false for a signal.
    pub(crate) async fn run(
        mut self,
        mut on_signal: impl FnMut(Signal) -> bool,
        until: impl Future<Output = ()>,
    ) -> Outcome {
        let on_signal = |signal: Signal, _: &mut Console| match signal {
            Signal::Usr1 => SignalEffect::Report,
            signal if on_signal(signal) => SignalEffect::Nothing,
            _ => SignalEffect::End,
        };
        let end = self.run.run(on_signal, until).await;
        let mut closing = self.run.close();
        closing.ignores_stdout_errors = true;
        let (is_well, signal) = closing.finish(end).await;
        Outcome { is_well, signal, ..Outcome::default() }
    }
}

/// Reason that the sessions of [`PortForwarder::start_sessions`] were not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartFailure {
    Reason(String),
    Signal(Signal),
}

/// The last line that is printed once all ports listen.
const READY: &str = "ready\n";
/// All addresses, in both families where the system has IPv6.
const EVERYWHERE: &str = "::";
const EVERYWHERE_IPV4: &str = "0.0.0.0";
