//! The envelope around every binary frame of the data channel.
//!
//! All integers are big-endian. The header is followed by the payload; the digest is over the payload bytes as
//! they are sent, that is, after encryption.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | header length, 116; the payload starts 4 bytes after it |
//! | 4 | 32 | message type, ASCII, padded with NUL or space |
//! | 36 | 4 | schema version, 1 |
//! | 40 | 8 | created, milliseconds since 1970 |
//! | 48 | 8 | sequence number |
//! | 56 | 8 | flags |
//! | 64 | 16 | message id, a UUID with its two 8-byte halves swapped |
//! | 80 | 32 | SHA-256 of the payload |
//! | 112 | 4 | payload type |
//! | 116 | 4 | payload length |

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The header length that every known sender writes, in bytes; the length field itself comes on top.
pub const HEADER_LENGTH: usize = 116;
/// Offset of the payload in a frame with the usual header, in bytes.
pub const PAYLOAD_OFFSET: usize = HEADER_LENGTH + 4;
/// The largest frame that is read, in bytes; the websocket refuses more than this, too. Agents send 1 KiB to 32 KiB. A peer can
/// make each session hold one that never ends.
pub const MAX_FRAME: usize = 1 << 20;
/// The flags value that acknowledgements carry (SYN and FIN, as the official plugin sends them).
pub const ACK_FLAGS: u64 = 3;

/// Types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// `input_stream_data`: client to agent.
    InputStreamData,
    /// `output_stream_data`: agent to client.
    OutputStreamData,
    /// `acknowledge`.
    Acknowledge,
    /// `channel_closed`: the session has ended.
    ChannelClosed,
    /// `start_publication`: the agent is connected (again).
    StartPublication,
    /// `pause_publication`: the agent is not connected now, or we are about to be cut off for our rate.
    PausePublication,
    /// `agent_session_state` and whatever else; consumed by the service, ignored by a client.
    Other,
}

impl MessageType {
    fn from_field(field: &[u8]) -> MessageType {
        let is_padding = |b: &u8| *b == 0 || *b == b' ';
        let start = field.iter().position(|b| !is_padding(b)).unwrap_or(field.len());
        let end = field.iter().rposition(|b| !is_padding(b)).map_or(start, |last| last + 1);
        match &field[start..end] {
            b"input_stream_data" => MessageType::InputStreamData,
            b"output_stream_data" => MessageType::OutputStreamData,
            b"acknowledge" => MessageType::Acknowledge,
            b"channel_closed" => MessageType::ChannelClosed,
            b"start_publication" => MessageType::StartPublication,
            b"pause_publication" => MessageType::PausePublication,
            _ => MessageType::Other,
        }
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageType::InputStreamData => "input_stream_data",
            MessageType::OutputStreamData => "output_stream_data",
            MessageType::Acknowledge => "acknowledge",
            MessageType::ChannelClosed => "channel_closed",
            MessageType::StartPublication => "start_publication",
            MessageType::PausePublication => "pause_publication",
            MessageType::Other => "",
        }
    }
}

/// Types of payloads in data messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum PayloadType {
    /// User data in either direction: what is typed is sent as `Output`, too.
    Output,
    Error,
    Size,
    Parameter,
    HandshakeRequest,
    HandshakeResponse,
    HandshakeComplete,
    EncryptionChallengeRequest,
    EncryptionChallengeResponse,
    Flag,
    Stderr,
    ExitCode,
    /// 0 in acknowledgements, 261 in some `channel_closed` frames, anything else we do not know.
    Other(u32),
}

impl From<u32> for PayloadType {
    fn from(value: u32) -> PayloadType {
        match value {
            1 => PayloadType::Output,
            2 => PayloadType::Error,
            3 => PayloadType::Size,
            4 => PayloadType::Parameter,
            5 => PayloadType::HandshakeRequest,
            6 => PayloadType::HandshakeResponse,
            7 => PayloadType::HandshakeComplete,
            8 => PayloadType::EncryptionChallengeRequest,
            9 => PayloadType::EncryptionChallengeResponse,
            10 => PayloadType::Flag,
            11 => PayloadType::Stderr,
            12 => PayloadType::ExitCode,
            other => PayloadType::Other(other),
        }
    }
}

