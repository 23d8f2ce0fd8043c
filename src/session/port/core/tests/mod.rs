//! A forwarder in virtual time: the agents, the clients and StartSession are the test.

mod destination;
mod proxied;
mod reply;

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::aws::{AwsError, ErrorKind};
use crate::session::ending::End;
use crate::session::port::proxy::Reply;
use crate::session::starter::StartError;
use crate::smux::{self, StreamId};

/// A forwarder with one destination, and everything around it.
struct World {
    now: Instant,
    core: Forwarder,
    main: DestinationId,
    agents: BTreeMap<SessionId, smux::Session>,
    clients: BTreeMap<ConnectionId, Client>,
    /// Session starts that wait for their answer.
    asked: VecDeque<SessionId>,
    /// Times of all session starts.
    starts: Vec<Instant>,
    /// Sessions start at once.
    is_generous: bool,
    /// Sessions that were ended at the service.
    ended: Vec<SessionId>,
    statuses: Vec<Status>,
    over: Option<End>,
}

/// A local client.
#[derive(Debug, Default)]
struct Client {
    /// Not read from it yet.
    unread: Vec<u8>,
    /// A chunk is requested.
    is_read: bool,
    has_shut_down: bool,
    was_reported: bool,
    replies: Vec<Reply>,
    received: Vec<u8>,
    end: Option<ClientEnd>,
}

/// End of the remote's output, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientEnd {
    /// Orderly.
    Finished,
    Reset,
}

impl World {
    fn new(policy: Policy) -> World {
        let now = Instant::now();
        let mut core = Forwarder::new(now, 1 << 20, 1);
        let address = policy.is_proxied.then(|| address("db.internal"));
        let main = match address {
            Some(address) => core.proxied_destination(address, policy),
            None => core.add_destination(None, policy),
        };
        World {
            now,
            core,
            main,
            agents: BTreeMap::new(),
            clients: BTreeMap::new(),
            asked: VecDeque::new(),
            starts: Vec::new(),
            is_generous: false,
            ended: Vec::new(),
            statuses: Vec::new(),
            over: None,
        }
    }

    fn on_demand(sessions: usize) -> World {
        World::new(Policy { sessions, ..ON_DEMAND })
    }

    fn fixed(sessions: usize) -> World {
        World::new(Policy { plan: Plan::Fixed, sessions, ..ON_DEMAND })
    }

    fn proxied() -> World {
        World::new(PROXIED)
    }

    /// Adds a session that is ready, as the first of a run is.
    fn add_ready(&mut self) -> SessionId {
        let session = self.core.add_ready_session(self.now, self.main, "first", true).unwrap();
        self.add_agent(session);
        session
    }

    fn add_agent(&mut self, session: SessionId) {
        self.agents.insert(session, smux::Session::new(smux::Config::new(smux::Role::Server), self.now));
    }

    /// A connection, with what its client has sent already.
    fn connect_with(&mut self, early: &[u8]) -> ConnectionId {
        self.connect_to(self.main, early)
    }

    /// A connection that stays, without a word.
    fn connect(&mut self) -> ConnectionId {
        let client = self.connect_with(b"");
        if !self.core.destinations[&self.main].policy().is_proxied {
            self.pass(PROBE);
        }
        client
    }

    fn connect_to(&mut self, destination: DestinationId, early: &[u8]) -> ConnectionId {
        let number = ConnectionId(self.clients.len() as u64 + 1);
        let client = Client { unread: early.to_vec(), is_read: true, ..Client::default() };
        self.clients.insert(number, client);
        self.core.handle_accepted(self.now, number, destination);
        self.run();
        number
    }

    /// The client sends no more.
    fn shut_down(&mut self, client: ConnectionId) {
        self.client(client).has_shut_down = true;
        self.run();
    }

    /// The client closes its connection.
    fn leave(&mut self, client: ConnectionId) {
        self.shut_down(client);
        if self.client(client).end == Some(ClientEnd::Finished) {
            self.core.handle_report(self.now, client, Report::Closed);
            self.run();
        }
    }

    /// The client breaks its connection off.
    fn reset(&mut self, client: ConnectionId) {
        self.core.handle_report(self.now, client, Report::Reset);
        self.run();
    }

    /// The destination sends these bytes to a client.
    fn write(&mut self, client: ConnectionId, bytes: &[u8]) {
        let (session, stream) = self.stream(client);
        self.agent(session).send(stream, bytes).unwrap();
        self.run();
    }

    /// The destination has closed a client's connection.
    fn finish(&mut self, client: ConnectionId) {
        let (session, stream) = self.stream(client);
        self.agent(session).finish(stream);
        self.run();
    }

    /// The agent could not reach the destination.
    fn refuse(&mut self, client: ConnectionId) {
        let (session, _) = self.stream(client);
        self.core.handle_refused(session);
        self.finish(client);
    }

    /// The service ends a session.
    fn close(&mut self, session: SessionId, reason: &str) {
        let end =
            SessionEnd { end: End::Closed(reason.to_owned()), reason: reason.to_owned(), start_error: None };
        self.core.handle_ended(self.now, session, end);
        self.run();
    }

    /// The oldest StartSession succeeds, and the handshake of the session does.
    fn succeed(&mut self) -> SessionId {
        let session = self.asked.pop_front().expect("a session start");
        self.add_agent(session);
        self.core.handle_ready(self.now, session, "another", true);
        self.run();
        session
    }

