//! The gateway's view of a frame: enough to count it, and the few messages the service sends itself.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Fields of a frame that the gateway reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peek {
    pub kind: Kind,
    pub sequence: i64,
    pub payload: usize,
}

/// Message types the gateway tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `input_stream_data` or `output_stream_data`.
    Data,
    /// `acknowledge`.
    Acknowledge,
    /// `agent_session_state`: meant for the service.
    AgentSessionState,
    Other,
}

/// Reads the header's message type, sequence number and payload size; `None` when the frame is too short.
pub(crate) fn peek(frame: &[u8]) -> Option<Peek> {
    let header = u32::from_be_bytes(frame.get(..4)?.try_into().ok()?) as usize;
    let kind = match trimmed(frame.get(TYPE_AT..TYPE_AT + TYPE_LEN)?) {
        b"input_stream_data" | b"output_stream_data" => Kind::Data,
        b"acknowledge" => Kind::Acknowledge,
        b"agent_session_state" => Kind::AgentSessionState,
        _ => Kind::Other,
    };
    let sequence = i64::from_be_bytes(frame.get(SEQUENCE_AT..SEQUENCE_AT + 8)?.try_into().ok()?);
    let payload = frame.len().checked_sub(header.checked_add(4)?)?;
    Some(Peek { kind, sequence, payload })
}

/// `channel_closed` for a session.
pub(crate) fn channel_closed(session_id: &str, output: &str, payload_type: u32) -> Bytes {
    let id = uuid::Uuid::new_v4();
    let payload = json!({
        "MessageType": "channel_closed",
        "MessageId": id.to_string(),
        "DestinationId": session_id,
        "SessionId": session_id,
        "SchemaVersion": 1,
        "CreatedDate": "2026-01-01T00:00:00.000Z",
        "Output": output,
    });
    encode("channel_closed", id, payload_type, payload.to_string().as_bytes())
}

/// `pause_publication` (`true`) or `start_publication`. As users have seen them: the digest is not that of the
/// payload and the payload's length is little-endian.
pub(crate) fn publication(pause: bool) -> Bytes {
    let name = if pause { "pause_publication" } else { "start_publication" };
    let payload = json!({ "MessageType": name, "SchemaVersion": 1 }).to_string();
    let mut frame = BytesMut::from(&encode(name, uuid::Uuid::new_v4(), 0, payload.as_bytes())[..]);
    frame[DIGEST_AT..DIGEST_AT + 32].fill(0);
    frame[LENGTH_AT..LENGTH_AT + 4].reverse();
    frame.freeze()
}

pub(crate) fn encode(kind: &str, id: uuid::Uuid, payload_type: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + 4 + payload.len());
    out.put_u32(HEADER as u32);
    out.put_slice(kind.as_bytes());
    out.put_bytes(0, TYPE_LEN - kind.len());
    out.put_u32(1);
    out.put_u64(unix_ms());
    out.put_i64(0);
    out.put_u64(0);
    let (high, low) = id.as_bytes().split_at(8);
    out.put_slice(low);
    out.put_slice(high);
    out.put_slice(&Sha256::digest(payload));
    out.put_u32(payload_type);
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    out.freeze()
}

fn trimmed(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(0, |at| at + 1);
    &name[..end]
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The fixed header's length, as in the field of the same name: the payload's length follows it.
const HEADER: usize = 116;
const TYPE_AT: usize = 4;
const TYPE_LEN: usize = 32;
const SEQUENCE_AT: usize = 48;
const DIGEST_AT: usize = 80;
const LENGTH_AT: usize = 116;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_recorded_frames() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../vectors/port-mux.json")).expect("vector");
        let mut kinds = Vec::new();
        for frame in vectors["frames"].as_array().expect("frames") {
            let Some(hex) = frame["hex"].as_str() else { continue };
            let bytes = hex::decode(hex).expect("hex");
            let peek = peek(&bytes).expect("peek");
            let expected = match frame["kind"].as_str().expect("kind") {
                "input_stream_data" | "output_stream_data" => Kind::Data,
                "acknowledge" => Kind::Acknowledge,
                "agent_session_state" => Kind::AgentSessionState,
                _ => Kind::Other,
            };
            assert_eq!(peek.kind, expected);
            assert_eq!(peek.payload, bytes.len() - 120);
            kinds.push(peek.kind);
        }
        assert!(kinds.contains(&Kind::Data) && kinds.contains(&Kind::Acknowledge));
    }

    #[test]
    fn short_frames_are_nothing() {
        let whole = channel_closed("s", "", 0);
        assert_eq!(peek(&whole).map(|p| p.kind), Some(Kind::Other));
        for len in 0..100 {
            let _ = peek(&whole[..len]);
        }
        assert_eq!(peek(&[]), None);
        assert_eq!(peek(&[0xff; 200]), None);
    }

    #[test]
    fn publication_lengths_are_little_endian() {
        let frame = publication(true);
        let length = u32::from_le_bytes(frame[116..120].try_into().expect("four bytes"));
        assert_eq!(length as usize, frame.len() - 120);
        assert_eq!(frame[80..112], [0; 32]);
    }
}
