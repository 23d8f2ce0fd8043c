//! A forwarded port inside another program: the user's side of a pump without console, signals and settings.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use super::core::{Plan, Policy, WAIT};
use super::listen::{Listener, MemoryPorts, Ports};
use super::local::{Journal, MemoryStream};
use super::pump::{Pump, PumpEvent};
use crate::link::LinkEvent;
use crate::output::{Status, sentences};
use crate::printable::one_line;
use crate::protocol::{Event, SessionKind};
use crate::session::embedded::{self, EmbeddedError};
use crate::session::ending::{End, LeftoverSession};
use crate::session::starter::Starter;

/// Wishes for a forwarded port.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedConfig {
    /// Host and port to listen on; `None`: connections come through [`EmbeddedPort::door`] only.
    pub listen: Option<(String, u16)>,
    /// The port outlives its session.
    pub restart: bool,
    /// Largest number of sessions behind the port.
    pub sessions: usize,
    /// True if clients of other users of this machine may connect on loopback.
    pub any_user: bool,
    /// Bytes of memory that may wait for one slow reader.
    pub buffer: usize,
}

/// A forwarded port with a session that is ready.
pub(crate) struct EmbeddedPort {
    pump: Pump,
    address: Option<SocketAddr>,
    door: Door,
    /// Events from before [`EmbeddedPort::run`].
    early: Vec<Status>,
}

/// Entrance for connections from within the process.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    ports: MemoryPorts,
    port: u16,
}

impl Door {
    /// Connects to the forwarded port.
    ///
    /// # Errors
    /// `ConnectionRefused` when it is closed, `WouldBlock` when too many connections wait.
    pub(crate) fn connect(&self) -> io::Result<MemoryStream> {
        self.ports.connect(self.port)
    }
}

impl EmbeddedPort {
    /// Listens, and starts the first session. It is stopped by `stop`, not by dropping the future, which would leave a session
    /// to the service's timeout: then there is no port and no error.
    ///
    /// # Errors
    /// See [`EmbeddedError`]. The session is ended then.
    pub(crate) async fn start(
        config: &EmbeddedConfig,
        starter: Starter,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<EmbeddedPort>, EmbeddedError> {
        let tcp = match &config.listen {
            Some((host, port)) => Some(Listener::bind_port(&Ports::System, *port, Some(host)).await?),
            None => None,
        };
        let ports = MemoryPorts::default();
        let memory = Listener::bind_port(&Ports::Within(Arc::new(ports.clone())), 0, None).await?;
        let port = memory.port().unwrap_or_default();
        let Some((session, kind)) = embedded::start(&starter, stop).await? else { return Ok(None) };
        let unsupported = match kind {
            SessionKind::Port(properties) if properties.is_forwarding() => {
                (!session.link.capabilities().multiplexing).then_some(AGENT_TOO_OLD)
            }
            _ => Some(NOT_A_PORT),
        };
        if let Some(reason) = unsupported {
            embedded::end(LeftoverSession::Open(Box::new(session))).await;
            return Err(EmbeddedError::Unsupported(reason));
        }
        let plan = if config.restart { Plan::OnDemand } else { Plan::Fixed };
        let policy = Policy {
            plan,
            sessions: config.sessions,
            can_start: true,
            first_wait: Some(WAIT),
            is_proxied: false,
        };
        let mut pump = Pump::new(config.buffer, Journal::new(true), Some(starter), policy);
        let destination = pump.add_destination(None, policy);
        let id = session.id.clone();
        pump.add_session(destination, session);
        let mut early = vec![Status::SessionStarted { session: id, destination: None, has_sentence: false }];
        let address = tcp.as_ref().and_then(Listener::local_addr);
        if let Some(tcp) = tcp {
            let taken = tcp.taken().map(sentences::address_taken);
            early.extend(taken.map(Status::message));
            pump.listeners.add(destination, tcp, !config.any_user);
        }
        pump.listeners.add(destination, memory, false);
        Ok(Some(EmbeddedPort { pump, address, door: Door { ports, port }, early }))
    }

    /// Address that it listens on.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Entrance for connections from within the process.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Forwards until `stop` completes, or the session without which nothing is left has ended: then with that end.
    /// Ends all sessions.
    pub(crate) async fn run(
        mut self,
        mut report: impl FnMut(Status),
        stop: impl Future<Output = ()>,
    ) -> Option<End> {
        self.early.drain(..).for_each(&mut report);
        let mut stop = pin!(stop);
        let end = loop {
            self.pump.journal.take().into_iter().for_each(|(status, _)| report(status));
            let event = tokio::select! {
                event = self.pump.next() => event,
                () = &mut stop => break None,
            };
            match event {
                PumpEvent::Over(end) => break Some(end),
                event => status(event).into_iter().for_each(&mut report),
            }
        };
        let (leftovers, mut reaper, journal) = self.pump.close();
        journal.take().into_iter().for_each(|(status, _)| report(status));
        leftovers.into_iter().for_each(|leftover| reaper.end(leftover));
        reaper.finish().await;
        end
    }
}

/// The event for the embedding program; `None` if there is none.
fn status(event: PumpEvent) -> Option<Status> {
    let (of, event) = match event {
        PumpEvent::Report(status) => return Some(status),
        PumpEvent::Stranger(stranger) => {
            return Some(Status::message(format!("refused a client of another user ({stranger})")));
        }
        PumpEvent::AcceptFailed(text) => return text.map(Status::message),
        PumpEvent::Link(of, event) => (of, event),
        PumpEvent::Progress | PumpEvent::Accepted(_) | PumpEvent::Refused(_) | PumpEvent::Over(_) => {
            return None;
        }
    };
    match event {
        LinkEvent::Lost(reason) => Some(Status::Lost { of, reason }),
        LinkEvent::Resumed => Some(Status::Resumed { of }),
        LinkEvent::Warning(text) => Some(Status::Message { of, text, is_failure: false }),
        LinkEvent::Channel(Event::Paused(true)) => Some(Status::Paused { of }),
        LinkEvent::Channel(Event::Paused(false)) => Some(Status::Unpaused { of }),
        LinkEvent::Channel(Event::Stalled(silence)) => {
            Some(Status::Message { of, text: sentences::no_progress(silence), is_failure: false })
        }
        LinkEvent::Channel(Event::Notice { text, .. }) => {
            Some(Status::Message { of, text: one_line(&text), is_failure: false })
        }
        LinkEvent::Channel(_)
        | LinkEvent::WantsInput
        | LinkEvent::Connecting { .. }
        | LinkEvent::GaveUp(_) => None,
    }
}

/// Agents up to 3.0.196.0.
const AGENT_TOO_OLD: &str = "the agent is too old: it forwards one connection at a time";
const NOT_A_PORT: &str = "the agent does not run a port session";
