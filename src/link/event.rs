//! Events that a link passes to its session.

use std::time::Duration;

use super::GaveUp;
use crate::protocol::Event;

/// Events from a link to its session.
#[derive(Debug)]
pub enum LinkEvent {
    /// From the data channel.
    Channel(Event),
    /// There is room for input again, after [`Link::wants_input`](super::Link::wants_input) was false.
    WantsInput,
    /// There has been no websocket for this long, and one is still being opened. Not before 3 s, then each 15 s.
    Connecting {
        /// Host that it is opened at.
        host: String,
        /// Time waited.
        waited: Duration,
    },
    /// The connection is lost and is being opened again, with the reason.
    Lost(String),
    /// The connection is back.
    Resumed,
    /// A problem while connecting that does not stop the attempts.
    Warning(String),
    /// There will be no connection any more. The last event.
    GaveUp(GaveUp),
}
