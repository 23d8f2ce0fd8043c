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

/// Contains no user data.
fn is_harmless(message: &Message) -> bool {
    use MessageType::{Acknowledge, InputStreamData, OutputStreamData, PausePublication, StartPublication};
    match message.message_type {
        InputStreamData | OutputStreamData => {
            matches!(message.payload_type, PayloadType::Size | PayloadType::Flag | PayloadType::ExitCode)
        }
        Acknowledge | StartPublication | PausePublication => true,
        MessageType::ChannelClosed | MessageType::Other => false,
    }
}

/// A message of the handshake, or the end of the channel, without what the agent, the service and AWS say in it: commands,
/// properties, keys, reasons and errors. `None` when it is neither, or not understood.
fn cleaned(message: &Message) -> Option<Bytes> {
    use PayloadType::{HandshakeComplete, HandshakeRequest, HandshakeResponse};
    let is_handshake =
        matches!(message.payload_type, HandshakeRequest | HandshakeResponse | HandshakeComplete);
    if !is_handshake && message.message_type != MessageType::ChannelClosed {
        return None;
    }
    let mut content: Value = serde_json::from_slice(&message.payload).ok()?;
    clean(&mut content);
    Some(Message { payload: content.to_string().into(), ..message.clone() }.encode())
}

/// Replaces each text that is not known to be harmless.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if !value.is_string() || !HARMLESS.contains(&name.as_str()) {
                    clean(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::String(text) if !text.is_empty() => *text = REDACTED.to_owned(),
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
/// Range of the payload's digest in a frame's header.
const DIGEST: std::ops::Range<usize> = 80..112;
/// Fields whose text stays: what is needed to understand the course of a session and to play it again. The names are
/// those of the agent's source; all other text of the handshake and of the end is cut out.
const HARMLESS: [&str; 13] = [
    "AgentVersion",
    "ClientVersion",
    "ActionType",
    "SessionType",
    "type",
    "localConnectionType",
    "portNumber",
    "localPortNumber",
    "MessageType",
    "MessageId",
    "DestinationId",
    "SessionId",
    "CreatedDate",
];

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

    fn recorded(payload_type: PayloadType, content: &Value) -> Value {
        let line = frame("agent", message(payload_type, content.to_string().as_bytes()), false);
        let bytes = hex::decode(line["hex"].as_str().unwrap()).unwrap();
        serde_json::from_slice(&Message::decode(bytes.into()).unwrap().payload).unwrap()
    }

    #[test]
    fn properties_and_errors_are_cut_out_of_the_handshake() {
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port", "Properties": {
                "host": "db.swordfish.internal", "portNumber": "5432", "type": "LocalPortForwarding",
                "localUnixSocket": "/home/swordfish/s", "any": ["swordfish"], "flag": true}}},
        ]});
        let kept = recorded(PayloadType::HandshakeRequest, &request);
        let properties = &kept["RequestedClientActions"][0]["ActionParameters"]["Properties"];
        assert_eq!(
            *properties,
            json!({"host": REDACTED, "portNumber": "5432", "type": "LocalPortForwarding",
                "localUnixSocket": REDACTED, "any": [REDACTED], "flag": true})
        );
        let error = "AccessDeniedException: User: arn:aws:iam::123456789012:user/swordfish";
        let response = json!({"ClientVersion": "1.2.0.0", "ProcessedClientActions": [
            {"ActionType": "KMSEncryption", "ActionStatus": 2, "ActionResult": null, "Error": error}], "Errors": [error]});
        let kept = recorded(PayloadType::HandshakeResponse, &response);
        assert!(!kept.to_string().contains("swordfish"), "{kept}");
        assert_eq!(kept["ProcessedClientActions"][0]["ActionStatus"], 2);
    }

    #[test]
    fn the_last_words_are_cut_out_of_the_end() {
        let of_type = |message_type| {
            let payload = json!({"MessageType": "channel_closed", "Output": "swordfish", "SchemaVersion": 1});
            let frame_of = Message {
                message_type,
                ..Message::decode(message(PayloadType::Output, payload.to_string().as_bytes())).unwrap()
            };
            frame("agent", frame_of.encode(), false).to_string()
        };
        let hidden = hex(b"swordfish");
        let closed = of_type(MessageType::ChannelClosed);
        assert!(!closed.contains(&hidden) && closed.contains(&hex(REDACTED.as_bytes())), "{closed}");
        let other = of_type(MessageType::Other);
        assert!(!other.contains(&hidden) && other.contains("\"length\""), "{other}");
        assert!(of_type(MessageType::StartPublication).contains(&hidden), "nothing of the user's");
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
