//! What a link has of a websocket.

use super::connection::Connection;
use super::open_socket::OpenSocket;
use super::opener::Opening;

/// What a link has of a websocket.
pub(super) enum Wire {
    Down,
    Opening(Opening),
    Open(Box<OpenSocket>),
    /// What a test says in the agent's place.
    #[cfg(test)]
    Script(tokio::sync::mpsc::UnboundedReceiver<bytes::Bytes>),
}

impl Wire {
    /// Whether `connection` has decided that it is to be dropped.
    pub(super) fn is_over(&self, connection: &Connection) -> bool {
        match self {
            Wire::Down => false,
            Wire::Opening(_) => !connection.is_opening(),
            Wire::Open(_) => !connection.is_open(),
            #[cfg(test)]
            Wire::Script(_) => false,
        }
    }
}