impl From<PayloadType> for u32 {
    fn from(value: PayloadType) -> u32 {
        match value {
            PayloadType::Output => 1,
            PayloadType::Error => 2,
            PayloadType::Size => 3,
            PayloadType::Parameter => 4,
            PayloadType::HandshakeRequest => 5,
            PayloadType::HandshakeResponse => 6,
            PayloadType::HandshakeComplete => 7,
            PayloadType::EncryptionChallengeRequest => 8,
            PayloadType::EncryptionChallengeResponse => 9,
            PayloadType::Flag => 10,
            PayloadType::Stderr => 11,
            PayloadType::ExitCode => 12,
            PayloadType::Other(other) => other,
        }
    }
}

/// Reason that a frame was not decoded. Such a frame is logged and dropped, never fatal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its own header says.
    #[error("frame of {length} bytes is shorter than its header and payload")]
    Truncated {
        /// Bytes received.
        length: usize,
    },
    /// A header shorter than the fields it must hold, or absurdly long.
    #[error("invalid header length {0}")]
    HeaderLength(u32),
    /// The frame is larger than [`MAX_FRAME`].
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
    /// The payload is not what its sender hashed.
    #[error("payload digest does not match")]
    Digest,
}

/// One decoded frame. The payload is a slice of the received buffer, not a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type of the frame.
    pub message_type: MessageType,
    /// Milliseconds since 1970 at the sender.
    pub created_ms: u64,
    /// Position in the sender's numbering, from 0; 0 in everything that is not data.
    pub sequence: i64,
    /// 1 on an agent's first data message, 3 on acknowledgements, 0 on client data.
    pub flags: u64,
    /// The id that an acknowledgement names.
    pub id: Uuid,
    /// Type of the payload.
    pub payload_type: PayloadType,
    /// The payload as sent (encrypted where the session is).
    pub payload: Bytes,
}

impl Message {
    /// Reads one binary frame.
    ///
    /// The digest and the length of publication frames are not checked: the service fills them in wrongly (its
    /// length is even little-endian).
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the frame.
    pub fn decode(frame: Bytes) -> Result<Message, DecodeError> {
        if frame.len() > MAX_FRAME {
            return Err(DecodeError::TooLarge(frame.len()));
        }
        let truncated = DecodeError::Truncated { length: frame.len() };
        let Some(header) = frame.first_chunk::<PAYLOAD_OFFSET>() else { return Err(truncated) };
        let header_length = read_u32(header, 0);
        let message_type = MessageType::from_field(&header[4..36]);
        let is_publication =
            matches!(message_type, MessageType::StartPublication | MessageType::PausePublication);

        let (payload, payload_type) = if is_publication {
            (Bytes::new(), PayloadType::Other(0))
        } else {
            let offset = usize::try_from(header_length).unwrap_or(usize::MAX);
            if !(HEADER_LENGTH..=MAX_FRAME).contains(&offset) {
                return Err(DecodeError::HeaderLength(header_length));
            }
            let length_field = frame.get(offset..offset + 4).ok_or(truncated)?;
            let length = read_u32(length_field, 0) as usize;
            let start = offset + 4;
            if frame.len() - start < length {
                return Err(DecodeError::Truncated { length: frame.len() });
            }
            let payload = frame.slice(start..start + length);
            if Sha256::digest(&payload)[..] != header[80..112] {
                return Err(DecodeError::Digest);
            }
            (payload, PayloadType::from(read_u32(header, 112)))
        };
        Ok(Message {
            message_type,
            created_ms: read_u64(header, 40),
            sequence: read_u64(header, 48) as i64,
            flags: read_u64(header, 56),
            id: read_id(header),
            payload_type,
            payload,
        })
    }

    /// Writes this message as one binary frame.
    pub fn encode(&self) -> Bytes {
        let mut frame = BytesMut::with_capacity(PAYLOAD_OFFSET + self.payload.len());
        frame.put_bytes(0, PAYLOAD_OFFSET);
        frame.put_slice(&self.payload);
        self.seal(frame)
    }

