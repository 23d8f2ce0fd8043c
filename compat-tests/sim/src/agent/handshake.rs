//! The agent's side of the handshake.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::crypto::Cipher;
use super::receive::{Input, Receiver};
use super::send::Sender;
use super::{AgentSpec, Document, KmsPolicy, payload_type, version};

/// Result of the handshake.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) version: String,
}

/// Reason that no session starts.
#[derive(Debug)]
pub(super) enum Failure {
    /// The channel was closed during the handshake.
    Closed,
    /// In the agent's words.
    Failed(String),
}

/// Requests, waits for the response, verifies the encryption, and says that the handshake is complete.
pub(super) async fn perform(
    spec: &AgentSpec,
    receiver: &mut Receiver,
    sender: &Sender,
) -> Result<Client, Failure> {
    let started = Instant::now();
    // Ports are never encrypted (agent source).
    let kms = spec.kms.as_ref().filter(|_| !spec.document.is_port());
    let challenge = BASE64_STANDARD.encode(random::<16>());
    send_json(sender, payload_type::HANDSHAKE_REQUEST, &request(spec, kms, &challenge)).await?;

    let response = timeout(TIMEOUT, response(receiver)).await.map_err(|_| {
        Failure::Failed(
            "Handshake timed out. Please ensure that you have the latest version of the session manager plugin."
                .to_owned(),
        )
    })??;
    let mut data_key = None;
    let mut failure = None;
    for action in &response.processed_client_actions {
        let result = match (action.action_type.as_str(), kms) {
            _ if action.action_status != SUCCESS => Err(format!(
                "{} failed on client with status {} error: {}",
                action.action_type, action.action_status, action.error
            )),
            ("KMSEncryption", Some(kms)) => {
                data_key_of(spec, kms, &challenge, &action.action_result).map(|key| data_key = Some(key))
            }
            _ => Ok(()),
        };
        failure = result.err().or(failure);
    }
    if let Some(failure) = failure {
        return Err(Failure::Failed(failure));
    }

    if kms.is_some() {
        let Some(data_key) = data_key else {
            return Err(Failure::Failed("the client did not answer KMSEncryption".to_owned()));
        };
        sender.set_cipher(Cipher::new(&data_key).map_err(Failure::Failed)?);
        let plain = random::<64>();
        if let Some(cipher) = sender.cipher() {
            let challenge = EncryptionChallenge { challenge: BASE64_STANDARD.encode(cipher.seal(&plain)) };
            send_json(sender, payload_type::ENCRYPTION_CHALLENGE_REQUEST, &challenge).await?;
        }
        timeout(TIMEOUT, confirmation(receiver, sender, &plain))
            .await
            .map_err(|_| Failure::Failed("Timed out waiting for encryption challenge.".to_owned()))??;
    }

    let complete = Complete {
        time_to_complete: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        customer_message: customer_message(spec, kms.is_some(), &response.client_version),
    };
    send_json(sender, payload_type::HANDSHAKE_COMPLETE, &complete).await?;
    let ends = Instant::now() + spec.options.deaf_after_handshake;
    // Asked for first: what is there already is taken even at the end.
    while Instant::now() < ends
        && let Ok(input) = timeout_at(ends, receiver.next()).await
    {
        accept(receiver, input.ok_or(Failure::Closed)?).await?;
    }
    Ok(Client { version: response.client_version })
}

/// Waits for the handshake response. Other input is acknowledged and ignored; a response that is no JSON is not
/// acknowledged.
async fn response(receiver: &mut Receiver) -> Result<Response, Failure> {
    loop {
        let input = receiver.next().await.ok_or(Failure::Closed)?;
        if input.payload_type != payload_type::HANDSHAKE_RESPONSE {
            accept(receiver, input).await?;
            continue;
        }
        match serde_json::from_slice::<Response>(&input.payload) {
            Ok(response) => {
                accept(receiver, input).await?;
                return Ok(response);
            }
            Err(error) => {
                tracing::debug!(%error, "a handshake response that is none");
                receiver.refuse(input);
            }
        }
    }
}

/// Waits for the challenge to come back. A wrong one is not acknowledged, and nothing else happens: the agent
/// then times out.
async fn confirmation(receiver: &mut Receiver, sender: &Sender, plain: &[u8]) -> Result<(), Failure> {
    loop {
        let input = receiver.next().await.ok_or(Failure::Closed)?;
        if input.payload_type != payload_type::ENCRYPTION_CHALLENGE_RESPONSE {
            accept(receiver, input).await?;
            continue;
        }
        let answered = serde_json::from_slice::<EncryptionChallenge>(&input.payload)
            .ok()
            .and_then(|answer| BASE64_STANDARD.decode(answer.challenge).ok())
            .and_then(|message| sender.cipher()?.open(&message).ok());
        if answered.as_deref() == Some(plain) {
            return accept(receiver, input).await;
        }
        tracing::debug!("a wrong answer to the encryption challenge");
        receiver.refuse(input);
    }
}

