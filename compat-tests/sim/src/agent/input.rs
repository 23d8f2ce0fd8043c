//! The client's messages to a session: flags, and what becomes of a message.

/// Outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handled {
    /// It is to be acknowledged.
    Taken,
    /// It is not to be acknowledged: the client sends it again.
    Refused,
    /// It is to be acknowledged, and the session ends at once.
    Terminate,
}

/// A flag's value, from a payload.
pub(super) fn flag(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// From the client: its connection was closed; the agent closes its own and waits for data.
pub(super) const DISCONNECT_TO_PORT: u32 = 1;
/// From the client: end the session.
pub(super) const TERMINATE_SESSION: u32 = 2;
/// From the agent: the destination could not be reached.
pub(super) const CONNECT_TO_PORT_ERROR: u32 = 3;

/// The last agent version that does not know the flag TerminateSession (client source).
pub(super) const LAST_WITHOUT_TERMINATE: &str = "2.3.722.0";
