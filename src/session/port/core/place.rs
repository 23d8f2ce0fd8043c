//! Places of connections.

use std::collections::BTreeMap;

use super::api::{ConnectionId, DestinationId, SessionId};
use crate::smux::StreamId;

/// All connections, and where each one is.
pub(super) type Connections = BTreeMap<ConnectionId, Place>;

/// Place of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub destination: DestinationId,
    /// `None` while it waits for a session.
    pub stream: Option<(SessionId, StreamId)>,
}
