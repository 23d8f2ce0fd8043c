//! Frames of an agent in a forwarding session, for the tests of the layers above a channel.

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{Message, MessageType, PayloadType};

/// The answer to a frame of ours, if it has one.
pub(crate) fn acknowledge(frame: Bytes) -> Option<Bytes> {
    let message = Message::decode(frame).unwrap();
    (message.message_type == MessageType::InputStreamData).then(|| {
        let payload = serde_json::json!({
            "AcknowledgedMessageType": "input_stream_data",
            "AcknowledgedMessageId": message.id.to_string(),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": true,
        });
        let payload = payload.to_string().into_bytes().into();
        from_agent(MessageType::Acknowledge, 0, PayloadType::Other(0), payload)
    })
}