    /// The oldest StartSession fails.
    fn fail(&mut self, kind: ErrorKind) {
        let session = self.asked.pop_front().expect("a session start");
        let error = StartError::Aws(AwsError::new("ssm:StartSession", kind, "no"));
        self.core.handle_ended(self.now, session, SessionEnd::not_started(error));
        self.run();
    }

    /// Does everything that there is to do now.
    fn run(&mut self) {
        for _ in 0..1000 {
            let mut is_done = !self.perform();
            is_done &= !self.transmit();
            is_done &= !self.report();
            if is_done {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn perform(&mut self) -> bool {
        let mut has_acted = false;
        while let Some(action) = self.core.poll_action() {
            has_acted = true;
            match action {
                Action::Start(session, _) => {
                    self.starts.push(self.now);
                    self.asked.push_back(session);
                    if self.is_generous {
                        self.asked.clear();
                        self.add_agent(session);
                        self.core.handle_ready(self.now, session, "another", true);
                    }
                }
                Action::End { session, .. } => self.ended.push(session),
                Action::Join(..) => {}
                Action::Read(client) => self.client(client).is_read = true,
                Action::Write(client, bytes) => self.client(client).received.extend(bytes),
                Action::Reply(client, reply) => self.client(client).replies.push(reply),
                Action::Finish(client) | Action::Release(client) | Action::Dismiss(client) => {
                    self.client(client).end = Some(ClientEnd::Finished);
                }
                Action::Close(client) => _ = self.client(client).end.get_or_insert(ClientEnd::Reset),
                Action::Report(status) => self.statuses.push(status),
                Action::Over(end) => self.over = Some(end),
            }
        }
        has_acted
    }

    /// Carries bytes between the forwarder and the agents. An agent closes a connection whose client has.
    fn transmit(&mut self) -> bool {
        let mut has_moved = false;
        for (session, agent) in &mut self.agents {
            while let Some(bytes) = self.core.poll_transmit(self.now, *session, 1024) {
                has_moved = true;
                agent.handle_bytes(self.now, bytes).unwrap();
            }
            while let Some(event) = agent.poll_event() {
                if let smux::Event::Fin(stream) = event {
                    agent.finish(stream);
                }
            }
            while let Some(bytes) = agent.poll_transmit(1024) {
                has_moved = true;
                self.core.handle_bytes(self.now, *session, bytes);
            }
        }
        has_moved
    }

    /// Reports as the tasks of connections do.
    fn report(&mut self) -> bool {
        let mut reports = Vec::new();
        for (number, client) in &mut self.clients {
            if client.is_read && !client.unread.is_empty() {
                let chunk: Vec<u8> = client.unread.drain(..client.unread.len().min(CHUNK)).collect();
                client.is_read = false;
                reports.push((*number, Report::Data(chunk.into())));
            } else if client.has_shut_down && !client.was_reported {
                client.was_reported = true;
                reports.push((*number, if client.is_read { Report::InputEnded } else { Report::HungUp }));
            }
        }
        let has_reported = !reports.is_empty();
        reports.into_iter().for_each(|(number, report)| self.core.handle_report(self.now, number, report));
        has_reported
    }

    /// Lets time pass, from one deadline to the next.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle_steps = 0;
        self.run();
        while self.now < end {
            let next = self.core.poll_timeout().map_or(end, |(at, _)| at.clamp(self.now, end));
            idle_steps = if next > self.now { 0 } else { idle_steps + 1 };
            assert!(idle_steps < 4, "it spins: {:?}", self.core.poll_timeout());
            self.now = next;
            self.core.handle_timeout(self.now);
            self.run();
        }
    }

    /// Returns the time until another session is requested.
    fn until_next_start(&mut self) -> Duration {
        let (before, begin) = (self.starts.len(), self.now);
        while self.starts.len() == before && self.now < begin + 100 * SECOND {
            self.pass(SECOND / 50);
        }
        self.now - begin
    }

    fn client(&mut self, number: ConnectionId) -> &mut Client {
        self.clients.get_mut(&number).unwrap()
    }

    fn is_closed(&self, number: ConnectionId) -> bool {
        self.clients[&number].end.is_some()
    }

    fn replies(&self, number: ConnectionId) -> &[Reply] {
        &self.clients[&number].replies
    }

    fn agent(&mut self, session: SessionId) -> &mut smux::Session {
        self.agents.get_mut(&session).unwrap()
    }

    fn stream(&self, client: ConnectionId) -> (SessionId, StreamId) {
        self.core.tables.connections[&client].stream.expect("a stream")
    }

    /// Numbers of connections of the sessions, oldest session first.
    fn loads(&self) -> Vec<usize> {
        self.core.tables.sessions.values().map(Session::len).collect()
    }

    fn waiting(&self) -> usize {
        self.core.destinations[&self.main].waiting_count()
    }

    /// Messages to the user.
    fn messages(&self) -> Vec<&str> {
        let text = |status: &'_ Status| match status {
            Status::Failure { text } | Status::Message { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.statuses.iter().filter_map(text).map(|text| &*text.leak()).collect()
    }
}

fn address(host: &str) -> Address {
    Address::new(host, 80).unwrap()
}

const ON_DEMAND: Policy =
    Policy { plan: Plan::OnDemand, sessions: 1, can_start: true, first_wait: Some(WAIT), is_proxied: false };
const PROXIED: Policy = Policy { is_proxied: true, ..ON_DEMAND };
/// Longer than a probe stays.
const PROBE: Duration = Duration::from_millis(60);
const SECOND: Duration = Duration::from_secs(1);
