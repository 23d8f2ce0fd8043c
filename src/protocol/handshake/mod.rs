//! The handshake: the agent's requests at the start of a session, and our responses.
//!
//! ```text
//! agent  HandshakeRequest   {"AgentVersion":…,"RequestedClientActions":[SessionType, KMSEncryption?]}
//! client HandshakeResponse  {"ClientVersion":…,"ProcessedClientActions":[…],"Errors":…}
//! agent  EncryptionChallengeRequest, client …Response      (with KMSEncryption only)
//! agent  HandshakeComplete  {"HandshakeTimeToComplete":…,"CustomerMessage":…}
//! ```
//!
//! In scope: the order of these messages, each of which is taken once; reading the request, building the response,
//! remembering what it decided. The data key comes from outside. Out of scope: what a message means for the session, and
//! when ours are sent, which `channel` decides.

mod bodies;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;

use self::bodies::{
    FAILED, HandshakeComplete, HandshakeRequest, HandshakeResponse, KmsEncryptionResponse, ProcessedAction,
    UNSUPPORTED,
};
use super::agent_version::{AgentVersion, Capabilities};
use super::cipher::{Cipher, DataKey};
use super::payload::{Challenge, PayloadError, to_json};

/// Kinds of sessions.
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
    /// Returns whether we listen locally, rather than stdin and stdout being the connection.
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

/// Outcome of a handshake message.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this HandshakeResponse.
    Respond(Bytes),
    /// First get this data key.
    NeedDataKey(DataKeyRequest),
}

/// The message that the handshake waits for.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The agent's request.
    Request,
    /// The data key, which the request asked for.
    DataKey(DataKeyRequest),
    /// The agent's challenge, or the end: the key is there.
    Challenge,
    /// The end.
    Complete,
    /// None any more.
    Over,
}

/// A handshake message that is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum HandshakeError {
    /// It cannot be read.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// It does not come at this point, or came before.
    #[error("this message was not expected in the handshake")]
    OutOfOrder,
    /// It ended the handshake before there was a data key.
    #[error("the agent ended the handshake before it had the data key")]
    NoDataKey,
    /// It is longer than [`MAX_MESSAGE`], or asks for more than [`MAX_ACTIONS`].
    #[error("the agent's handshake message is too large")]
    TooLarge,
}

/// The client's side of the handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    client_version: String,
    capabilities: Capabilities,
    session: Option<SessionKind>,
    actions: Vec<ProcessedAction>,
    stage: Stage,
}

impl Handshake {
    pub(super) fn new(client_version: String) -> Handshake {
        Handshake {
            client_version,
            capabilities: Capabilities::default(),
            session: None,
            actions: Vec::new(),
            stage: Stage::Request,
        }
    }

    /// Returns the capabilities of the agent; none before its request.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The session kind that the request named, if it was one we know.
    pub(super) fn session(&self) -> Option<&SessionKind> {
        self.session.as_ref()
    }

    /// Takes the agent's request, once.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake then waits for what it waited for before.
    pub(super) fn handle_request(&mut self, payload: &[u8]) -> Result<Step, HandshakeError> {
        if self.stage != Stage::Request {
            return Err(HandshakeError::OutOfOrder);
        }
        let request: HandshakeRequest =
            serde_json::from_slice(bounded(payload)?).map_err(|_| PayloadError("handshake request"))?;
        let actions = request.requested_client_actions.unwrap_or_default();
        if actions.len() > MAX_ACTIONS {
            return Err(HandshakeError::TooLarge);
        }
        let version = request.agent_version.as_deref().and_then(AgentVersion::parse);
        self.capabilities = Capabilities::of(version.as_ref());
        tracing::debug!(
            agent_version = request.agent_version.as_deref().unwrap_or("unknown"),
            actions = actions.len(),
            "handshake request"
        );
        self.stage = Stage::Complete;
        for action in actions {
            let parameters = action.action_parameters;
            let outcome = match action.action_type.as_str() {
                "SessionType" => self.set_session(&parameters),
                KMS_ENCRYPTION => {
                    self.stage = Stage::DataKey(data_key_request(&parameters));
                    Ok(Value::Null)
                }
                other => Err((UNSUPPORTED, format!("Unsupported action {other}"))),
            };
            self.actions.push(ProcessedAction::new(action.action_type, outcome));
        }
        Ok(match &self.stage {
            Stage::DataKey(request) => Step::NeedDataKey(request.clone()),
            _ => Step::Respond(self.response()),
        })
    }

