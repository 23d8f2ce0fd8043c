//! Tests of the channel as a whole.

mod silent_agent;
mod vectors;
mod virtual_network;
