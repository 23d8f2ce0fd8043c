//! Sessions whose agent has not sent anything yet.
//!
//! For plain shells and commands the agent skips the handshake (agent source): its first message is output. A command that
//! prints nothing before it has read input would never get any. So after a while we send a message that does no harm. An
//! agent with a handshake asks for it before it acknowledges anything: one that acknowledges ours and still asks for no
//! handshake has none.

use std::time::{Duration, Instant};

/// State of the agent before its first message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum SilentAgent {
    /// No socket has been open yet.
    #[default]
    Unconnected,
    /// A socket has been open since this time.
    Since(Instant),
    /// It was sent a message, to find out whether it runs a session.
    Asked,
    /// It acknowledged that message at this time.
    Answered(Instant),
}

/// Next step with an agent that has been silent for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Send it a message that does no harm.
    Ask,
    /// Start the session: the agent is there and asks for no handshake.
    NoHandshake,
}

impl SilentAgent {
    /// There is a new socket: an agent that was to speak, or to answer, has its time again.
    pub(super) fn handle_open(&mut self, now: Instant) {
        match self {
            SilentAgent::Unconnected => *self = SilentAgent::Since(now),
            SilentAgent::Since(at) | SilentAgent::Answered(at) => *at = now,
            SilentAgent::Asked => {}
        }
    }

    /// Something of ours was acknowledged.
    pub(super) fn handle_ack(&mut self, now: Instant) {
        if *self == SilentAgent::Asked {
            *self = SilentAgent::Answered(now);
        }
    }

    /// When [`SilentAgent::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            SilentAgent::Since(at) | SilentAgent::Answered(at) => Some(*at + PATIENCE),
            SilentAgent::Unconnected | SilentAgent::Asked => None,
        }
    }

    /// Returns the next step once [`PATIENCE`] has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<NextStep> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        match std::mem::replace(self, SilentAgent::Asked) {
            SilentAgent::Since(_) => Some(NextStep::Ask),
            _ => Some(NextStep::NoHandshake),
        }
    }
}

/// Time to wait for a silent agent before probing it, and again after its answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_probed_once_and_its_answer_decides() {
        let start = Instant::now();
        assert_eq!(SilentAgent::default().poll_timeout(), None);
        let mut agent = SilentAgent::Since(start);
        assert_eq!(agent.handle_timeout(start), None);
        let asked_at = agent.poll_timeout().unwrap();
        assert_eq!(agent.handle_timeout(asked_at), Some(NextStep::Ask));
        assert_eq!((agent.handle_timeout(asked_at + PATIENCE * 9), agent.poll_timeout()), (None, None));
        let heard_at = asked_at + PATIENCE * 10;
        agent.handle_ack(heard_at);
        agent.handle_ack(heard_at + PATIENCE);
        assert_eq!(agent.handle_timeout(heard_at + PATIENCE), Some(NextStep::NoHandshake));
    }

    #[test]
    fn an_acknowledgement_before_the_probe_proves_nothing() {
        let start = Instant::now();
        let mut agent = SilentAgent::Since(start);
        agent.handle_ack(start);
        assert_eq!(agent, SilentAgent::Since(start));
    }
}
