//! Inputs and outputs of a [`Channel`](super::Channel).

use std::time::Duration;

use bytes::Bytes;

use super::congestion::DEFAULT_MAX_WINDOW;
use super::handshake::{DataKeyRequest, SessionKind};
use super::pacing::DEFAULT_RATE;
use super::payload::{Flag, TerminalSize};
use crate::version::COMPATIBLE_VERSION;

/// A channel's session and limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The client version reported to service and agent. Agents decide on it: a low one switches smux keepalives
    /// on (smp#57).
    pub client_version: String,
    /// Data messages a second, 0 for no limit.
    pub message_rate: u32,
    /// Bytes of user data in one message at most.
    pub max_payload: usize,
    /// Unacknowledged payload bytes at most.
    pub max_window: usize,
    /// Time limit for the agent's first message, and then for the end of the handshake.
    pub handshake_timeout: Duration,
    /// The terminal's size in the message that asks a silent agent whether it runs a session without a handshake. The
    /// session sends its own sizes once it is ready.
    pub initial_size: TerminalSize,
    /// Time that outstanding data may go without any acknowledgement on a working socket.
    pub give_up_after: Duration,
}

impl Config {
    /// Below the service's limit (agent#664).
    pub const MESSAGE_RATE: u32 = DEFAULT_RATE;
    /// The payload of agent and official plugin (`StreamDataPayloadSize`).
    pub const MAX_PAYLOAD: usize = 1024;
    /// Largest window, in bytes.
    pub const MAX_WINDOW: usize = DEFAULT_MAX_WINDOW;
    /// Agents that start slowly take a minute (agent#636).
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
    /// The official plugin's width where no terminal tells (smp#48).
    pub const COLUMNS: u16 = 300;
    /// The official plugin's height where no terminal tells (smp#48).
    pub const LINES: u16 = 100;
}

impl Default for Config {
    /// Returns the program's defaults, which stay under the service's limits.
    fn default() -> Config {
        Config {
            client_version: COMPATIBLE_VERSION.to_owned(),
            message_rate: Config::MESSAGE_RATE,
            max_payload: Config::MAX_PAYLOAD,
            max_window: Config::MAX_WINDOW,
            handshake_timeout: Config::HANDSHAKE_TIMEOUT,
            initial_size: TerminalSize { cols: Config::COLUMNS, rows: Config::LINES },
            give_up_after: GIVE_UP_AFTER,
        }
    }
}

/// A frame for the websocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// The opening frame. It holds the token.
    Text(String),
    /// Everything else.
    Binary(Bytes),
}

/// Input of a session.
#[derive(Clone, Debug)]
pub enum Input {
    /// User data. Small pieces are joined, large ones cut.
    Bytes(Bytes),
    /// User data that is sent at once, in a separate message, while [`Channel::is_settling`](super::Channel::is_settling): the
    /// agent may take it or ignore it, and is sent a repetition after [`Event::Listening`] that counts in the second case only.
    Tentative(Bytes),
    /// The terminal's size.
    Size(TerminalSize),
    /// A signal to the agent.
    Flag(Flag),
}

/// Events for the session.
#[derive(Debug)]
pub enum Event {
    /// The session may start.
    Ready(SessionKind),
    /// Bytes from the remote side.
    Output(Bytes),
    /// Bytes of the remote command's standard error.
    Stderr(Bytes),
    /// The remote command has ended. The text is printed as it came.
    ExitCode {
        /// The status, where the text gives one.
        code: Option<i32>,
        /// The agent's words, `EXIT_CODE: <n>`.
        text: Bytes,
    },
    /// The agent's message to the user. The agent never encrypts it.
    Notice {
        /// The message as it came; in an encrypted session with its control characters made visible.
        text: String,
        /// The session is encrypted, and the message is not the one that says so: it may be the gateway's.
        is_unprotected: bool,
    },
    /// Answer with [`Channel::handle_data_key`](super::Channel::handle_data_key).
    DataKeyNeeded(DataKeyRequest),
    /// The agent could not reach the destination.
    PortRefused,
    /// The agent takes all input from now on. Only after [`Input::Tentative`].
    Listening,
    /// The agent is not connected (true), or is again (false).
    Paused(bool),
    /// Nothing that was sent has been acknowledged for this long: a destination that does not read, or a dead path.
    Stalled(Duration),
    /// The session has ended. Nothing follows.
    Closed(CloseReason),
}

/// Reason that a session has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The service closed the channel, with a reason to show or an empty one.
    #[error("the session has ended")]
    ByService(String),
    /// The agent said nothing, or did not finish the handshake.
    #[error("no answer from the agent for {0:?}")]
    HandshakeTimeout(Duration),
    /// The handshake ended without a session we know.
    #[error("unable to determine SessionType")]
    UnknownSession,
    /// The agent's part in the handshake cannot be accepted.
    #[error("{0}")]
    Handshake(String),
    /// Data was not acknowledged for too long.
    #[error("the agent has accepted no data for {0:?}")]
    GaveUp(Duration),
    /// The encryption cannot continue.
    #[error("encryption failed: {0}")]
    Encryption(String),
}

/// Counters of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stats {
    pub messages_sent: u64,
    pub bytes_sent: u64,
    pub messages_resent: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
    pub duplicates: u64,
    pub undecodable: u64,
    pub pauses: u64,
    pub websockets: u64,
    pub outstanding_bytes: usize,
    pub window: usize,
    pub rtt: Duration,
}

/// Default idle timeout of the service. The official plugin gives up after five minutes (3,000 resends at intervals of 100 ms),
/// in which a program at the destination may well be stopped; whether the path is dead is the link's to find out.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20 * 60);
