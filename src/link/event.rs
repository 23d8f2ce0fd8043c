//! Events that a link gives to its session.

use super::GaveUp;
use crate::protocol::Event;

/// What a link tells its session.
#[derive(Debug)]
pub enum LinkEvent {
    /// From the data channel.
    Channel(Event),
    /// There is room for input again, after [`Link::wants_input`](super::Link::wants_input) had said no.
    WantsInput,
    /// The connection is lost and is being opened again; why.
    Lost(String),
    /// The connection is back.
    Resumed,
    /// What stands in the way of getting it back as it should be. It is tried further.
    Warning(String),
    /// There will be no connection (any more). Nothing follows.
    GaveUp(GaveUp),
}
