//! The message envelope: a fixed header of big-endian integers before the payload, as the agent's source lays it out.

use bytes::{BufMut, Bytes, BytesMut};
use ring::digest;
use uuid::Uuid;

/// The kinds of messages on a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Client to agent.
    InputStreamData,
    /// Agent to client.
    OutputStreamData,
    /// Both ways.
    Acknowledge,
    /// From the service: the session is over.
    ChannelClosed,
    /// From the service: the other end is there.
    StartPublication,
    /// From the service: the other end is not there.
    PausePublication,
    /// Agent to the service, never passed on.
    AgentSessionState,
}

impl MessageType {
    /// The name in the header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MessageType::InputStreamData => "input_stream_data",
            MessageType::OutputStreamData => "output_stream_data",
            MessageType::Acknowledge => "acknowledge",
            MessageType::ChannelClosed => "channel_closed",
            MessageType::StartPublication => "start_publication",
            MessageType::PausePublication => "pause_publication",
            MessageType::AgentSessionState => "agent_session_state",
        }
    }

    fn from_name(name: &[u8]) -> Option<MessageType> {
        [
            MessageType::InputStreamData,
            MessageType::OutputStreamData,
            MessageType::Acknowledge,
            MessageType::ChannelClosed,
            MessageType::StartPublication,
            MessageType::PausePublication,
            MessageType::AgentSessionState,
        ]
        .into_iter()
        .find(|kind| kind.name().as_bytes() == name)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message type.
    pub message_type: MessageType,
    /// Always 1.
    pub schema_version: u32,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Number of a data message, from 0; 0 in all others.
    pub sequence_number: i64,
    /// 1 (SYN) on the agent's first data message, 3 (SYN and FIN) on all that are not data, else 0.
    pub flags: u64,
    /// Identifies the message; acknowledgements name it.
    pub id: Uuid,
    /// Payload type of a data message; 0 in all others.
    pub payload_type: u32,
    /// The payload.
    pub payload: Bytes,
}

/// Reason that a frame cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than a header, or than the header says.
    #[error("the frame is cut short")]
    Short,
    /// The header length is not the one length there is.
    #[error("the header length is {0}")]
    HeaderLength(u32),
    /// No known message type.
    #[error("the message type is unknown")]
    MessageType,
    /// The payload length in the header is not that of the payload.
    #[error("the payload length is {0}")]
    PayloadLength(u32),
    /// The digest in the header is not that of the payload.
    #[error("the digest is not that of the payload")]
    Digest,
    /// The creation date is missing, which the agent does not accept.
    #[error("the creation date is missing")]
    Created,
}

impl Message {
    /// Decodes a frame. Nothing is copied.
    ///
    /// # Errors
    /// [`CodecError`] when the frame is not a complete message with the digest of its payload. Length and digest
    /// are not looked at in `start_publication` and `pause_publication`, where the service gets them wrong.
    pub fn decode(frame: &Bytes) -> Result<Message, CodecError> {
        let header = frame.get(..PAYLOAD_OFFSET).ok_or(CodecError::Short)?;
        let header_length = u32_at(header, 0);
        if header_length as usize + 4 != PAYLOAD_OFFSET {
            return Err(CodecError::HeaderLength(header_length));
        }
        let message_type = MessageType::from_name(trim(&header[4..36])).ok_or(CodecError::MessageType)?;
        let created = u64_at(header, 40);
        if created == 0 {
            return Err(CodecError::Created);
        }
        let payload = frame.slice(PAYLOAD_OFFSET..);
        let unchecked = matches!(message_type, MessageType::StartPublication | MessageType::PausePublication);
        if !unchecked {
            let length = u32_at(header, 116);
            if length as usize != payload.len() {
                return Err(CodecError::PayloadLength(length));
            }
            if digest::digest(&digest::SHA256, &payload).as_ref() != &header[80..112] {
                return Err(CodecError::Digest);
            }
        }
        Ok(Message {
            message_type,
            schema_version: u32_at(header, 36),
            created,
            sequence_number: u64_at(header, 48).cast_signed(),
            flags: u64_at(header, 56),
            // The low half comes first.
            id: Uuid::from_u64_pair(u64_at(header, 72), u64_at(header, 64)),
            payload_type: u32_at(header, 112),
            payload,
        })
    }

    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame =
            header_and_payload(self.message_type, self.created, self.id, self.payload_type, &self.payload);
        frame[36..40].copy_from_slice(&self.schema_version.to_be_bytes());
        number(&mut frame, self.sequence_number, self.flags);
        frame.freeze()
    }
}

