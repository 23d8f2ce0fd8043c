//! Replacement of the sessions of a destination that have ended, failed or become useless.

use std::time::{Duration, Instant};

use super::Destination;
use crate::output::{Status, sentences};
use crate::session::port::core::api::{Action, SessionEnd, SessionId};
use crate::session::port::core::reply::Refusal;
use crate::session::port::core::retry::Plan;
use crate::session::port::core::session::Session;
use crate::session::port::core::tables::Tables;

impl Destination {
    /// A session can take connections.
    pub(in crate::session::port::core) fn handle_ready(&mut self, session: &str, tables: &mut Tables) {
        tables.was_ready = true;
        self.retry.has_failed = false;
        self.refusal = Refusal::default();
        let has_sentence = self.is_on_demand();
        if has_sentence {
            self.reported = None;
        }
        let (session, destination) = (session.to_owned(), self.name());
        tables.out.push_back(Action::Report(Status::SessionStarted { session, destination, has_sentence }));
        self.report_shortfall(tables);
    }

    /// Drops a session that is over, and plans the next attempt.
    pub(in crate::session::port::core) fn handle_ended(
        &mut self,
        now: Instant,
        number: SessionId,
        end: SessionEnd,
        tables: &mut Tables,
    ) {
        let Some(index) = self.sessions.iter().position(|session| *session == number) else { return };
        self.sessions.remove(index);
        let Some(session) = tables.end_session(number, end.is_over()) else { return };
        let (age, is_reached) = (session.age(now), session.replies().is_reached());
        if is_reached {
            self.retry.reset_refresh();
        }
        self.limit_wanted();
        if self.policy.plan == Plan::Fixed && index == 0 {
            self.policy.can_start = false;
            return tables.out.push_back(Action::Over(end.end));
        }
        tracing::warn!(reason = end.reason, "an additional session has ended");
        if age.is_some_and(|age| age >= STEADY_AFTER) {
            self.retry.backoff.reset();
        } else {
            self.retry.pause_after_failure(now);
        }
        if self.policy.plan == Plan::Fixed {
            self.shortfall.get_or_insert(end.reason);
            self.report_shortfall(tables);
        } else if let Some(id) = session.id() {
            // The agent may not forward there. A proxy's client gets a reply, instead of a session each.
            if self.policy.is_proxied && !is_reached && self.retry.pause.is_some() {
                self.refusal.handle_useless_session();
                self.refusal.refuse_until(self.retry.pause);
            }
            self.report_ended(id, end.reason, tables);
        } else {
            self.handle_failed_start(&end, tables);
        }
    }

    /// Ends a session that has no stream ids left, when its last connection has gone and another takes over.
    pub(super) fn retire(&mut self, now: Instant, tables: &mut Tables) {
        let is_done = |session: &Session| session.is_spent() && session.len() == 0;
        let Some(index) = self.sessions(tables).position(is_done) else { return };
        let number = self.sessions[index];
        let has_successor = self.is_on_demand() || self.sessions(tables).any(Session::may_open);
        if has_successor {
            self.sessions.remove(index);
            if let Some(session) = tables.end_session(number, false) {
                self.report_ended(session.id().unwrap_or_default(), SPENT.to_owned(), tables);
            }
        } else if !self.policy.can_start {
            self.handle_ended(now, number, SessionEnd::given_up(SPENT), tables);
        }
    }

    /// Reports once, when no session is being started any more, how many of those requested there are.
    fn report_shortfall(&mut self, tables: &mut Tables) {
        if self.reported.is_some() || !self.sessions(tables).all(Session::is_ready) {
            return;
        }
        let Some(reason) = self.shortfall.take() else { return };
        let text = sentences::fewer_sessions(self.sessions.len(), self.policy.sessions, &reason);
        self.report_message(text.clone(), tables);
        self.reported = Some(text);
    }

    /// A session that connections wait for could not be started.
    fn handle_failed_start(&mut self, end: &SessionEnd, tables: &mut Tables) {
        let error = end.start_error.as_ref();
        self.refusal.handle_start_failed(error);
        let is_awaited = tables.was_ready || self.policy.first_wait.is_some();
        let is_permanent =
            error.is_some_and(|error| !error.is_transient() || (error.is_not_connected() && !is_awaited));
        if is_permanent {
            self.refusal.refuse_until(self.retry.pause);
            let reply = self.refusal.by_failure();
            for number in std::mem::take(&mut self.waiting).into_keys() {
                self.refuse(number, reply, tables);
            }
        }
        let mut text = sentences::not_started(self.name().as_deref(), &end.reason);
        let advice = match error {
            Some(error) if is_permanent => error.advice(),
            _ => Some(sentences::RETRYING),
        };
        if let Some(advice) = advice {
            // AWS's messages end with a full stop.
            text = format!("{}; {advice}", text.trim_end_matches('.'));
        }
        if self.reported.as_ref() == Some(&text) {
            return;
        }
        self.reported = Some(text.clone());
        if is_permanent {
            tables.out.push_back(Action::Report(Status::Failure { text }));
        } else {
            self.report_message(text, tables);
        }
    }

    /// Gives up sessions whose destination was refused and that have no connection, unless they have just resolved its name.
    pub(super) fn refresh(&mut self, now: Instant, tables: &mut Tables) {
        if self.policy.plan == Plan::Fixed {
            return;
        }
        if self.sessions(tables).any(|session| session.replies().is_reached()) {
            self.retry.reset_refresh();
        }
        let age = self.retry.refresh_age;
        let is_stale = |session: &Session| {
            let is_old = session.age(now).is_some_and(|lived| lived >= age);
            session.replies().is_refused() && session.len() == 0 && is_old
        };
        let stale: Vec<_> = self
            .sessions
            .extract_if(.., |number| tables.sessions.get(number).is_some_and(is_stale))
            .collect();
        if !stale.is_empty() {
            stale.into_iter().for_each(|session| _ = tables.end_session(session, false));
            self.retry.age_more();
        }
    }

    fn report_ended(&self, id: &str, reason: String, tables: &mut Tables) {
        let (session, destination) = (id.to_owned(), self.name());
        tables.out.push_back(Action::Report(Status::SessionEnded { session, destination, reason }));
    }
}

/// Reason for the end of a session after 2^31 connections.
const SPENT: &str = "it has no stream ids left";
/// A session that lasted this long was a good one: the next is started without delay.
const STEADY_AFTER: Duration = Duration::from_secs(10);