    /// Takes the data key, or the reason why there is none. Returns the response for the agent and, with the key, the
    /// cipher; `None` when no key was requested.
    pub(super) fn handle_data_key(
        &mut self,
        result: Result<DataKey, &str>,
        nonce_prefix: [u8; 4],
    ) -> Option<(Bytes, Option<Cipher>)> {
        let Stage::DataKey(request) = &self.stage else { return None };
        let has_challenge = request.challenge.is_some();
        let (outcome, cipher) = match result {
            Ok(key) => {
                let answer = KmsEncryptionResponse {
                    kms_cipher_text_key: BASE64_STANDARD.encode(&key.ciphertext),
                    kms_cipher_text_hash: None,
                    challenge_acknowledgement: has_challenge,
                };
                let answer = serde_json::to_value(answer).unwrap_or_default();
                (Ok(answer), Some(Cipher::new(&key, nonce_prefix)))
            }
            Err(reason) => (Err((FAILED, reason.chars().take(MAX_REASON).collect())), None),
        };
        self.stage = if cipher.is_some() { Stage::Challenge } else { Stage::Over };
        if let Some(action) = self.actions.iter_mut().find(|action| action.action_type == KMS_ENCRYPTION) {
            *action = ProcessedAction::new(KMS_ENCRYPTION.into(), outcome);
        }
        Some((self.response(), cipher))
    }

    /// Takes the agent's proof of the data key, once: a peer that gets it answered can have any ciphertext of the agent
    /// encrypted anew.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake then waits for what it waited for before.
    pub(super) fn handle_challenge(&mut self, payload: &[u8]) -> Result<Challenge, HandshakeError> {
        if self.stage != Stage::Challenge {
            return Err(HandshakeError::OutOfOrder);
        }
        let challenge =
            serde_json::from_slice(bounded(payload)?).map_err(|_| PayloadError("encryption challenge"))?;
        self.stage = Stage::Complete;
        Ok(challenge)
    }

    /// Takes the end of the handshake, once. Returns the agent's message to the user, empty for none.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake then waits for what it waited for before.
    pub(super) fn handle_complete(&mut self, payload: &[u8]) -> Result<String, HandshakeError> {
        match self.stage {
            Stage::Request | Stage::Challenge | Stage::Complete => {}
            Stage::DataKey(_) => return Err(HandshakeError::NoDataKey),
            Stage::Over => return Err(HandshakeError::OutOfOrder),
        }
        let body: HandshakeComplete =
            serde_json::from_slice(bounded(payload)?).map_err(|_| PayloadError("end of the handshake"))?;
        self.stage = Stage::Over;
        Ok(body.customer_message.unwrap_or_default())
    }

