//! smux version 1 (the format of xtaci/smux), sans-IO: many byte streams over one ordered byte stream.
//!
//! [`Session`] is fed with received bytes and with the time, and is asked for bytes to send, for events and
//! for its next deadline. It never waits, reads no clock and owns no socket.
//!
//! # Wire format
//!
//! Frames follow one another without alignment; the carrier may cut the byte stream anywhere. All integers
//! are little-endian.
//!
//! ```text
//! 0         1         2                   4                                       8
//! | version | command | length: u16       | stream: u32                           | payload ...
//! ```
//!
//! | command | name | length | meaning                                                   |
//! |---------|------|--------|-----------------------------------------------------------|
//! | 0       | SYN  | 0      | opens the stream; the client's ids are 3, 5, 7, ...       |
//! | 1       | FIN  | 0      | the sender will send no more on this stream               |
//! | 2       | PSH  | any    | payload, at most 65,535 bytes                             |
//! | 3       | NOP  | 0      | keeps the session alive; stream 0                         |
//!
//! Version 1 has no windows: a receiver cannot slow one stream without slowing all. What was received but not
//! yet consumed is therefore the caller's to count (by [`Event::Data`]) and to bound.
//!
//! # A stream's life
//!
//! ```text
//!              open                     finish / close / reset
//!    (none) ----------> open ------------------------------------> finishing
//!                        |                                             | queue sent, FIN sent
//!                        | peer's FIN                                  v
//!                        v                                          finished
//!                  peer finished ---- finish, FIN sent ----> (none) <-- peer's FIN, or receiving given up
//! ```
//!
//! Each direction ends on its own: after [`Session::finish`] data still arrives until [`Event::Fin`]. The
//! state is dropped as soon as both directions have ended; frames that still come for it are counted and
//! dropped. Note that the agent's smux has no half-close: its FIN means that it has forgotten the
//! stream, so whatever is sent after [`Event::Fin`] is discarded there ([`Session::reset`] saves the
//! transfer), and on our FIN it closes the connection to the destination at once, with whatever answer was
//! under way.
//!
//! # The order of sending
//!
//! The service counts messages, not bytes, so every [`Session::poll_transmit`] is filled across streams and
//! frames. Streams take turns of one frame of at most [`Config::max_frame`] bytes. A stream that gets something
//! to send after it had nothing has its first turn before the streams that keep sending, and lines up behind
//! them after that. So a keystroke waits only for the frame being sent and for other streams that have just
//! begun, however much is queued.
//!
//! # Scope
//!
//! In scope: both roles (the server's exists for tests), half-close, keepalive, bounds in bytes for
//! everything queued here. Out of scope: version 2, reading and writing sockets, bounding received data.
//!
//! No crate fits: the well-maintained one (`async_smux`, the peer in our tests) owns its tasks and bounds its
//! queues in frames. Here queues are bounded in bytes, frames are cut when a message has room for them, and
//! every run is reproducible.

// Tests start their virtual clocks somewhere.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod config;
mod error;
mod frame;
mod keepalive;
mod schedule;
mod session;
mod stream;

pub use config::{Config, Role};
pub use error::{Error, OpenError, SendError};
pub use frame::{Decoder, Frame, FrameError, HEADER_LEN, StreamId};
pub use keepalive::KeepAlive;
pub use session::{Counters, Event, Session};

#[cfg(test)]
mod tests;
