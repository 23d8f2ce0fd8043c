//! Connections that wait for a session.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::clock::now;
use super::local::{CHUNK, Connection, FromConnection};

/// A connection without a lane.
pub(super) struct Waiting {
    pub connection: Connection,
    pub early: BytesMut,
    /// A chunk was asked for and has not come.
    pub is_reading: bool,
    pub has_ended: bool,
    pub until: Instant,
}

impl Waiting {
    /// Returns whether the connection still waits for something.
    pub(super) fn handle_report(&mut self, report: FromConnection) -> bool {
        match report {
            FromConnection::Data(bytes) => {
                self.early.extend_from_slice(&bytes);
                self.is_reading = self.early.len() <= MAX_EARLY - CHUNK;
                if self.is_reading {
                    self.connection.grant();
                } else {
                    self.until = self.until.min(now() + WAIT_FULL);
                }
            }
            FromConnection::HungUp => self.until = self.until.min(now() + WAIT_HALF_CLOSED),
            // Whoever has said nothing and sends no more wants nothing, most likely: a probe.
            FromConnection::InputEnded if self.early.is_empty() => return false,
            FromConnection::InputEnded => {
                self.is_reading = false;
                self.has_ended = true;
                self.until = self.until.min(now() + WAIT_HALF_CLOSED);
            }
            FromConnection::Reset | FromConnection::Closed => return false,
        }
        true
    }
}

/// Time that a connection waits whose client may have gone: it has stopped sending.
const WAIT_HALF_CLOSED: Duration = Duration::from_secs(10);
/// The same for one of which nothing more is read, because [`MAX_EARLY`] has come: whether such a client has gone cannot
/// be seen once it has filled the system's buffers, too.
const WAIT_FULL: Duration = Duration::from_secs(60);
/// Read from a connection while it waits. A stream's queue takes that at once.
const MAX_EARLY: usize = 2 * CHUNK;
