//! Configuration of a simulator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::AgentOptions;
use crate::instance::Instance;

/// The instance that exists unless [`Config::targets`] says otherwise.
pub const DEFAULT_TARGET: &str = "i-0123456789abcdef0";

/// Data messages a second the service takes from one session and direction: about a thousand by the word of an
/// AWS maintainer (amazon-ssm-agent#664) and as measured by Cyberax/gimlet.
pub const SERVICE_MESSAGE_LIMIT: u32 = 1000;

/// Everything that can be configured before a simulator starts. Most of it can be changed later through [`crate::Sim`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Serve `https://` and `wss://` with a certificate of an own authority: see [`crate::Sim::ca_pem`].
    pub tls: bool,
    /// Behaviour of agents.
    pub agent: AgentOptions,
    /// The service's limit: more data messages a second than this, kept up for two seconds, pause the agent, cut
    /// the client's websocket and soon end the session. `None`: no limit. Counted in both directions, but an
    /// agent whose own pacing is off is exempt.
    pub message_limit: Option<u32>,
    /// Faults of the link between the client and the gateway.
    pub faults: Faults,
    /// The ids of the instances that are connected. Others answer `TargetNotConnected`.
    pub targets: Vec<String>,
    /// Instances with names, tags and states, in addition to the targets, which are Linux without a name.
    pub instances: Vec<Instance>,
    /// No instance is connected before this has passed since the start: `TargetNotConnected`.
    pub connected_after: Duration,
    /// Actions that IAM denies, such as `ssm:StartSession`.
    pub denied: Vec<String>,
    /// Session documents of AWS that the region does not have.
    pub missing_documents: Vec<String>,
    /// Every API call is refused with `ExpiredTokenException`.
    pub expired_token: bool,
    /// The file in which an SSH server finds the keys that SendSSHPublicKey has pushed, each for
    /// [`Config::key_lifetime`].
    pub authorized_keys: Option<PathBuf>,
    /// Lifetime of a pushed key.
    pub key_lifetime: Duration,
    /// Session documents in addition to AWS's own, by name.
    pub documents: BTreeMap<String, CustomDocument>,
    /// Keys, and whether sessions are encrypted.
    pub kms: KmsOptions,
    /// Response of ResumeSession.
    pub resume: ResumePolicy,
    /// The stream URL that ResumeSession gives instead of a real one.
    pub resume_url: Option<String>,
    /// A new token makes the older ones of its session invalid.
    pub refuse_old_tokens: bool,
    /// A new stream URL (its `cell-number`) makes the older ones of its session invalid. The official plugin's
    /// published source (1.2.677) goes back to its first URL: it reconnects only when this is off.
    pub refuse_old_urls: bool,
    /// The lowest `ClientVersion` that may open a data channel. The documentation says 1.2.764.0 and "will soon
    /// stop supporting earlier versions": so `None`, and the version is recorded in [`crate::OpenReport`].
    pub min_client_version: Option<String>,
    /// True if a data channel must be opened with a SigV4-signed request.
    pub require_signed_open: bool,
    /// With a key pair: only its signatures are accepted, and they are verified. Without: any well-formed
    /// `Authorization` header will do.
    pub credentials: Option<Credentials>,
    /// Base of stream URLs, such as `wss://ssmmessages.us-east-1.amazonaws.com` behind a [`crate::TlsFront`].
    /// `None`: to this simulator's port.
    pub stream_base: Option<String>,
    /// Lifetime of temporary credentials from STS, SSO and the metadata services. They are accepted alongside
    /// [`Config::credentials`].
    pub credential_lifetime: Duration,
    /// The SSO access token that is good at the start. New ones are given for the refresh token
    /// `sim-refresh-token`.
    pub sso_access_token: String,
    /// The region in ARNs. Requests signed for any region are accepted.
    pub region: String,
    /// The user part of session ids.
    pub user: String,
    /// `channel_closed` with payload type 261 instead of 0, as some users have seen.
    pub closed_payload_type_261: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            port: 0,
            tls: false,
            agent: AgentOptions::default(),
            message_limit: Some(SERVICE_MESSAGE_LIMIT),
            faults: Faults::default(),
            targets: vec![DEFAULT_TARGET.to_owned()],
            instances: Vec::new(),
            connected_after: Duration::ZERO,
            denied: Vec::new(),
            missing_documents: Vec::new(),
            expired_token: false,
            authorized_keys: None,
            key_lifetime: Duration::from_secs(60),
            documents: BTreeMap::new(),
            kms: KmsOptions::default(),
            resume: ResumePolicy::default(),
            resume_url: None,
            refuse_old_tokens: true,
            refuse_old_urls: true,
            min_client_version: None,
            require_signed_open: false,
            credentials: None,
            stream_base: None,
            credential_lifetime: Duration::from_secs(3600),
            sso_access_token: "sim-sso-token".to_owned(),
            region: "us-east-1".to_owned(),
            user: "sim".to_owned(),
            closed_payload_type_261: false,
        }
    }
}

