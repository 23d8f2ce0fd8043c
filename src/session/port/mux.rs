//! Port forwarding with agents after 3.0.196.0: many local connections at once, each a smux stream.
//!
//! The [`Pump`] does the work; here is the user's side of it: which listeners there are, what signals mean, what is printed.

use super::core::{DestinationId, Plan, Policy, WAIT};
use super::listen::{Listener, SocksListener};
use super::local::Journal;
use super::pump::{Pump, PumpEvent};
use super::signals::SignalEffect;
use crate::output::{Console, Kind, Status, Subject, official, sentences};
use crate::process::Signal;
use crate::session::ending::End;
use crate::session::shutdown::Shutdown;
use crate::session::state::{Front, Session, report_event};
use crate::settings::{Forward, Settings, SocksAddress};

/// Runs until the main session ends for good or a signal arrives.
pub(super) async fn run(session: Session, listener: Listener) -> (End, Shutdown) {
    let (first, mut front) = session.split();
    front.console.print(official::WAITING_FOR_CONNECTIONS);
    let policy =
        Policy { plan: plan(&mut front), can_start: front.starter.is_some(), ..policy(&front.settings) };
    let mut pump = new_pump(&front, policy);
    let main = pump.add_destination(None, policy);
    pump.add_session(main, first);
    pump.listeners.add(main, listener, policy.plan == Plan::OnDemand && !front.settings.any_user);
    let mut run = Run { front, pump, main: Some(main), has_accepted: false, sessions: 1 };
    run.listen_additional().await;
    let on_signal = |signal, console: &mut Console| SignalEffect::of(signal, console);
    let end = run.run(on_signal, std::future::pending()).await;
    (end, run.close())
}

/// Policy for a destination whose sessions are started when connections need them.
pub(super) fn policy(settings: &Settings) -> Policy {
    Policy {
        plan: Plan::OnDemand,
        sessions: settings.sessions,
        can_start: true,
        first_wait: Some(WAIT),
        is_proxied: false,
    }
}

/// A pump for the user's settings, with the policy for the destinations of a proxy's clients.
pub(super) fn new_pump(front: &Front, policy: Policy) -> Pump {
    let proxied = Policy { plan: Plan::OnDemand, can_start: true, is_proxied: true, ..policy };
    let journal = Journal::new(front.settings.shows_connections());
    Pump::new(front.settings.buffer, journal, front.starter.clone(), proxied)
}

/// Reports another process that gets a part of the port's clients.
pub(super) fn report_taken(console: &mut Console, listener: &Listener) {
    if let Some(address) = listener.taken() {
        console.report_failure(&sentences::address_taken(address));
    }
}

/// A pump and the user's side of it.
pub(super) struct Run {
    pub front: Front,
    pub pump: Pump,
    /// Destination of the command line.
    pub main: Option<DestinationId>,
    /// The port of argv has had a connection.
    pub has_accepted: bool,
    /// Sessions behind the port of argv; 0 once it is reported that they are complete.
    pub sessions: usize,
}

impl Run {
    /// Runs until a session that is needed has ended for good, a signal requests the end, or `until` completes.
    pub(super) async fn run(
        &mut self,
        mut on_signal: impl FnMut(Signal, &mut Console) -> SignalEffect,
        until: impl Future<Output = ()>,
    ) -> End {
        let mut until = std::pin::pin!(until);
        loop {
            let Run { front: Front { console, watch, .. }, pump, .. } = self;
            pump.journal.show(console);
            tokio::select! {
                event = pump.next() => if let Some(end) = self.handle(event) { return end },
                signal = watch.recv() => match on_signal(signal, console) {
                    SignalEffect::Report => self.report(),
                    SignalEffect::End => return End::Interrupted,
                    SignalEffect::Nothing => {}
                },
                _ = console.drive() => {}
                () = &mut until => return End::Finished,
            }
        }
    }

    /// Closes the listeners and all connections. Returns the state needed to end the run.
    pub(super) fn close(self) -> Shutdown {
        let Run { mut front, pump, .. } = self;
        let (leftovers, reaper, journal) = pump.close();
        journal.show(&mut front.console);
        front.into_shutdown(leftovers, reaper)
    }

