//! The data channel: pure state machines. No clock, no randomness, no sockets, no tasks, no environment.
//!
//! `handle_*` goes in, `poll_*` comes out, time and seeds are parameters. [`Channel`] is the whole: it owns the
//! handshake, the numbering of messages and their delivery; the session above it sees bytes and events, the link below
//! it sees frames and deadlines. [`smux`](crate::smux) is the layer above a channel that carries many connections.
// Tests start their virtual clocks somewhere.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod acks;
mod agent_version;
mod api;
mod channel;
mod cipher;
mod congestion;
mod encryption;
mod handshake;
pub mod message;
mod outgoing;
mod pacing;
mod payload;
mod recv;
mod rtt;
mod send;
mod settling;
mod silent_agent;
#[cfg(test)]
pub(crate) mod tests;

pub use agent_version::Capabilities;
pub use api::{CloseReason, Config, Event, Input, Stats, Transmit};
pub use channel::Channel;
pub use cipher::{DATA_KEY_LENGTH, DataKey};
pub use handshake::{DataKeyRequest, PortProperties, SessionKind};
pub use payload::{Flag, PayloadError, TerminalSize};
