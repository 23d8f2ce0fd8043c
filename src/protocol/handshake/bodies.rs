//! The JSON of the handshake's messages.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The agent's request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HandshakeRequest {
    pub(super) agent_version: Option<String>,
    pub(super) requested_client_actions: Option<Vec<RequestedAction>>,
}

/// One action of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestedAction {
    pub(super) action_type: String,
    #[serde(default)]
    pub(super) action_parameters: Value,
}

/// The client's response.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HandshakeResponse<'a> {
    pub(super) client_version: &'a str,
    pub(super) processed_client_actions: &'a [ProcessedAction],
    pub(super) errors: Option<Vec<&'a str>>,
}

/// Outcome of one action.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProcessedAction {
    pub(super) action_type: String,
    pub(super) action_status: u8,
    pub(super) action_result: Value,
    pub(super) error: String,
    #[serde(skip)]
    pub(super) reason: Option<String>,
}

impl ProcessedAction {
    pub(super) fn new(action_type: String, outcome: Result<Value, (u8, String)>) -> ProcessedAction {
        let (action_status, action_result, error, reason) = match outcome {
            Ok(result) => (SUCCESS, result, String::new(), None),
            Err((FAILED, reason)) => (
                FAILED,
                Value::Null,
                format!("Failed to process action {action_type}: {reason}"),
                Some(reason),
            ),
            Err((status, reason)) => (status, Value::Null, reason.clone(), Some(reason)),
        };
        ProcessedAction { action_type, action_status, action_result, error, reason }
    }
}

/// Result of `KMSEncryption`.
#[derive(Serialize)]
pub(super) struct KmsEncryptionResponse {
    #[serde(rename = "KMSCipherTextKey")]
    pub(super) kms_cipher_text_key: String,
    #[serde(rename = "KMSCipherTextHash")]
    pub(super) kms_cipher_text_hash: Option<String>,
    #[serde(rename = "ChallengeAcknowledgement")]
    pub(super) challenge_acknowledgement: bool,
}

/// The agent's end of the handshake.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HandshakeComplete {
    pub(super) customer_message: Option<String>,
}

/// Statuses of a processed action (agent source, `ActionStatus`).
pub(super) const SUCCESS: u8 = 1;
pub(super) const FAILED: u8 = 2;
pub(super) const UNSUPPORTED: u8 = 3;
