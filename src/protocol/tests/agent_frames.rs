//! Frames of an agent in a forwarding session, for the tests of the layers above a channel.

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{Message, MessageType, PayloadType};

/// The two messages of a handshake that announces a forwarded port.
pub(crate) fn handshake() -> [Bytes; 2] {
    let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"type":"LocalPortForwarding"}}}]}"#;
    [data(0, PayloadType::HandshakeRequest, request), data(1, PayloadType::HandshakeComplete, b"{}")]
}

/// Bytes of the smux session.
pub(crate) fn output(sequence: i64, bytes: &[u8]) -> Bytes {
    data(sequence, PayloadType::Output, bytes)
}

/// ConnectToPortError: the destination could not be reached.
pub(crate) fn refused(sequence: i64) -> Bytes {
    data(sequence, PayloadType::Flag, &3u32.to_be_bytes())
}

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

/// The end of the session.
pub(crate) fn closed(reason: &str) -> Bytes {
    let payload = serde_json::json!({"SessionId": "s", "Output": reason}).to_string().into_bytes();
    from_agent(MessageType::ChannelClosed, 0, PayloadType::Other(0), payload.into())
}

fn data(sequence: i64, payload_type: PayloadType, body: &[u8]) -> Bytes {
    from_agent(MessageType::OutputStreamData, sequence, payload_type, Bytes::copy_from_slice(body))
}
