//! One frame as a line of a recording.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::protocol::message::{Message, MessageType, PAYLOAD_OFFSET, PayloadType};

/// The client's opening text frame.
pub(super) fn opening(text: &str) -> Value {
    let text = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(mut fields)) => {
            for (name, value) in &mut fields {
                if name.eq_ignore_ascii_case("TokenValue") {
                    *value = json!(REDACTED);
                }
            }
            Value::Object(fields)
        }
        _ => json!(REDACTED),
    };
    json!({"from": "client", "kind": "open (text frame)", "text": text})
}

/// A binary frame, with the payload or without.
pub(super) fn frame(from: &str, frame: Bytes, payloads: bool) -> Value {
    let mut line = Map::new();
    line.insert("from".to_owned(), json!(from));
    let message = match Message::decode(frame.clone()) {
        Ok(message) => message,
        Err(error) => {
            line.insert("kind".to_owned(), json!("not understood"));
            line.insert("error".to_owned(), json!(error.to_string()));
            if payloads {
                line.insert("hex".to_owned(), json!(hex(&frame)));
            } else {
                line.insert("payload".to_owned(), json!({"length": frame.len()}));
            }
            return Value::Object(line);
        }
    };
    line.insert("kind".to_owned(), json!(message.message_type.as_str()));
    if payloads || is_harmless(&message) {
        line.insert("hex".to_owned(), json!(hex(&frame)));
    } else if let Some(cleaned) = cleaned(&message) {
        line.insert("hex".to_owned(), json!(hex(&cleaned)));
    } else {
        line.insert("head".to_owned(), json!(hex(&head(&frame))));
        line.insert("payload".to_owned(), withheld(&message.payload));
    }
    Value::Object(line)
}

/// Nothing of the user's is in it.
fn is_harmless(message: &Message) -> bool {
    match message.message_type {
        MessageType::InputStreamData | MessageType::OutputStreamData => {
            matches!(message.payload_type, PayloadType::Size | PayloadType::Flag | PayloadType::ExitCode)
        }
        _ => true,
    }
}

/// A message of the handshake without commands and keys. `None` when it is not one, or not understood.
fn cleaned(message: &Message) -> Option<Bytes> {
    use PayloadType::{HandshakeComplete, HandshakeRequest, HandshakeResponse};
    if !matches!(message.payload_type, HandshakeRequest | HandshakeResponse | HandshakeComplete) {
        return None;
    }
    let mut content: Value = serde_json::from_slice(&message.payload).ok()?;
    clean(&mut content);
    Some(Message { payload: content.to_string().into(), ..message.clone() }.encode())
}

fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_private = PRIVATE.iter().any(|private| name.eq_ignore_ascii_case(private));
                if is_private && value.as_str().is_some_and(|text| !text.is_empty()) {
                    *value = json!(REDACTED);
                } else if is_private && value.is_array() {
                    *value = json!([REDACTED]);
                } else {
                    clean(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        _ => {}
    }
}

/// The header, without the digest of the payload, which could tell a short one.
fn head(frame: &Bytes) -> Vec<u8> {
    let mut head = frame.get(..PAYLOAD_OFFSET).unwrap_or_default().to_vec();
    if let Some(digest) = head.get_mut(DIGEST) {
        digest.fill(0);
    }
    head
}

fn withheld(payload: &[u8]) -> Value {
    match payload.len() {
        length if length < MIN_HASHED => json!({"length": length}),
        length => json!({"length": length, "sha256": hex(&Sha256::digest(payload))}),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

const REDACTED: &str = "[redacted]";
/// Where a frame's header holds the payload's digest.
const DIGEST: std::ops::Range<usize> = 80..112;
/// Fields of the agent's handshake (as its source names them) that hold what the user runs, or a key.
const PRIVATE: [&str; 6] =
    ["Commands", "Command", "KMSCipherTextKey", "KMSCipherTextHash", "KMSKeyId", "CustomerMessage"];

/// Shorter payloads could be guessed from their digest: single keys, passwords.
pub(super) const MIN_HASHED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload_type: PayloadType, payload: &[u8]) -> Bytes {
        Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 5,
            sequence: 3,
            flags: 1,
            id: uuid::Uuid::from_u128(9),
            payload_type,
            payload: Bytes::copy_from_slice(payload),
        }
        .encode()
    }

    #[test]
    fn what_was_shown_becomes_a_length_and_a_digest() {
        let secret = b"the password is swordfish, and this line is longer than sixty-four bytes";
        let line = frame("agent", message(PayloadType::Output, secret), false);
        let text = line.to_string();
        assert!(!text.contains(&hex(b"swordfish")) && !text.contains("swordfish"), "{text}");
        assert_eq!(line["payload"]["length"], secret.len());
        assert_eq!(line["payload"]["sha256"], hex(&Sha256::digest(secret)));
        let head = line["head"].as_str().unwrap();
        assert_eq!(head.len(), 2 * PAYLOAD_OFFSET);
        assert!(!head.contains(&hex(&Sha256::digest(secret))));
    }

    #[test]
    fn a_single_key_cannot_be_guessed() {
        let line = frame("client", message(PayloadType::Output, b"k"), false);
        assert_eq!(line["payload"], json!({"length": 1}));
        assert!(!line.to_string().contains(&hex(&Sha256::digest(b"k"))));
    }

    #[test]
    fn the_handshake_stays_but_for_commands_and_keys() {
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "InteractiveCommands",
                "Properties": {"linux": {"commands": "mysql -pswordfish", "runAsElevated": true}}}},
            {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "arn:aws:kms:key"}},
        ]});
        let line =
            frame("agent", message(PayloadType::HandshakeRequest, request.to_string().as_bytes()), false);
        let recorded = hex::decode(line["hex"].as_str().unwrap()).unwrap();
        let recorded = Message::decode(recorded.into()).unwrap();
        let text = std::str::from_utf8(&recorded.payload).unwrap();
        assert!(text.contains("InteractiveCommands") && text.contains("3.3.0.0"), "{text}");
        assert!(!text.contains("swordfish") && !text.contains("arn:"), "{text}");
        assert_eq!((recorded.sequence, recorded.flags), (3, 1));
        let line = frame("agent", message(PayloadType::HandshakeRequest, b"no JSON swordfish"), false);
        assert!(line.get("hex").is_none(), "{line}");
    }

    #[test]
    fn sizes_flags_and_frames_that_are_not_data_are_whole() {
        for payload_type in [PayloadType::Size, PayloadType::Flag] {
            let bytes = message(payload_type, b"{}");
            assert_eq!(frame("client", bytes.clone(), false)["hex"], hex(&bytes));
        }
        let bytes = message(PayloadType::Output, b"secret");
        assert_eq!(frame("client", bytes.clone(), true)["hex"], hex(&bytes));
    }

    #[test]
    fn nonsense_is_only_counted() {
        let line = frame("agent", Bytes::from_static(b"swordfish"), false);
        assert_eq!((&line["kind"], &line["payload"]), (&json!("not understood"), &json!({"length": 9})));
        assert!(line.get("hex").is_none());
        assert_eq!(opening("TokenValue=secret")["text"], json!(REDACTED));
    }
}