/// A long-term key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
}

/// Faults applied to binary frames, seeded. Text and control frames pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Cut the websocket this long after each open, again and again.
    #[serde(with = "millis_option")]
    pub cut_every: Option<Duration>,
    /// Kind of cut that `cut_every` makes.
    pub cut: Cut,
    /// Probability that a frame from the client is lost.
    pub loss_up: f64,
    /// Probability that a frame to the client is lost.
    pub loss_down: f64,
    /// Probability that a frame is delivered twice, either way.
    pub duplicate: f64,
    /// Probability that a frame is held back by `reorder_by`, so that later ones overtake it, either way.
    pub reorder: f64,
    /// Delay of a reordered frame.
    #[serde(with = "millis")]
    pub reorder_by: Duration,
    /// One-way delay of every frame.
    #[serde(with = "millis")]
    pub delay: Duration,
    /// Up to this much is added to the delay. Order is kept.
    #[serde(with = "millis")]
    pub jitter: Duration,
    /// Bytes a second each way; `None` is as fast as it goes.
    pub bandwidth: Option<u64>,
    /// Seed of all the chances above.
    pub seed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            cut_every: None,
            cut: Cut::default(),
            loss_up: 0.0,
            loss_down: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: None,
            seed: 1,
        }
    }
}

/// Kinds of websocket cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// A close frame, 1000 "Bye", as the service does it about every 60 minutes.
    #[default]
    Close,
    /// A TCP reset, without a word.
    Reset,
}

/// Directions of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the client to the agent.
    Up,
    /// From the agent to the client.
    Down,
    /// Both.
    Both,
}

/// Response of ResumeSession for a session that is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumePolicy {
    /// A new token and a new stream URL.
    #[default]
    Allow,
    /// `AccessDeniedException`, status 400, as IAM denies: many users lack `ssm:ResumeSession`.
    Deny,
    /// No token: the session has timed out.
    TimedOut,
    /// `InternalServerError`, status 500.
    Fail,
}

/// Keys of the simulated KMS and their use by sessions.
#[derive(Clone, Debug, Default)]
pub struct KmsOptions {
    /// The key sessions of the shell kinds are encrypted with; `None`: no encryption.
    pub encrypt_shell: Option<String>,
    /// True if the agent's request carries a `Challenge`.
    pub challenge: bool,
    /// True if the agent refuses a client that does not acknowledge the challenge.
    pub require_challenge: bool,
    /// Every call answers `AccessDeniedException`.
    pub deny: bool,
    /// Key ids, aliases or ARNs that exist; empty: any.
    pub keys: Vec<String>,
}

/// A session document of one's own.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomDocument {
    /// `Standard_Stream`.
    Shell,
    /// `InteractiveCommands`. `{{ name }}` in the command is replaced by the parameter.
    InteractiveCommand {
        /// Run by `sh -c`.
        command: String,
    },
    /// `NonInteractiveCommands`. `{{ name }}` in the command is replaced by the parameter.
    NonInteractiveCommand {
        /// Run by `sh -c`.
        command: String,
        /// Standard error and the exit code apart.
        separate_output_stream: bool,
    },
    /// `Port`, with these `properties`; `{{ name }}` in their strings is replaced by the parameter. For example
    /// `portNumber`, `type` (`LocalPortForwarding`), `localPortNumber`, `host`, and for a local UNIX socket
    /// `localConnectionType` (`unix`) with `localUnixSocket`.
    Port {
        /// As in the document.
        properties: serde_json::Map<String, Value>,
    },
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod millis_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
