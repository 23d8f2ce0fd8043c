//! The handshake: the agent's requests at the start of a session, and our responses.
//!
//! ```text
//! agent  HandshakeRequest   {"AgentVersion":…,"RequestedClientActions":[SessionType, KMSEncryption?]}
//! client HandshakeResponse  {"ClientVersion":…,"ProcessedClientActions":[…],"Errors":…}
//! agent  EncryptionChallengeRequest, client …Response      (with KMSEncryption only)
//! agent  HandshakeComplete  {"HandshakeTimeToComplete":…,"CustomerMessage":…}
//! ```
//!
//! In scope: reading the request, building the response, remembering what it decided. A data key is asked for and
//! given from outside. Out of scope: when these messages are sent, which `channel` decides.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::agent_version::{AgentVersion, Capabilities};
use super::cipher::{Cipher, DataKey};
use super::payload::{PayloadError, to_json};

/// What kind of session the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// A shell or a command on a terminal: `Standard_Stream`, `InteractiveCommands`.
    Shell,
    /// A command without a terminal: `NonInteractiveCommands`.
    Command,
    /// Port forwarding, or an SSH document.
    Port(PortProperties),
}

/// A port session's properties, as the document's parameters gave them. Empty strings where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortProperties {
    /// The destination's port.
    pub port_number: String,
    /// The port to listen on here; empty or "0" for any.
    pub local_port_number: String,
    /// The path to listen on when `local_connection_type` is "unix".
    pub local_unix_socket: String,
    /// "unix" for a local socket file, TCP otherwise.
    pub local_connection_type: String,
    /// `LocalPortForwarding`, or absent for SSH documents.
    pub kind: String,
}

impl PortProperties {
    /// Whether we listen locally, rather than stdin and stdout being the connection.
    pub fn is_forwarding(&self) -> bool {
        self.kind == "LocalPortForwarding"
    }

    fn from_json(value: &Value) -> PortProperties {
        let text = |name: &str| match value.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        PortProperties {
            port_number: text("portNumber"),
            local_port_number: text("localPortNumber"),
            local_unix_socket: text("localUnixSocket"),
            local_connection_type: text("localConnectionType"),
            kind: text("type"),
        }
    }
}

/// A data key that the session wants from KMS (GenerateDataKey, 64 bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRequest {
    /// The key to generate it under, an ARN, id or alias.
    pub key_id: String,
    /// Goes into the encryption context as `aws:ssm:RandomChallenge` when present.
    pub challenge: Option<String>,
}

/// What came of a handshake message.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this HandshakeResponse.
    Respond(Bytes),
    /// First get this data key.
    NeedDataKey(DataKeyRequest),
}

/// The client's side of the handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    client_version: String,
    capabilities: Capabilities,
    session: Option<SessionKind>,
    actions: Vec<ProcessedAction>,
    awaiting_key: Option<DataKeyRequest>,
}

impl Handshake {
    pub(super) fn new(client_version: String) -> Handshake {
        Handshake {
            client_version,
            capabilities: Capabilities::default(),
            session: None,
            actions: Vec::new(),
            awaiting_key: None,
        }
    }

    /// What the agent can do; nothing before its request.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The session kind that the request named, if it was one we know.
    pub(super) fn session(&self) -> Option<&SessionKind> {
        self.session.as_ref()
    }

    pub(super) fn handle_request(&mut self, payload: &[u8]) -> Result<Step, PayloadError> {
        let request: HandshakeRequest =
            serde_json::from_slice(payload).map_err(|_| PayloadError("handshake request"))?;
        let version = request.agent_version.as_deref().and_then(AgentVersion::parse);
        self.capabilities = Capabilities::of(version.as_ref());
        self.actions = Vec::new();
        self.awaiting_key = None;
        for action in request.requested_client_actions.unwrap_or_default() {
            let parameters = action.action_parameters;
            let outcome = match action.action_type.as_str() {
                "SessionType" => self.set_session(&parameters),
                "KMSEncryption" => {
                    self.awaiting_key = Some(data_key_request(&parameters));
                    Ok(Value::Null)
                }
                other => Err((UNSUPPORTED, format!("Unsupported action {other}"))),
            };
            self.actions.push(ProcessedAction::new(action.action_type, outcome));
        }
        Ok(match &self.awaiting_key {
            Some(request) => Step::NeedDataKey(request.clone()),
            None => Step::Respond(self.response()),
        })
    }