/// Asks KMS for the data key, with the encryption context the client's answer decides.
fn data_key_of(
    spec: &AgentSpec,
    kms: &KmsPolicy,
    challenge: &str,
    result: &Value,
) -> Result<Vec<u8>, String> {
    let result: KmsResult = serde_json::from_value(result.clone()).map_err(|error| error.to_string())?;
    if kms.require_challenge && !result.challenge_acknowledgement {
        return Err("client does not support required encryption context random challenge".to_owned());
    }
    let ciphertext = BASE64_STANDARD.decode(result.cipher_text_key).map_err(|error| error.to_string())?;
    let mut context = BTreeMap::from([
        ("aws:ssm:SessionId".to_owned(), spec.session_id.clone()),
        ("aws:ssm:TargetId".to_owned(), spec.target_id.clone()),
    ]);
    if result.challenge_acknowledgement {
        context.insert("aws:ssm:RandomChallenge".to_owned(), challenge.to_owned());
    }
    (kms.decrypt)(&ciphertext, &context).map_err(|reason| {
        format!(
            "Fetching data key failed: Unable to retrieve data key, Error when decrypting data key {reason}"
        )
    })
}

fn request<'a>(spec: &'a AgentSpec, kms: Option<&'a KmsPolicy>, challenge: &'a str) -> Request<'a> {
    let mut actions = vec![Action {
        action_type: "SessionType",
        parameters: Parameters::SessionType {
            session_type: spec.document.session_type(),
            properties: match &spec.document {
                Document::PortForward { properties, .. } | Document::Ssh { properties, .. } => {
                    Some(properties)
                }
                _ => None,
            },
        },
    }];
    if let Some(kms) = kms {
        actions.push(Action {
            action_type: "KMSEncryption",
            parameters: Parameters::KmsEncryption {
                key_id: &kms.key_id,
                challenge: kms.challenge.then_some(challenge),
            },
        });
    }
    Request { agent_version: spec.options.agent_version(), actions }
}

fn customer_message(spec: &AgentSpec, encrypted: bool, client_version: &str) -> String {
    let mut message = spec.options.customer_message.clone();
    let separate =
        matches!(spec.document, Document::NonInteractiveCommand { separate_output_stream: true, .. });
    if separate && version::compare(client_version, WITHOUT_OUTPUT_SEPARATION).is_le() {
        message.push_str(
            "Please update session manager plugin version (minimum required version 1.2.312.0) \
             for fully support of separate StdOut/StdErr output.\r\n",
        );
    }
    if encrypted {
        message.push_str("This session is encrypted using AWS KMS.");
    }
    message
}

async fn send_json(sender: &Sender, payload_type: u32, content: &impl Serialize) -> Result<(), Failure> {
    let payload = serde_json::to_vec(content).map_err(|error| Failure::Failed(error.to_string()))?;
    sender.send(payload_type, &payload).await.map_err(|_| Failure::Closed)
}

async fn accept(receiver: &mut Receiver, input: Input) -> Result<(), Failure> {
    receiver.accept(input).await.map_err(|_| Failure::Closed)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    bytes.fill_with(|| fastrand::u8(..));
    bytes
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(rename = "AgentVersion")]
    agent_version: &'a str,
    #[serde(rename = "RequestedClientActions")]
    actions: Vec<Action<'a>>,
}

#[derive(Serialize)]
struct Action<'a> {
    #[serde(rename = "ActionType")]
    action_type: &'static str,
    #[serde(rename = "ActionParameters")]
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parameters<'a> {
    SessionType {
        #[serde(rename = "SessionType")]
        session_type: &'static str,
        #[serde(rename = "Properties")]
        properties: Option<&'a Map<String, Value>>,
    },
    KmsEncryption {
        #[serde(rename = "KMSKeyId")]
        key_id: &'a str,
        #[serde(rename = "Challenge", skip_serializing_if = "Option::is_none")]
        challenge: Option<&'a str>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    #[serde(default)]
    client_version: String,
    #[serde(default)]
    processed_client_actions: Vec<Processed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processed {
    action_type: String,
    action_status: i64,
    #[serde(default)]
    action_result: Value,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct KmsResult {
    #[serde(rename = "KMSCipherTextKey")]
    cipher_text_key: String,
    #[serde(rename = "ChallengeAcknowledgement", default)]
    challenge_acknowledgement: bool,
}

#[derive(Serialize, Deserialize)]
struct EncryptionChallenge {
    #[serde(rename = "Challenge")]
    challenge: String,
}

#[derive(Serialize)]
struct Complete {
    #[serde(rename = "HandshakeTimeToComplete")]
    time_to_complete: u64,
    #[serde(rename = "CustomerMessage")]
    customer_message: String,
}

/// Agent source: `handshakeTimeout`.
const TIMEOUT: Duration = Duration::from_secs(15);
const SUCCESS: i64 = 1;
/// Agent source: `clientVersionWithoutOutputSeparation`.
const WITHOUT_OUTPUT_SEPARATION: &str = "1.2.295";
