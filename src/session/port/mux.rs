//! Port forwarding with agents after 3.0.196.0: many local connections at once, each a smux stream.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::ending::{Closing, End};
use super::super::state::{Front, Session, sleep_until, tell};
use super::asked::Asked;
use super::clock::now;
use super::core::retry::Plan;
use super::lane::ConnectionNumber;
use super::listen::Listener;
use super::listen::SocksListener;
use super::listen::{Accepted, Listeners};
use super::local::Journal;
use super::local::LocalStream;
use super::local::{Budget, Limits};
use super::local::{Connection, FromConnection};
use super::pool::{Pool, PoolEvent};
use super::pools::{MAIN, PoolId, Pools};
use super::proxy::{Preface, Refusal, Request};
use crate::destination::Destination;
use crate::output::{Console, Kind, Status, official, sentences};
use crate::process::Signal;
use crate::settings::{Forward, SocksAddress};

/// Runs until the main session ends for good or a signal arrives.
pub(super) async fn run(session: Session, listener: Listener) -> (End, Closing) {
    let (first, mut front) = session.split();
    front.console.say(official::WAITING_FOR_CONNECTIONS);
    let budget = Budget::new(Limits::new(front.settings.buffer));
    let main = Pool::with_first(plan(&mut front), first, front.starter.clone(), &budget);
    let mut listeners = Listeners::default();
    let is_guarded = main.is_on_demand() && !front.settings.any_user;
    listeners.add(MAIN, listener, is_guarded);
    let pools = Pools::new(main.with_sessions(front.settings.sessions), &budget);
    let (reports, mut from_connections) = mpsc::channel(REPORTS);
    let journal = Journal::new(&front.settings);
    let mut run = Run { front, pools, budget, reports, journal, has_accepted: false, sessions: 1 };
    run.listen_further(&mut listeners).await;
    let on_signal = |signal, console: &mut Console| Asked::by(signal, console);
    let end = pump(&mut run, &mut listeners, &mut from_connections, on_signal, std::future::pending()).await;
    (end, finish(run, listeners))
}

/// Runs until a session that is needed has ended for good, a signal asks for the end, or `until` completes.
pub(super) async fn pump(
    run: &mut Run,
    listeners: &mut Listeners,
    from_connections: &mut mpsc::Receiver<Report>,
    mut on_signal: impl FnMut(Signal, &mut Console) -> Asked,
    until: impl Future<Output = ()>,
) -> End {
    let budget = Arc::clone(&run.budget);
    let mut until = std::pin::pin!(until);
    loop {
        run.pools.transmit();
        run.journal.show(&mut run.front.console);
        let Run { front: Front { console, watch, .. }, pools, .. } = run;
        listeners.set_wanted(|pool| pools.may_take(pool), pools.may_take_socks());
        let timeout = pools.next_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            (pool, event) = pools.next() => if let Some(end) = run.handle(pool, event) { return end },
            Some(((pool, number), report)) = from_connections.recv() => {
                pools.handle_report(pool, number, report);
            }
            accepted = listeners.accept() => match accepted {
                Accepted::Port(pool, stream) => run.take(pool, stream),
                Accepted::Socks(request, stream) => run.take_socks(request, stream),
                Accepted::Refused(refusal) => run.report_refusal(&refusal),
                Accepted::Stranger(uid) => run.report_stranger(uid),
                Accepted::Failed(text) => {
                    text.into_iter().for_each(|text| console.status(&text));
                    pools.hurry();
                }
            },
            // A local reader has made room: look again which sessions may be read.
            () = budget.progress() => {}
            () = sleep_until(timeout) => {
                let events = pools.handle_timeout(now());
                if let Some(end) = events.into_iter().find_map(|(pool, event)| run.handle(pool, event)) {
                    return end;
                }
            }
            signal = watch.recv() => match on_signal(signal, console) {
                Asked::Report => run.report(),
                Asked::End => return End::Interrupted,
                Asked::Nothing => {}
            },
            _ = console.drive() => {}
            () = &mut until => return End::Finished,
        }
    }
}

/// Closes the listeners and all connections. What is left to be ended.
pub(super) fn finish(mut run: Run, listeners: Listeners) -> Closing {
    drop(listeners);
    let (remains, reaper) = run.pools.give_up();
    run.journal.show(&mut run.front.console);
    run.front.into_closing(remains, reaper)
}

/// Reports another process that gets a part of the port's clients.
pub(super) fn report_taken(console: &mut Console, listener: &Listener) {
    if let Some(address) = listener.taken() {
        console.complain(&sentences::address_taken(address));
    }
}

/// Returns whether the port outlives its session.
fn plan(front: &mut Front) -> Plan {
    match (front.settings.restart, &front.starter) {
        (false, _) => Plan::Fixed,
        (true, Some(_)) => Plan::OnDemand,
        (true, None) => {
            front.console.complain(&sentences::needs_request("SSM_PLUGIN_RESTART has"));
            Plan::Fixed
        }
    }
}

/// State of the loop.
pub(super) struct Run {
    pub front: Front,
    pub pools: Pools,
    pub budget: Arc<Budget>,
    pub reports: mpsc::Sender<Report>,
    pub journal: Arc<Journal>,
    /// The port of argv has had a connection.
    pub has_accepted: bool,
    /// Sessions behind the port of argv; 0 once it is reported that they are complete.
    pub sessions: usize,
}

