//! The agent against a scripted client on channels.

mod client;
mod delivery;
mod encryption;
mod handshake;
mod ports;
mod shells;
mod speed;
