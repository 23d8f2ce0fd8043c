//! Configuration of a session.

use super::frame::HEADER_LEN;
use super::keepalive::KeepAlive;

/// Ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens streams 3, 5, 7, ... and accepts none.
    Client,
    /// Accepts streams, and may open 2, 4, 6, ...
    Server,
}

/// Configuration of a session.
#[derive(Clone, Debug)]
pub struct Config {
    /// This end's role.
    pub role: Role,
    /// Off for agents newer than 3.1.1511.0, which turn theirs off too; on for older ones.
    pub keepalive: Option<KeepAlive>,
    /// The largest payload of a frame to send, in bytes, 1 to 65,535, and so the longest turn of a stream.
    pub max_frame: u16,
    /// The most streams at a time. Those that only wait for the peer's FIN count.
    pub max_streams: usize,
    /// The most bytes queued for sending per stream.
    pub send_buffer: usize,
}

impl Config {
    /// The defaults for `role`: no keepalive, 4,088-byte frames, 1,024 streams, 32 KiB per stream.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            keepalive: None,
            max_frame: DEFAULT_MAX_FRAME,
            max_streams: DEFAULT_MAX_STREAMS,
            send_buffer: DEFAULT_SEND_BUFFER,
        }
    }
}

/// Four messages of 1,024 bytes with the header: 0.2 % of overhead (0.8 % for a frame a message), and at 900
/// messages a second no stream waits longer than 4.4 ms for another stream's frame (smux's own 32 KiB: 36 ms).
const DEFAULT_MAX_FRAME: u16 = (4 * 1024 - HEADER_LEN) as u16;

/// The agent's smux lets 1,024 streams wait for its accept loop and then stops reading.
const DEFAULT_MAX_STREAMS: usize = 1024;

/// 35 ms of what the service lets through: enough to fill messages, little enough that the local sender is
/// slowed soon.
const DEFAULT_SEND_BUFFER: usize = 32 * 1024;