    /// The session runs: there is no handshake any more.
    pub(super) fn finish(&mut self) {
        self.stage = Stage::Over;
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

fn bounded(payload: &[u8]) -> Result<&[u8], HandshakeError> {
    if payload.len() > MAX_MESSAGE { Err(HandshakeError::TooLarge) } else { Ok(payload) }
}

fn data_key_request(parameters: &Value) -> DataKeyRequest {
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    DataKeyRequest {
        key_id: text("KMSKeyId"),
        challenge: Some(text("Challenge")).filter(|challenge| !challenge.is_empty()),
    }
}

const KMS_ENCRYPTION: &str = "KMSEncryption";
/// The longest handshake message that is read, in bytes. Agents send a few hundred.
const MAX_MESSAGE: usize = 64 << 10;
/// The most actions in one request. Agents send two. Each is answered with up to three times its size.
const MAX_ACTIONS: usize = 16;
/// The most characters of a reason that the agent gets.
const MAX_REASON: usize = 1000;

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
        let (response, cipher) = ask_for_key().handle_data_key(Err("no access"), [0; 4]).unwrap();
        assert!(cipher.is_none());
        let response: Value = serde_json::from_slice(&response).unwrap();
        let action = &response["ProcessedClientActions"][0];
        assert_eq!(action["Error"], "Failed to process action KMSEncryption: no access");
        assert_eq!(response["Errors"], json!(["no access"]));
        assert!(Handshake::new("v".into()).handle_data_key(Err(""), [0; 4]).is_none());
    }

    #[test]
    fn malformed_bodies_are_errors() {
        let mut handshake = Handshake::new("v".into());
        for body in ["", "{", "[]", r#"{"RequestedClientActions":7}"#, r#"{"RequestedClientActions":[{}]}"#] {
            assert!(handshake.handle_request(body.as_bytes()).is_err(), "{body}");
        }
        assert!(handshake.handle_complete(b"nope").is_err());
        assert_eq!(
            handshake.handle_complete(br#"{"HandshakeTimeToComplete":1,"CustomerMessage":null}"#),
            Ok(String::new())
        );
    }

    #[test]
    fn each_message_is_taken_once_and_in_order() {
        let proof = br#"{"Challenge":"cHJvb2Y="}"#;
        let mut handshake = ask_for_key();
        assert_eq!(handshake.handle_challenge(proof).err(), Some(HandshakeError::OutOfOrder));
        assert_eq!(handshake.handle_complete(b"{}"), Err(HandshakeError::NoDataKey));
        let key = || DataKey { plaintext: Zeroizing::new([9; 64]), ciphertext: vec![] };
        assert!(handshake.handle_data_key(Ok(key()), [0; 4]).is_some());
        assert!(handshake.handle_data_key(Ok(key()), [0; 4]).is_none());
        assert_eq!(
            handshake.handle_challenge(b"nope").err().map(|e| e.to_string()).unwrap(),
            "the encryption challenge cannot be read"
        );
        assert!(handshake.handle_challenge(proof).is_ok());
        assert_eq!(handshake.handle_challenge(proof).err(), Some(HandshakeError::OutOfOrder));
        assert_eq!(handshake.handle_complete(b"{}"), Ok(String::new()));
        assert_eq!(handshake.handle_complete(b"{}"), Err(HandshakeError::OutOfOrder));
        assert_eq!(handshake.handle_request(b"{}").err(), Some(HandshakeError::OutOfOrder));
        assert_eq!(handshake.handle_challenge(proof).err(), Some(HandshakeError::OutOfOrder));
        assert!(handshake.handle_data_key(Err(""), [0; 4]).is_none());
    }

    #[test]
    fn a_response_is_bounded() {
        let action = |length: usize| json!({"ActionType": "x".repeat(length)});
        let request = |actions: Vec<Value>| json!({ "RequestedClientActions": actions }).to_string();
        let mut handshake = Handshake::new("v".into());
        for too_large in [request(vec![action(MAX_MESSAGE)]), request(vec![action(1); MAX_ACTIONS + 1])] {
            let refused = handshake.handle_request(too_large.as_bytes());
            assert_eq!(refused.err(), Some(HandshakeError::TooLarge));
        }
        let largest = request(vec![action(MAX_MESSAGE / MAX_ACTIONS - 50); MAX_ACTIONS]);
        let Ok(Step::Respond(response)) = handshake.handle_request(largest.as_bytes()) else { panic!() };
        assert!(response.len() < 4 * MAX_MESSAGE, "{}", response.len());
    }
}
