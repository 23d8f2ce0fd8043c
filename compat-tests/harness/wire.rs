//! The data channel's envelope, written apart from the plugin's so that the two check each other.
//!
//! All integers are big-endian; the header is 116 bytes, followed by the payload's length and the payload.

use sha2::{Digest, Sha256};

/// Type of an agent's messages.
pub const OUTPUT: &str = "output_stream_data";
/// Type of a client's messages.
pub const INPUT: &str = "input_stream_data";
/// Acknowledges one data message.
pub const ACKNOWLEDGE: &str = "acknowledge";
/// The agent is connected to the service again.
pub const START_PUBLICATION: &str = "start_publication";
/// The agent is not connected to the service now.
pub const PAUSE_PUBLICATION: &str = "pause_publication";
/// Ends the session.
pub const CHANNEL_CLOSED: &str = "channel_closed";

/// Payload type of bytes of the session.
pub const PAYLOAD_OUTPUT: u32 = 1;
/// Payload type of the terminal's size.
pub const PAYLOAD_SIZE: u32 = 3;
/// Payload type of the agent's handshake request.
pub const PAYLOAD_HANDSHAKE_REQUEST: u32 = 5;
/// Payload type of the client's answer to it.
pub const PAYLOAD_HANDSHAKE_RESPONSE: u32 = 6;
/// Payload type of the handshake's end.
pub const PAYLOAD_HANDSHAKE_COMPLETE: u32 = 7;
/// Payload type of the agent's encryption challenge.
pub const PAYLOAD_CHALLENGE: u32 = 8;
/// Payload type of the answer to it.
pub const PAYLOAD_CHALLENGE_RESPONSE: u32 = 9;
/// Payload type of a flag.
pub const PAYLOAD_FLAG: u32 = 10;
/// Payload type of standard error.
pub const PAYLOAD_STDERR: u32 = 11;
/// Payload type of the exit code's text.
pub const PAYLOAD_EXIT_CODE: u32 = 12;
/// The payload of a frame of 1 MiB, the largest that a client reads.
pub const LARGEST_PAYLOAD: usize = (1 << 20) - 120;

const HEADER_LENGTH: u32 = 116;
const PAYLOAD_AT: usize = 120;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Message type, without padding.
    pub message_type: String,
    /// Sequence number.
    pub sequence: i64,
    /// Flags.
    pub flags: u64,
    /// Message id, as it stands in the frame.
    pub id: [u8; 16],
    /// Payload type.
    pub payload_type: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A data message from the agent.
    pub fn output(sequence: i64, payload_type: u32, payload: impl AsRef<[u8]>) -> Frame {
        Frame {
            message_type: OUTPUT.to_owned(),
            sequence,
            flags: u64::from(sequence == 0),
            id: *uuid::Uuid::new_v4().as_bytes(),
            payload_type,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// A control message without a number.
    pub fn control(message_type: &str, payload: impl AsRef<[u8]>) -> Frame {
        Frame {
            message_type: message_type.to_owned(),
            sequence: 0,
            flags: 3,
            id: *uuid::Uuid::new_v4().as_bytes(),
            payload_type: 0,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// The acknowledgement of `message`.
    pub fn acknowledge(message: &Frame) -> Frame {
        let payload = serde_json::json!({
            "AcknowledgedMessageType": message.message_type,
            "AcknowledgedMessageId": message.uuid(),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": true,
        });
        Frame::control(ACKNOWLEDGE, payload.to_string())
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAYLOAD_AT + self.payload.len());
        bytes.extend(HEADER_LENGTH.to_be_bytes());
        let mut name = self.message_type.clone().into_bytes();
        name.resize(32, b' ');
        bytes.extend(name);
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(1_700_000_000_000u64.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.id);
        bytes.extend(Sha256::digest(&self.payload));
        bytes.extend(self.payload_type.to_be_bytes());
        bytes.extend(u32::try_from(self.payload.len()).expect("payload length").to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// From bytes; fails the test when they are no valid frame, since a client must not send one.
    #[track_caller]
    pub fn decode(bytes: &[u8]) -> Frame {
        assert!(bytes.len() >= PAYLOAD_AT, "a frame of {} bytes from the client", bytes.len());
        assert_eq!(u32::from_be_bytes(array(bytes, 0)), HEADER_LENGTH, "header length");
        let payload = bytes[PAYLOAD_AT..].to_vec();
        let length = u32::from_be_bytes(array(bytes, 116)) as usize;
        assert_eq!(length, payload.len(), "payload length");
        assert_eq!(bytes[80..112], Sha256::digest(&payload)[..], "payload digest");
        let name = String::from_utf8_lossy(&bytes[4..36]);
        Frame {
            message_type: name.trim_matches(['\0', ' ']).to_owned(),
            sequence: i64::from_be_bytes(array(bytes, 48)),
            flags: u64::from_be_bytes(array(bytes, 56)),
            id: array(bytes, 64),
            payload_type: u32::from_be_bytes(array(bytes, 112)),
            payload,
        }
    }

    /// The message id as text: its two halves are swapped on the wire.
    pub fn uuid(&self) -> String {
        let mut id = self.id;
        id.rotate_left(8);
        uuid::Uuid::from_bytes(id).to_string()
    }
}

/// The payload of `channel_closed`.
pub fn closed(session_id: &str, output: &str) -> Frame {
    let payload = serde_json::json!({
        "MessageType": CHANNEL_CLOSED, "MessageId": uuid::Uuid::new_v4().to_string(), "CreatedDate": "",
        "DestinationId": "", "SessionId": session_id, "SchemaVersion": 1, "Output": output,
    });
    Frame::control(CHANNEL_CLOSED, payload.to_string())
}

/// A smux frame: version, command, length and stream in little-endian order.
pub fn smux(version: u8, command: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, command];
    bytes.extend(u16::try_from(payload.len()).expect("smux length").to_le_bytes());
    bytes.extend(stream.to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// Bytes that a smux server acts on: frames that are complete, without data of streams that were never opened.
pub fn smux_taken(mut bytes: &[u8]) -> Vec<u8> {
    let (mut opened, mut taken) = (Vec::new(), Vec::new());
    while let Some(header) = bytes.first_chunk::<8>() {
        let [_, command, l0, l1, stream @ ..] = *header;
        let Some(frame) = bytes.get(..8 + usize::from(u16::from_le_bytes([l0, l1]))) else { break };
        bytes = &bytes[frame.len()..];
        if command == 0 {
            opened.push(stream);
        }
        if command != 2 || opened.contains(&stream) {
            taken.extend_from_slice(frame);
        }
    }
    taken
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the header")
}