/// A report of a connection's task.
pub(super) type Report = ((PoolId, ConnectionNumber), FromConnection);

impl Run {
    /// Opens the further ports and the SOCKS listener. One that cannot be opened is told; the others work.
    async fn listen_further(&mut self, listeners: &mut Listeners) {
        let Run { front: Front { console, settings, starter, ports, .. }, pools, .. } = self;
        settings.forward.mistakes.iter().for_each(|mistake| console.complain(mistake));
        let forwards = settings.forward.list.clone();
        if forwards.is_empty() && settings.socks.is_none() {
            return;
        }
        let Some(starter) = starter else {
            console.complain(&sentences::needs_request("SSM_PLUGIN_FORWARD and SSM_PLUGIN_SOCKS have"));
            return;
        };
        for Forward { bind, local_port, destination } in forwards {
            let host = bind.as_deref().or(settings.local_host.as_deref());
            match Listener::bind_port(ports, local_port, host).await {
                Ok(listener) => {
                    let (port, name) = (listener.port(), Some(destination.to_string()));
                    let pool = pools.add(destination, starter, settings.sessions);
                    report_taken(console, &listener);
                    listeners.add(pool, listener, !settings.any_user);
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
                    console.complain(&sentences::cannot_forward(&destination, &error));
                    error.advice().into_iter().for_each(|advice| console.complain(advice));
                    error.owner().into_iter().for_each(|owner| console.status(&owner));
                }
            }
        }
        let Some(address) = &settings.socks else { return };
        let (socks, name) = match address {
            SocksAddress::Port(port) => {
                (SocksListener::bind(ports, *port, !settings.any_user).await, format!("port {port}"))
            }
            SocksAddress::File(path) => (SocksListener::bind_file(path), path.display().to_string()),
        };
        match socks {
            Ok(socks) => {
                let (port, socket) = (socks.port(), socks.socket());
                listeners.add_socks(socks);
                let status =
                    Status::Ready { kind: Kind::Socks, session: None, port, socket, destination: None };
                console.announce(&status);
            }
            Err(error) => console.complain(&sentences::cannot_open_socks(&name, &error)),
        }
    }

    /// Takes a local connection for a pool.
    fn take(&mut self, pool: PoolId, stream: LocalStream) {
        if pool == MAIN && !std::mem::replace(&mut self.has_accepted, true) {
            self.front.console.say(&official::connection_accepted_mux(&self.front.id));
        }
        let entry = self.journal.open(&stream, self.pools.destination(pool));
        let number = entry.number();
        let reports = self.reports.clone();
        let connection = Connection::start(stream, Preface::default(), (pool, number), reports, entry);
        self.pools.take(pool, number, connection);
    }

    /// Takes a proxy client's connection.
    fn take_socks(&mut self, request: Request, stream: LocalStream) {
        let Request { destination, preface } = request;
        let entry = self.journal.open(&stream, Some(&destination));
        let number = entry.number();
        let Front { starter: Some(starter), settings, .. } = &self.front else { return };
        let pool = self.pools.for_socks(destination, starter, settings.sessions);
        let connection = Connection::start(stream, preface, (pool, number), self.reports.clone(), entry);
        self.pools.take(pool, number, connection);
    }

    /// Reports why a SOCKS client was refused, each reason once: a client may come again and again.
    fn report_refusal(&mut self, refusal: &Refusal) {
        let console = &mut self.front.console;
        let text = sentences::socks_refused(refusal);
        if console.is_new(&text) {
            console.status(&text);
        }
    }

    /// Reports that a client of another user was refused, in any case, once for each user.
    fn report_stranger(&mut self, uid: u32) {
        let console = &mut self.front.console;
        let text = sentences::stranger_refused(uid);
        if console.is_new(&text) {
            console.complain(&text);
        }
    }

    fn handle(&mut self, pool: PoolId, event: PoolEvent) -> Option<End> {
        let console = &mut self.front.console;
        match event {
            PoolEvent::Progress => {}
            PoolEvent::Link(of, event) => return tell(console, of, event),
            PoolEvent::Tell(status) => {
                console.tell(&status);
                if pool == MAIN {
                    self.count_sessions(&status);
                }
            }
            PoolEvent::Failure(text) => console.complain(&text),
            PoolEvent::Refused => {
                if pool == MAIN {
                    console.repeat(official::DESTINATION_FAILED);
                }
                let destination = self.pools.destination(pool).map(Destination::to_string);
                console.tell(&Status::DestinationRefused { destination });
            }
            PoolEvent::Over(end) => return Some(end),
        }
        None
    }

    /// Reports once that all sessions behind the port of argv are ready.
    fn count_sessions(&mut self, status: &Status) {
        match (self.sessions, status) {
            (0, _) => return,
            (_, Status::SessionStarted { .. }) => self.sessions += 1,
            (2.., Status::SessionEnded { .. }) => self.sessions -= 1,
            _ => {}
        }
        if self.sessions > 1 && self.sessions == self.front.settings.sessions {
            self.front.console.tell(&Status::SessionsReady { sessions: self.sessions });
            self.sessions = 0;
        }
    }

    /// Prints the state on stderr, since it was asked for.
    fn report(&mut self) {
        for text in self.pools.report() {
            self.front.console.announce(&Status::message(text));
        }
    }
}

/// Reports of connection tasks that wait for the loop.
pub(super) const REPORTS: usize = 64;
