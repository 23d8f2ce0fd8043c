//! Outcome of accepting a connection.

use crate::process::Stranger;
use crate::session::port::core::DestinationId;
use crate::session::port::local::LocalStream;
use crate::session::port::proxy::{Refusal, Request};

/// An accepted connection, or the reason that there is none.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection of a port.
    Port(DestinationId, LocalStream),
    /// A proxy client's connection, which waits for the reply.
    Socks(Request, LocalStream),
    /// A proxy's client was refused, and has its answer.
    Refused(Refusal),
    /// A client of another user was refused.
    Stranger(Stranger),
    /// Nothing could be accepted: a line about it, once.
    Failed(Option<String>),
}
