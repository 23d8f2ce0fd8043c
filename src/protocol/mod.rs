//! The data channel: pure state machines. No clock, no randomness, no sockets, no tasks, no environment.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod smux;