    /// Takes the data key, or the reason why there is none, and gives the response, with the cipher from now on.
    /// `None` when no key was asked for.
    pub(super) fn handle_data_key(
        &mut self,
        result: Result<DataKey, String>,
        nonce_prefix: [u8; 4],
    ) -> Option<(Bytes, Option<Cipher>)> {
        let request = self.awaiting_key.take()?;
        let (outcome, cipher) = match result {
            Ok(key) => {
                let answer = KmsEncryptionResponse {
                    kms_cipher_text_key: BASE64_STANDARD.encode(&key.ciphertext),
                    kms_cipher_text_hash: None,
                    challenge_acknowledgement: request.challenge.is_some(),
                };
                let answer = serde_json::to_value(answer).unwrap_or_default();
                (Ok(answer), Some(Cipher::new(&key, nonce_prefix)))
            }
            Err(reason) => (Err((FAILED, reason)), None),
        };
        if let Some(action) = self.actions.iter_mut().find(|action| action.action_type == "KMSEncryption") {
            *action = ProcessedAction::new("KMSEncryption".into(), outcome);
        }
        Some((self.response(), cipher))
    }

    fn set_session(&mut self, parameters: &Value) -> Result<Value, (u8, String)> {
        let name = parameters.get("SessionType").and_then(Value::as_str).unwrap_or_default();
        let properties = parameters.get("Properties").unwrap_or(&Value::Null);
        self.session = match name {
            "Standard_Stream" | "InteractiveCommands" => Some(SessionKind::Shell),
            "NonInteractiveCommands" => Some(SessionKind::Command),
            "Port" => Some(SessionKind::Port(PortProperties::from_json(properties))),
            _ => None,
        };
        match self.session {
            Some(_) => Ok(Value::Null),
            None => Err((FAILED, format!("Unknown session type {name}"))),
        }
    }

    fn response(&self) -> Bytes {
        let errors: Vec<&str> = self.actions.iter().filter_map(|action| action.reason.as_deref()).collect();
        to_json(&HandshakeResponse {
            client_version: &self.client_version,
            processed_client_actions: &self.actions,
            errors: (!errors.is_empty()).then_some(errors),
        })
        .into()
    }
}

/// The agent's message to the user, which ends the handshake (not the session); empty when it has none.
pub(super) fn customer_message(payload: &[u8]) -> Result<String, PayloadError> {
    serde_json::from_slice::<HandshakeComplete>(payload)
        .map(|body| body.customer_message.unwrap_or_default())
        .map_err(|_| PayloadError("end of the handshake"))
}

/// Answers the agent's proof of the key: the same bytes, encrypted with the client's half.
pub(super) fn answer_challenge(payload: &[u8], cipher: &mut Cipher) -> Result<Bytes, PayloadError> {
    let unreadable = PayloadError("encryption challenge");
    let body: Challenge =
        serde_json::from_slice(payload).map_err(|_| PayloadError("encryption challenge"))?;
    let Ok(sealed) = BASE64_STANDARD.decode(body.challenge) else { return Err(unreadable) };
    let Ok(proof) = cipher.decrypt(&sealed) else { return Err(unreadable) };
    let Ok(answer) = cipher.encrypt(&proof) else { return Err(unreadable) };
    Ok(to_json(&Challenge { challenge: BASE64_STANDARD.encode(answer) }).into())
}

