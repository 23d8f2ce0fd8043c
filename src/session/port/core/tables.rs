//! The tables that destinations and sessions share.

use std::collections::BTreeMap;

use super::api::{Action, DestinationId, Outputs, SessionId};
use super::place::Connections;
use super::session::Session;

/// Sessions, connections, and the actions that follow from changes in them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub sessions: BTreeMap<SessionId, Session>,
    pub connections: Connections,
    pub out: Outputs,
    /// A session was ready: the target was connected.
    pub was_ready: bool,
    next_session: u64,
}

impl Tables {
    /// Adds a session that is being started.
    pub(super) fn add_session(&mut self, destination: DestinationId) -> SessionId {
        let number = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(number, Session::new(number, destination));
        number
    }

    /// Removes a session that ends: closes its connections and has it ended at the service.
    pub(super) fn end_session(&mut self, session: SessionId, is_over: bool) -> Option<Session> {
        let mut ended = self.sessions.remove(&session)?;
        ended.close_all(&mut self.connections, &mut self.out);
        self.out.push_back(Action::End { session, is_over });
        Some(ended)
    }
}