    /// Fills in the header of a frame whose payload already stands behind [`PAYLOAD_OFFSET`] zero bytes, so that
    /// bytes from many small writes are copied once. `self.payload` is ignored.
    ///
    /// # Panics
    /// If the buffer is shorter than the header, which its callers in this module tree never pass.
    pub(super) fn seal(&self, mut frame: BytesMut) -> Bytes {
        let (header, payload) = frame.split_at_mut(PAYLOAD_OFFSET);
        let mut out: &mut [u8] = header;
        out.put_u32(HEADER_LENGTH as u32);
        let name = self.message_type.as_str().as_bytes();
        out.put_slice(name);
        out.put_bytes(b' ', 32 - name.len());
        out.put_u32(SCHEMA_VERSION);
        out.put_u64(self.created_ms);
        out.put_i64(self.sequence);
        out.put_u64(self.flags);
        let (high, low) = self.id.as_u64_pair();
        out.put_u64(low);
        out.put_u64(high);
        out.put_slice(&Sha256::digest(&*payload));
        out.put_u32(self.payload_type.into());
        out.put_u32(payload.len() as u32);
        frame.freeze()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b))
}

fn read_id(header: &[u8]) -> Uuid {
    Uuid::from_u64_pair(read_u64(header, 72), read_u64(header, 64))
}

const SCHEMA_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let types = prop_oneof![
            Just(MessageType::InputStreamData),
            Just(MessageType::OutputStreamData),
            Just(MessageType::Acknowledge),
            Just(MessageType::ChannelClosed)
        ];
        let payload = proptest::collection::vec(any::<u8>(), 0..3000);
        (types, any::<u64>(), any::<i64>(), any::<u64>(), any::<u128>(), any::<u32>(), payload).prop_map(
            |(message_type, created_ms, sequence, flags, id, payload_type, payload)| Message {
                message_type,
                created_ms,
                sequence,
                flags,
                id: Uuid::from_u128(id),
                payload_type: payload_type.into(),
                payload: payload.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(message in any_message()) {
            prop_assert_eq!(Message::decode(message.encode()).unwrap(), message);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Message::decode(bytes.into());
        }

        #[test]
        fn a_damaged_frame_is_refused_or_differs_only_in_its_header(
            message in any_message(), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let mut frame = message.encode().to_vec();
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            if let Ok(decoded) = Message::decode(frame.into())
                && !matches!(decoded.message_type, MessageType::StartPublication | MessageType::PausePublication)
            {
                prop_assert_eq!(decoded.payload, message.payload);
            }
        }
    }

    fn publication(name: &str, length: [u8; 4]) -> Bytes {
        let mut frame = vec![0u8; PAYLOAD_OFFSET];
        frame[4..4 + name.len()].copy_from_slice(name.as_bytes());
        frame[116..120].copy_from_slice(&length);
        frame.into()
    }

    #[test]
    fn publication_frames_pass_with_empty_headers_and_wrong_lengths() {
        let start = Message::decode(publication("start_publication", [9, 0, 0, 0])).unwrap();
        assert_eq!(start.message_type, MessageType::StartPublication);
        let pause = Message::decode(publication("pause_publication", [0; 4])).unwrap();
        assert_eq!(pause.message_type, MessageType::PausePublication);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let message = Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence: 0,
            flags: 0,
            id: Uuid::nil(),
            payload_type: PayloadType::Output,
            payload: Bytes::from_static(b"hello"),
        };
        let good = message.encode().to_vec();
        let with = |at: usize, value: u32| {
            let mut frame = good.clone();
            frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
            Message::decode(frame.into()).unwrap_err()
        };
        assert_eq!(with(0, 0), DecodeError::HeaderLength(0));
        assert_eq!(with(0, u32::MAX), DecodeError::HeaderLength(u32::MAX));
        assert_eq!(with(0, 4000), DecodeError::Truncated { length: 125 });
        assert_eq!(with(116, u32::MAX), DecodeError::Truncated { length: 125 });
        assert_eq!(with(116, 4), DecodeError::Digest);
        assert_eq!(Message::decode(Bytes::from_static(b"x")), Err(DecodeError::Truncated { length: 1 }));
        assert_eq!(Message::decode(vec![0; MAX_FRAME + 1].into()), Err(DecodeError::TooLarge(MAX_FRAME + 1)));
    }
}