fn data_key_request(parameters: &Value) -> DataKeyRequest {
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    DataKeyRequest {
        key_id: text("KMSKeyId"),
        challenge: Some(text("Challenge")).filter(|challenge| !challenge.is_empty()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HandshakeRequest {
    agent_version: Option<String>,
    requested_client_actions: Option<Vec<RequestedAction>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RequestedAction {
    action_type: String,
    #[serde(default)]
    action_parameters: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HandshakeResponse<'a> {
    client_version: &'a str,
    processed_client_actions: &'a [ProcessedAction],
    errors: Option<Vec<&'a str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessedAction {
    action_type: String,
    action_status: u8,
    action_result: Value,
    error: String,
    #[serde(skip)]
    reason: Option<String>,
}

impl ProcessedAction {
    fn new(action_type: String, outcome: Result<Value, (u8, String)>) -> ProcessedAction {
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

#[derive(Serialize)]
struct KmsEncryptionResponse {
    #[serde(rename = "KMSCipherTextKey")]
    kms_cipher_text_key: String,
    #[serde(rename = "KMSCipherTextHash")]
    kms_cipher_text_hash: Option<String>,
    #[serde(rename = "ChallengeAcknowledgement")]
    challenge_acknowledgement: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HandshakeComplete {
    customer_message: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Challenge {
    challenge: String,
}

const SUCCESS: u8 = 1;
const FAILED: u8 = 2;
const UNSUPPORTED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zeroize::Zeroizing;

    fn respond(request: Value) -> (Handshake, Value) {
        let mut handshake = Handshake::new("1.2.896.0".into());
        let Ok(Step::Respond(response)) = handshake.handle_request(request.to_string().as_bytes()) else {
            panic!("no response")
        };
        (handshake, serde_json::from_slice(&response).unwrap())
    }

    #[test]
    fn a_port_session_is_accepted_with_its_properties() {
        let (handshake, response) = respond(json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port", "Properties":
                {"portNumber": "5432", "localPortNumber": 15432, "type": "LocalPortForwarding", "host": null}}}]}));
        assert_eq!(
            response,
            json!({"ClientVersion": "1.2.896.0", "Errors": null, "ProcessedClientActions":
                [{"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": null, "Error": ""}]})
        );
        let Some(SessionKind::Port(port)) = handshake.session() else { panic!() };
        assert!(port.is_forwarding());
        assert_eq!((port.port_number.as_str(), port.local_port_number.as_str()), ("5432", "15432"));
        assert!(handshake.capabilities().multiplexing);
    }

    #[test]
    fn an_unknown_action_is_answered_as_unsupported_and_the_rest_is_done() {
        let (handshake, response) = respond(json!({"AgentVersion": "9.9", "RequestedClientActions": [
            {"ActionType": "Dance"},
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "InteractiveCommands"}}]}));
        assert_eq!(response["ProcessedClientActions"][0]["ActionStatus"], 3);
        assert_eq!(response["Errors"], json!(["Unsupported action Dance"]));
        assert_eq!(handshake.session(), Some(&SessionKind::Shell));
    }

    #[test]
    fn an_unknown_session_type_is_a_failed_action() {
        let (handshake, response) = respond(json!({"RequestedClientActions": [
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Telepathy"}}]}));
        let action = &response["ProcessedClientActions"][0];
        assert_eq!(action["ActionStatus"], 2);
        assert_eq!(action["Error"], "Failed to process action SessionType: Unknown session type Telepathy");
        assert_eq!(handshake.session(), None);
    }

    fn ask_for_key() -> Handshake {
        let mut handshake = Handshake::new("v".into());
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [
            {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "alias/k", "Challenge": "c"}},
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream"}}]});
        match handshake.handle_request(request.to_string().as_bytes()) {
            Ok(Step::NeedDataKey(wanted)) => {
                assert_eq!(wanted, DataKeyRequest { key_id: "alias/k".into(), challenge: Some("c".into()) });
            }
            other => panic!("{other:?}"),
        }
        handshake
    }

    #[test]
    fn a_data_key_is_passed_on_encrypted_and_the_challenge_acknowledged() {
        let key = DataKey { plaintext: Zeroizing::new([9; 64]), ciphertext: b"sealed".to_vec() };
        let (response, cipher) = ask_for_key().handle_data_key(Ok(key), [0; 4]).unwrap();
        assert!(cipher.is_some());
        let response: Value = serde_json::from_slice(&response).unwrap();
        assert_eq!(
            response["ProcessedClientActions"][0]["ActionResult"],
            json!({"KMSCipherTextKey": "c2VhbGVk", "KMSCipherTextHash": null, "ChallengeAcknowledgement": true})
        );
    }

    #[test]
    fn a_missing_data_key_is_a_failed_action_with_its_reason() {
        let (response, cipher) = ask_for_key().handle_data_key(Err("no access".into()), [0; 4]).unwrap();
        assert!(cipher.is_none());
        let response: Value = serde_json::from_slice(&response).unwrap();
        let action = &response["ProcessedClientActions"][0];
        assert_eq!(action["Error"], "Failed to process action KMSEncryption: no access");
        assert_eq!(response["Errors"], json!(["no access"]));
        assert!(Handshake::new("v".into()).handle_data_key(Err(String::new()), [0; 4]).is_none());
    }

    #[test]
    fn malformed_bodies_are_errors() {
        let mut handshake = Handshake::new("v".into());
        for body in ["", "{", "[]", r#"{"RequestedClientActions":7}"#, r#"{"RequestedClientActions":[{}]}"#] {
            assert!(handshake.handle_request(body.as_bytes()).is_err(), "{body}");
        }
        assert!(customer_message(b"nope").is_err());
        assert_eq!(
            customer_message(br#"{"HandshakeTimeToComplete":1,"CustomerMessage":null}"#),
            Ok(String::new())
        );
    }
}
