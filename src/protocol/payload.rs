//! The payloads that are not user data: JSON bodies and flags.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::message::{Message, MessageType};

/// The first frame of every websocket, a text frame.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OpenDataChannel<'a> {
    pub message_schema_version: &'static str,
    pub request_id: Uuid,
    pub token_value: &'a str,
    pub client_id: Uuid,
    pub client_version: &'a str,
}

impl OpenDataChannel<'_> {
    pub(super) fn to_json(&self) -> String {
        to_json(self)
    }
}

/// The body of an acknowledgement. Some agents reject other values than these.
pub(super) fn acknowledgement_of(message: &Message) -> Bytes {
    to_json(&AcknowledgeOut {
        acknowledged_message_type: message.message_type.as_str(),
        acknowledged_message_id: message.id,
        acknowledged_message_sequence_number: message.sequence,
        is_sequential_message: true,
    })
    .into()
}

/// The sequence number that an acknowledgement of client data names.
///
/// # Errors
/// When the payload is not an acknowledgement of `input_stream_data`.
pub(super) fn acknowledged_sequence(payload: &[u8]) -> Result<i64, PayloadError> {
    let body: AcknowledgeIn = serde_json::from_slice(payload).map_err(|_| PayloadError("acknowledgement"))?;
    if body.acknowledged_message_type != MessageType::InputStreamData.as_str() {
        return Err(PayloadError("acknowledgement"));
    }
    Ok(body.acknowledged_message_sequence_number)
}

/// The reason that a `channel_closed` frame gives, empty when it gives none. An unreadable body still closes.
pub(super) fn closed_output(payload: &[u8]) -> String {
    serde_json::from_slice::<ChannelClosed>(payload).ok().and_then(|body| body.output).unwrap_or_default()
}

/// The agent's proof of the data key, and the client's answer: base64.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Challenge {
    pub challenge: String,
}

/// A payload that is not what its type says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the {0} cannot be read")]
pub struct PayloadError(pub(super) &'static str);

/// Signals between client and agent, payload type 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// The local side of a basic port session has closed; the agent closes its connection to the destination.
    DisconnectToPort,
    /// End the session (agents after 2.3.722.0).
    TerminateSession,
    /// From the agent: it could not reach the destination.
    ConnectToPortError,
}

impl Flag {
    pub(super) fn payload(self) -> Bytes {
        let value: u32 = match self {
            Flag::DisconnectToPort => 1,
            Flag::TerminateSession => 2,
            Flag::ConnectToPortError => 3,
        };
        Bytes::copy_from_slice(&value.to_be_bytes())
    }

    pub(super) fn from_payload(payload: &[u8]) -> Option<Flag> {
        match u32::from_be_bytes(*payload.first_chunk()?) {
            1 => Some(Flag::DisconnectToPort),
            2 => Some(Flag::TerminateSession),
            3 => Some(Flag::ConnectToPortError),
            _ => None,
        }
    }
}

/// A terminal's size in character cells, payload type 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TerminalSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl TerminalSize {
    pub(super) fn payload(self) -> Bytes {
        to_json(&self).into()
    }
}

/// The exit status in the text that an agent sends as payload type 12, `EXIT_CODE: <n>`.
pub(super) fn exit_code(payload: &[u8]) -> Option<i32> {
    std::str::from_utf8(payload).ok()?.trim().strip_prefix("EXIT_CODE:")?.trim().parse().ok()
}

/// These structures hold strings and numbers only; serialising them cannot fail.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AcknowledgeOut {
    acknowledged_message_type: &'static str,
    acknowledged_message_id: Uuid,
    acknowledged_message_sequence_number: i64,
    is_sequential_message: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AcknowledgeIn<'a> {
    #[serde(borrow)]
    acknowledged_message_type: std::borrow::Cow<'a, str>,
    acknowledged_message_sequence_number: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChannelClosed {
    #[serde(default)]
    output: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_read_from_the_agents_text() {
        assert_eq!(exit_code(b"EXIT_CODE: 2"), Some(2));
        assert_eq!(exit_code(b"EXIT_CODE: -1\n"), Some(-1));
        assert_eq!(exit_code(b"EXIT_CODE: x"), None);
        assert_eq!(exit_code(b"\xff"), None);
    }

    #[test]
    fn flags_of_wrong_size_or_value_are_unknown() {
        assert_eq!(Flag::from_payload(&[0, 0, 0, 3]), Some(Flag::ConnectToPortError));
        assert_eq!(Flag::from_payload(&[0, 0, 3]), None);
        assert_eq!(Flag::from_payload(&[0, 0, 0, 9]), None);
        for flag in [Flag::DisconnectToPort, Flag::TerminateSession, Flag::ConnectToPortError] {
            assert_eq!(Flag::from_payload(&flag.payload()), Some(flag));
        }
    }

    #[test]
    fn acknowledgements_of_something_else_are_refused() {
        let body = |kind: &str| {
            format!(
                r#"{{"AcknowledgedMessageType":"{kind}","AcknowledgedMessageId":"x","AcknowledgedMessageSequenceNumber":7,"IsSequentialMessage":true}}"#
            )
        };
        assert_eq!(acknowledged_sequence(body("input_stream_data").as_bytes()), Ok(7));
        assert!(acknowledged_sequence(body("output_stream_data").as_bytes()).is_err());
        assert!(acknowledged_sequence(b"{}").is_err());
        assert!(acknowledged_sequence(b"\xff").is_err());
    }

    #[test]
    fn a_closing_without_a_readable_body_closes_without_a_reason() {
        assert_eq!(closed_output(br#"{"SessionId":"s","Output":"bye"}"#), "bye");
        assert_eq!(closed_output(br#"{"SessionId":"s","Output":null}"#), "");
        assert_eq!(closed_output(b"garbage"), "");
    }
}