    /// Opens the additional ports and the SOCKS listener. One that cannot be opened is reported; the others work.
    async fn listen_additional(&mut self) {
        let Run { front: Front { console, settings, starter, ports, .. }, pump, .. } = self;
        settings.forward.mistakes.iter().for_each(|mistake| console.report_failure(mistake));
        let forwards = settings.forward.list.clone();
        if forwards.is_empty() && settings.socks.is_none() {
            return;
        }
        if starter.is_none() {
            console.report_failure(&sentences::needs_request("SSM_PLUGIN_FORWARD and SSM_PLUGIN_SOCKS have"));
            return;
        }
        for Forward { bind, local_port, destination } in forwards {
            let host = bind.as_deref().or(settings.local_host.as_deref());
            match Listener::bind_port(ports, local_port, host).await {
                Ok(listener) => {
                    let (port, name) = (listener.port(), Some(destination.to_string()));
                    let destination = pump.add_destination(Some(destination), policy(settings));
                    report_taken(console, &listener);
                    pump.listeners.add(destination, listener, !settings.any_user);
                    let status = Status::Ready {
                        kind: Kind::Forward,
                        session: None,
                        port,
                        socket: None,
                        destination: name,
                    };
                    console.announce(&status);
                }
                Err(error) => {
                    console.report_failure(&sentences::cannot_forward(&destination, &error));
                    error.advice().into_iter().for_each(|advice| console.report_failure(advice));
                    error.owner().into_iter().for_each(|owner| console.status(&owner));
                }
            }
        }
        let Some(address) = &settings.socks else { return };
        let (socks, name) = match address {
            SocksAddress::Port(port) => {
                (SocksListener::bind(ports, *port, !settings.any_user), format!("port {port}"))
            }
            SocksAddress::File(path) => (SocksListener::bind_file(path), path.display().to_string()),
        };
        match socks {
            Ok(socks) => {
                let (port, socket) = (socks.port(), socks.socket());
                pump.listeners.add_socks(socks);
                let status =
                    Status::Ready { kind: Kind::Socks, session: None, port, socket, destination: None };
                console.announce(&status);
            }
            Err(error) => console.report_failure(&sentences::cannot_open_socks(&name, &error)),
        }
    }

    fn handle(&mut self, event: PumpEvent) -> Option<End> {
        let console = &mut self.front.console;
        match event {
            PumpEvent::Progress => {}
            PumpEvent::Accepted(destination) => {
                if Some(destination) == self.main && !std::mem::replace(&mut self.has_accepted, true) {
                    console.print(&official::connection_accepted_mux(&self.front.id));
                }
            }
            PumpEvent::Refused(refusal) => {
                let text = sentences::socks_refused(&refusal);
                if console.is_new(&text) {
                    console.report(&Status::Message { of: Subject::default(), text, is_failure: true });
                }
            }
            PumpEvent::Stranger(stranger) => {
                let text = sentences::stranger_refused(stranger);
                if console.is_new(&text) {
                    console.report_failure(&text);
                }
            }
            PumpEvent::AcceptFailed(text) => text.into_iter().for_each(|text| console.status(&text)),
            PumpEvent::Report(Status::Failure { text }) => console.report_failure(&text),
            PumpEvent::Report(status) => {
                if status == (Status::DestinationRefused { destination: None }) {
                    console.repeat(official::DESTINATION_FAILED);
                }
                console.report(&status);
                self.count_sessions(&status);
            }
            PumpEvent::Link(of, event) => return report_event(console, of, event),
            PumpEvent::Over(end) => return Some(end),
        }
        None
    }

    /// Reports once that all sessions behind the port of argv are ready.
    fn count_sessions(&mut self, status: &Status) {
        match (self.sessions, status) {
            (0, _) => return,
            (_, Status::SessionStarted { destination: None, .. }) => self.sessions += 1,
            (2.., Status::SessionEnded { destination: None, .. }) => self.sessions -= 1,
            _ => {}
        }
        if self.sessions > 1 && self.sessions == self.front.settings.sessions {
            self.front.console.report(&Status::SessionsReady { sessions: self.sessions });
            self.sessions = 0;
        }
    }

    /// Prints the state on stderr, on request.
    fn report(&mut self) {
        for (destination, connections, session) in self.pump.overview() {
            let name = destination.map(|destination| format!("{destination}: ")).unwrap_or_default();
            let line = match session {
                Some((id, link)) => sentences::report(id, link.is_open(), &link.stats(), Some(connections)),
                None => sentences::no_session(connections),
            };
            self.front.console.announce(&Status::message(name + &line));
        }
    }
}

/// Returns whether the port outlives its session.
fn plan(front: &mut Front) -> Plan {
    match (front.settings.restart, &front.starter) {
        (false, _) => Plan::Fixed,
        (true, Some(_)) => Plan::OnDemand,
        (true, None) => {
            front.console.report_failure(&sentences::needs_request("SSM_PLUGIN_RESTART has"));
            Plan::Fixed
        }
    }
}
