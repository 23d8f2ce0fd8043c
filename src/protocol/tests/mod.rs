//! Tests of the channel as a whole.

mod after_handshake;
mod encryption;
mod pause;
mod reopening;
mod silent_agent;
mod vectors;
pub(crate) mod virtual_network;

use bytes::Bytes;
use uuid::Uuid;

use super::message::{ACK_FLAGS, Message, MessageType, PayloadType};

/// A frame as an agent sends it.
fn from_agent(message_type: MessageType, sequence: i64, payload_type: PayloadType, payload: Bytes) -> Bytes {
    let flags = if message_type == MessageType::Acknowledge { ACK_FLAGS } else { 0 };
    let (created_ms, id) = (1, Uuid::from_u128(1));
    Message { message_type, created_ms, sequence, flags, id, payload_type, payload }.encode()
}
