//! The reply that each client of a proxy gets, and when.
//!
//! | client | reply | when |
//! |---|---|---|
//! | with a stream | succeeded | the destination is known to be there, something comes from it, or no refusal has come in time |
//! | | host unreachable | the agent reports a refusal before the stream ends, or the session ends |
//! | without | by the failure ([`for_start_error`]) | no session can be started, now or soon after a failure |
//! | | timed out | no session was ready, or free for its destination, in time |
//! | | general failure | too many clients wait, or the run ends |
//!
//! The agent reports refusals only. A destination that accepts and waits for the client to speak looks like no answer yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::api::ConnectionId;
use crate::aws::ErrorKind;
use crate::session::port::proxy::Reply;
use crate::session::starter::StartError;

/// Clients of one session that wait for their reply, and the state of its destination.
#[derive(Debug, Default)]
pub(super) struct Replies {
    reach: Reach,
    /// Refusals that the agent has reported, whose streams have not ended yet.
    refusals: usize,
    /// Clients, and until when they wait.
    unanswered: BTreeMap<ConnectionId, Instant>,
}

/// State of the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Unknown,
    /// The agent could not reach it, and nothing has come from it since.
    Refused,
    /// Something has come from it.
    Reached,
}

impl Replies {
    /// Takes a client that has a stream now. `round_trip`: to the agent. Returns its reply, if it is known already.
    pub(super) fn open(&mut self, now: Instant, client: ConnectionId, round_trip: Duration) -> Option<Reply> {
        if self.is_reached() {
            return Some(Reply::Succeeded);
        }
        self.unanswered.insert(client, now + (2 * round_trip + DIAL).min(LONGEST_WAIT));
        None
    }

    /// Takes a refusal that the agent reports; of which stream, it does not say.
    pub(super) fn handle_refused(&mut self) {
        self.reach = Reach::Refused;
        self.refusals += 1;
    }

    /// Something has come from the destination for a client.
    pub(super) fn handle_data(&mut self, client: ConnectionId) -> Option<Reply> {
        self.reach = Reach::Reached;
        self.unanswered.remove(&client).map(|_| Reply::Succeeded)
    }

    /// The remote has ended a client's stream. A refusal is reported right before that, and nothing has come then.
    pub(super) fn handle_end(&mut self, client: ConnectionId) -> Option<Reply> {
        let is_unanswered = self.unanswered.remove(&client).is_some();
        let is_refused = is_unanswered && self.refusals > 0;
        self.refusals -= usize::from(is_refused);
        if self.unanswered.is_empty() {
            self.refusals = 0;
        }
        is_unanswered.then_some(if is_refused { Reply::HostUnreachable } else { Reply::Succeeded })
    }

    /// A client is gone, or its session is. Returns its reply, if it has had none.
    pub(super) fn close(&mut self, client: ConnectionId) -> Option<Reply> {
        self.unanswered.remove(&client).map(|_| Reply::HostUnreachable)
    }

    /// Deadline of the client that has waited longest for its reply.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.unanswered.values().min().copied()
    }

    /// Returns the clients for which no refusal has come in time, with their reply.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> impl Iterator<Item = (ConnectionId, Reply)> {
        self.unanswered
            .extract_if(.., move |_, until| *until <= now)
            .map(|(client, _)| (client, Reply::Succeeded))
    }

    /// Returns whether the destination was refused, and nothing has come from it since.
    pub(super) fn is_refused(&self) -> bool {
        self.reach == Reach::Refused
    }

    /// Returns whether something has come from the destination, and it was not refused since.
    pub(super) fn is_reached(&self) -> bool {
        self.reach == Reach::Reached
    }
}

/// Reply to the clients of one destination that get no session.
#[derive(Debug)]
pub(super) struct Refusal {
    /// By the last failure.
    reply: Reply,
    /// Until when clients are refused at once.
    until: Option<Instant>,
}

impl Default for Refusal {
    fn default() -> Refusal {
        Refusal { reply: Reply::HostUnreachable, until: None }
    }
}

impl Refusal {
    /// A session could not be started.
    pub(super) fn handle_start_failed(&mut self, error: Option<&StartError>) {
        self.reply = error.map_or(Reply::HostUnreachable, for_start_error);
    }

    /// A session has ended before anything came: the agent may not forward there.
    pub(super) fn handle_useless_session(&mut self) {
        self.reply = Reply::HostUnreachable;
    }

    /// Refuses all clients until then.
    pub(super) fn refuse_until(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// Returns the reply to a new client that is refused at once.
    pub(super) fn at_once(&self, now: Instant) -> Option<Reply> {
        self.until.filter(|until| now < *until).map(|_| self.reply)
    }

    /// Returns the reply to the clients that wait when a start fails for good.
    pub(super) fn by_failure(&self) -> Reply {
        self.reply
    }
}

/// Reply to a client for which there is no place.
pub(super) const NO_PLACE: Reply = Reply::GeneralFailure;

/// The reply of RFC 1928 that comes closest to why there is no session.
fn for_start_error(error: &StartError) -> Reply {
    match error {
        StartError::Aws(error) => match error.kind {
            ErrorKind::Denied
            | ErrorKind::NoCredentials
            | ErrorKind::SignInNeeded
            | ErrorKind::UnsafeCache
            | ErrorKind::BadCredentials => Reply::NotAllowed,
            ErrorKind::TargetNotConnected => Reply::HostUnreachable,
            ErrorKind::Unreachable | ErrorKind::Throttled => Reply::NetworkUnreachable,
            _ => Reply::GeneralFailure,
        },
        StartError::Url(_) => Reply::GeneralFailure,
    }
}

/// Time that an agent needs to find that a destination in its network refuses, in addition to the round trip.
const DIAL: Duration = Duration::from_millis(100);
/// Longest wait of a client with a stream for its reply.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsError;

    #[test]
    fn replies_follow_the_cause() {
        for (kind, reply) in [
            (ErrorKind::Denied, Reply::NotAllowed),
            (ErrorKind::NoCredentials, Reply::NotAllowed),
            (ErrorKind::BadCredentials, Reply::NotAllowed),
            (ErrorKind::TargetNotConnected, Reply::HostUnreachable),
            (ErrorKind::Unreachable, Reply::NetworkUnreachable),
            (ErrorKind::Refused, Reply::GeneralFailure),
            (ErrorKind::SessionGone, Reply::GeneralFailure),
        ] {
            let error = StartError::Aws(AwsError::new("call", kind, "no"));
            assert_eq!(for_start_error(&error), reply, "{kind:?}");
        }
    }

    #[test]
    fn clients_are_refused_at_once_until_the_next_attempt_is_due() {
        let (mut refusal, now) = (Refusal::default(), Instant::now());
        assert_eq!(refusal.at_once(now), None);
        refusal.refuse_until(Some(now + DIAL));
        assert_eq!(refusal.at_once(now), Some(Reply::HostUnreachable));
        assert_eq!(refusal.at_once(now + DIAL), None);
        refusal.handle_start_failed(Some(&StartError::Aws(AwsError::new("call", ErrorKind::Denied, "no"))));
        assert_eq!(
            (refusal.at_once(now), refusal.by_failure()),
            (Some(Reply::NotAllowed), Reply::NotAllowed)
        );
    }
}
