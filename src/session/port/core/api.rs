//! Input and output of a [`Forwarder`](super::Forwarder).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::link::{GaveUp, LinkEvent};
use crate::output::{Status, sentences};
use crate::protocol::{CloseReason, Event};
use crate::session::ending::End;
use crate::session::port::proxy::Reply;
use crate::session::starter::StartError;

/// Number of a destination; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestinationId(pub u64);

/// Number of a session, from the request for it on; never used twice. The service's id comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub u64);

/// Number of a local connection, in the order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub u64);

/// Report about a local connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Bytes for the remote, at most [`CHUNK`]; the next come after [`Action::Read`].
    Data(Bytes),
    /// The local side sends no more; it may still be reading.
    InputEnded,
    /// The local side sends no more or is gone, but what it has sent is not all read yet. Reported once at most, and only
    /// while no chunk is requested.
    HungUp,
    /// The local side has broken the connection off.
    Reset,
    /// Everything is done: the connection may be dropped.
    Closed,
}

/// State of a session's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// While its websocket is not open or does not answer, or its agent takes nothing: the time since when, or that of the
    /// last message on it if it has left something unacknowledged.
    pub down_since: Option<Instant>,
    /// While its agent is paused and has taken all that was sent: the time since when.
    pub paused_since: Option<Instant>,
    /// The last time at which its path is known to have worked.
    pub heard: Instant,
    /// Messages of the agent so far, repeated ones as well.
    pub received: u64,
    /// Messages wait for one before them.
    pub has_gap: bool,
    /// Local readers leave room for more.
    pub has_room: bool,
    /// Round trip to the agent.
    pub round_trip: Duration,
}

/// Decision of a [`Forwarder`](super::Forwarder), to be carried out in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Start a session to a destination.
    Start(SessionId, DestinationId),
    /// End a session at the service, unless that `is_over` there.
    End { session: SessionId, is_over: bool },
    /// Count what waits for the connection's reader to the session.
    Join(ConnectionId, SessionId),
    /// Read the next chunk.
    Read(ConnectionId),
    /// Write these bytes to the client.
    Write(ConnectionId, Bytes),
    /// Answer a proxy's client, before anything of the remote.
    Reply(ConnectionId, Reply),
    /// Show the client the end of the remote's output, after all that was written.
    Finish(ConnectionId),
    /// Break the connection off. No other action for it follows.
    Close(ConnectionId),
    /// Leave the finished connection to deliver what waits for its reader. No other action for it follows.
    Release(ConnectionId),
    /// End a connection that has carried nothing, as soon as a reply is written. No other action for it follows.
    Dismiss(ConnectionId),
    /// Report to the user.
    Report(Status),
    /// End the run: the session without which nothing is left has ended.
    Over(End),
}

/// Actions to be carried out, oldest first.
pub(super) type Outputs = VecDeque<Action>;

/// End of a session, or of the attempt to start it.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    /// The end of the run, if the run depends on this session.
    pub end: End,
    /// The reason, for a status line.
    pub reason: String,
    /// Set if the session was never started.
    pub start_error: Option<StartError>,
}

impl SessionEnd {
    /// A session that could not be started.
    pub(crate) fn not_started(error: StartError) -> SessionEnd {
        let reason = error.to_string();
        SessionEnd { end: End::NotStarted(reason.clone()), reason, start_error: Some(error) }
    }

    /// A session that is given up for this reason.
    pub(crate) fn given_up(reason: impl Into<String>) -> SessionEnd {
        let reason = reason.into();
        SessionEnd { end: End::Failed(reason.clone()), reason, start_error: None }
    }

    /// The end that an event of the link means; `None` for any other event.
    pub(crate) fn of(event: &LinkEvent) -> Option<SessionEnd> {
        let (end, reason) = match event {
            LinkEvent::GaveUp(reason @ GaveUp::SessionGone) => (End::TimedOut, reason.to_string()),
            LinkEvent::GaveUp(reason) => (End::Failed(sentences::gave_up(reason)), reason.to_string()),
            LinkEvent::Channel(Event::Closed(CloseReason::ByService(output))) => {
                (End::Closed(output.clone()), in_one_line(output))
            }
            LinkEvent::Channel(Event::Closed(reason)) => {
                (End::Failed(reason.to_string()), reason.to_string())
            }
            _ => return None,
        };
        Some(SessionEnd { end, reason, start_error: None })
    }

    /// Returns whether the session is over at the service, too.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.end, End::Closed(_) | End::TimedOut)
    }
}

/// The service's reason for a status line.
fn in_one_line(output: &str) -> String {
    let text = output.replace(char::is_control, " ");
    match text.trim() {
        "" => "closed by the service".to_owned(),
        text => text.to_owned(),
    }
}

/// Read from a local connection at once, in bytes.
pub(crate) const CHUNK: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_s_reason_is_one_line_and_means_that_the_session_is_over() {
        let closed = |text: &str| {
            let event = LinkEvent::Channel(Event::Closed(CloseReason::ByService(text.to_owned())));
            SessionEnd::of(&event).unwrap()
        };
        let end = closed("Session idle\r\nfor too long\n");
        assert_eq!((end.reason.as_str(), end.is_over()), ("Session idle  for too long", true));
        assert_eq!(closed("").reason, "closed by the service");
        assert!(SessionEnd::of(&LinkEvent::GaveUp(GaveUp::SessionGone)).unwrap().is_over());
        assert!(!SessionEnd::given_up("other").is_over());
        assert!(SessionEnd::of(&LinkEvent::Resumed).is_none());
    }
}
