//! The agent against a scripted client on channels.

mod client;
mod delivery;
mod encryption;
mod handshake;
mod ports;
#[cfg(unix)]
mod shells;
mod speed;