/// A frame with everything but its number and flags, which [`number`] fills in.
pub(super) fn header_and_payload(
    message_type: MessageType,
    created: u64,
    id: Uuid,
    payload_type: u32,
    payload: &[u8],
) -> BytesMut {
    let mut frame = BytesMut::with_capacity(PAYLOAD_OFFSET + payload.len());
    frame.put_u32(HEADER_LENGTH);
    let mut name = [b' '; 32];
    let bytes = message_type.name().as_bytes();
    name[..bytes.len()].copy_from_slice(bytes);
    frame.put_slice(&name);
    frame.put_u32(SCHEMA_VERSION);
    frame.put_u64(created);
    frame.put_i64(0);
    frame.put_u64(0);
    let (high, low) = id.as_u64_pair();
    frame.put_u64(low);
    frame.put_u64(high);
    frame.put_slice(digest::digest(&digest::SHA256, payload).as_ref());
    frame.put_u32(payload_type);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame
}

/// Fills in a frame's number and flags.
pub(super) fn number(frame: &mut BytesMut, sequence_number: i64, flags: u64) {
    frame[48..56].copy_from_slice(&sequence_number.to_be_bytes());
    frame[56..64].copy_from_slice(&flags.to_be_bytes());
}

/// An acknowledgement of a message.
pub(crate) fn acknowledge(created: u64, message_type: MessageType, id: Uuid, sequence_number: i64) -> Bytes {
    let payload = format!(
        "{{\"AcknowledgedMessageType\":\"{}\",\"AcknowledgedMessageId\":\"{id}\",\
         \"AcknowledgedMessageSequenceNumber\":{sequence_number},\"IsSequentialMessage\":true}}",
        message_type.name()
    );
    let mut frame = header_and_payload(MessageType::Acknowledge, created, new_id(), 0, payload.as_bytes());
    number(&mut frame, 0, SYN_AND_FIN);
    frame.freeze()
}

/// A new message id.
pub(super) fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}

/// Milliseconds since 1970, as messages carry them.
pub(super) fn now_millis() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn trim(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|&b| b != 0 && b != b' ').map_or(0, |last| last + 1);
    &name[..end]
}

fn u32_at(header: &[u8], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[offset..offset + 4]);
    u32::from_be_bytes(bytes)
}

fn u64_at(header: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[offset..offset + 8]);
    u64::from_be_bytes(bytes)
}

/// Offset of the payload, less the four bytes of its length (agent source).
const HEADER_LENGTH: u32 = 116;
const PAYLOAD_OFFSET: usize = 120;
const SCHEMA_VERSION: u32 = 1;
/// Flag of the agent's first data message.
pub(super) const SYN: u64 = 1;
/// Flags of everything that is not data.
pub(super) const SYN_AND_FIN: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn recorded() -> Vec<(String, String, Bytes)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors");
        let mut frames = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let vector: Value = serde_json::from_str(&text).unwrap();
            for frame in vector["frames"].as_array().unwrap() {
                if let Some(hex) = frame["hex"].as_str() {
                    frames.push((
                        frame["from"].as_str().unwrap().to_owned(),
                        frame["kind"].as_str().unwrap().to_owned(),
                        Bytes::from(hex::decode(hex).unwrap()),
                    ));
                }
            }
        }
        frames
    }

    #[test]
    fn recorded_frames_come_back_byte_for_byte() {
        let frames = recorded();
        assert!(frames.len() > 80, "{}", frames.len());
        for (from, kind, frame) in frames {
            let message = Message::decode(&frame).unwrap();
            assert_eq!(message.message_type.name(), kind);
            if from == "agent" {
                assert_eq!(message.encode(), frame, "{kind}");
            }
        }
    }

    #[test]
    fn acknowledgements_are_written_as_recorded() {
        let mut seen = 0;
        for (from, kind, frame) in recorded() {
            if from != "agent" || kind != "acknowledge" {
                continue;
            }
            let message = Message::decode(&frame).unwrap();
            let content: Value = serde_json::from_slice(&message.payload).unwrap();
            let id = Uuid::parse_str(content["AcknowledgedMessageId"].as_str().unwrap()).unwrap();
            let number = content["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
            let ours = acknowledge(message.created, MessageType::InputStreamData, id, number);
            // All but the acknowledgement's own random id.
            assert_eq!(ours[..64], frame[..64]);
            assert_eq!(ours[80..], frame[80..]);
            seen += 1;
        }
        assert!(seen > 10);
    }

    #[test]
    fn damaged_frames_are_refused() {
        let mut frame = header_and_payload(MessageType::InputStreamData, 1, new_id(), 1, b"abc");
        assert!(Message::decode(&frame.clone().freeze()).is_ok());
        assert_eq!(Message::decode(&frame.clone().freeze().slice(..119)), Err(CodecError::Short));
        assert_eq!(Message::decode(&frame.clone().freeze().slice(..122)), Err(CodecError::PayloadLength(3)));
        frame[122] ^= 1;
        assert_eq!(Message::decode(&frame.clone().freeze()), Err(CodecError::Digest));
        frame[4] = b'?';
        assert_eq!(Message::decode(&frame.clone().freeze()), Err(CodecError::MessageType));
        frame[3] = 0;
        assert_eq!(Message::decode(&frame.freeze()), Err(CodecError::HeaderLength(0)));
    }
}
