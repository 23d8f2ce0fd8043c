//! Sessions whose agent has not sent anything yet.
//!
//! Plain shells and commands have no handshake: the agent's first message is output. A command that prints nothing would
//! never get its input. An agent that has taken a message and still asks for no handshake has none: it asks before it
//! takes anything (PROTOCOL 4).

use std::time::{Duration, Instant};

/// What is known of the agent before its first message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Silence {
    /// There was no socket yet.
    #[default]
    Unbroken,
    /// There is a socket since then.
    Since(Instant),
    /// It was sent a message.
    Asked,
    /// It acknowledged that then.
    Heard(Instant),
}

/// How a silence is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// By a message of ours that does no harm.
    Ask,
    /// Not at all: the agent is there and asks for no handshake.
    NoHandshake,
}

impl Silence {
    /// Something of ours was acknowledged.
    pub fn handle_ack(&mut self, now: Instant) {
        if *self == Silence::Asked {
            *self = Silence::Heard(now);
        }
    }

    /// When [`Silence::handle_timeout`] is due.
    pub fn ends_at(&self) -> Option<Instant> {
        match self {
            Silence::Since(at) | Silence::Heard(at) => Some(*at + PATIENCE),
            Silence::Unbroken | Silence::Asked => None,
        }
    }

    /// What is to be done, once it has lasted.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Break> {
        if self.ends_at().is_none_or(|at| at > now) {
            return None;
        }
        match std::mem::replace(self, Silence::Asked) {
            Silence::Since(_) => Some(Break::Ask),
            _ => Some(Break::NoHandshake),
        }
    }
}

/// How long an agent that says nothing is waited for before it is asked, and again after it has answered.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_once_and_its_answer_tells() {
        let start = Instant::now();
        assert_eq!(Silence::default().ends_at(), None);
        let mut silence = Silence::Since(start);
        assert_eq!(silence.handle_timeout(start), None);
        let asked_at = silence.ends_at().unwrap();
        assert_eq!(silence.handle_timeout(asked_at), Some(Break::Ask));
        assert_eq!((silence.handle_timeout(asked_at + PATIENCE * 9), silence.ends_at()), (None, None));
        let heard_at = asked_at + PATIENCE * 10;
        silence.handle_ack(heard_at);
        silence.handle_ack(heard_at + PATIENCE);
        assert_eq!(silence.handle_timeout(heard_at + PATIENCE), Some(Break::NoHandshake));
    }

    #[test]
    fn an_acknowledgement_before_the_question_tells_nothing() {
        let start = Instant::now();
        let mut silence = Silence::Since(start);
        silence.handle_ack(start);
        assert_eq!(silence, Silence::Since(start));
    }
}
