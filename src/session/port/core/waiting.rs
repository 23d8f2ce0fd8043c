//! Connections that wait for a session.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::api::{Action, CHUNK, ConnectionId, Report};

/// A connection without a session.
#[derive(Debug)]
pub(super) struct Waiting {
    early: BytesMut,
    /// A chunk was requested and has not come.
    is_reading: bool,
    has_ended: bool,
    until: Instant,
}

impl Waiting {
    /// A connection whose first chunk is requested, and that waits until then.
    pub(super) fn new(until: Instant) -> Waiting {
        Waiting { early: BytesMut::new(), is_reading: true, has_ended: false, until }
    }

    /// Time at which it gives up waiting.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Returns what has been read from it, true if a chunk is still requested, and true if its input has ended.
    pub(super) fn into_parts(self) -> (Bytes, bool, bool) {
        (self.early.freeze(), self.is_reading, self.has_ended)
    }

    /// Takes a report about the connection. [`Action::Dismiss`] if it wants nothing any more.
    pub(super) fn handle_report(
        &mut self,
        now: Instant,
        number: ConnectionId,
        report: Report,
    ) -> Option<Action> {
        match report {
            Report::Data(bytes) => {
                self.early.extend_from_slice(&bytes);
                self.is_reading = self.early.len() <= MAX_EARLY - CHUNK;
                if self.is_reading {
                    return Some(Action::Read(number));
                }
                self.wait_less(now);
            }
            Report::HungUp => self.wait_less(now),
            // A client that has sent nothing and sends no more is a probe, most likely.
            Report::InputEnded if self.early.is_empty() => return Some(Action::Dismiss(number)),
            Report::InputEnded => {
                self.is_reading = false;
                self.has_ended = true;
                self.wait_less(now);
            }
            Report::Reset | Report::Closed => return Some(Action::Dismiss(number)),
        }
        None
    }

    /// The client may have gone from now on, or may wait for its answer.
    fn wait_less(&mut self, now: Instant) {
        self.until = self.until.min(now + WAIT_UNSURE);
    }
}

/// Time that a connection waits whose client may have gone: it has stopped sending, or nothing more is read from it because
/// [`MAX_EARLY`] has come, so that its end cannot be seen. Such a client may also wait for its answer: a session is there
/// in that time even if the path to it dies while it is being opened. Impatient clients that come again and again
/// add up for that long.
const WAIT_UNSURE: Duration = Duration::from_secs(60);
/// Read from a connection while it waits, in bytes. A stream's queue takes that at once.
const MAX_EARLY: usize = 2 * CHUNK;
