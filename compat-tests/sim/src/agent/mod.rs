//! The agent: does the work an amazon-ssm-agent does at the far end of a session.
//!
//! It shares no code with the plugin, so that the two check each other. What the agent does follows the agent's
//! public source and frames recorded from it (`compat-tests/vectors`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

mod counters;

pub use counters::{Counters, CountersSnapshot};

/// Which agent is played: decides the version in its handshake and how port sessions are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// 2.3.700.0: port sessions carry one connection at a time; no TerminateSession flag.
    V2_3,
    /// 3.0.196.0: the last one that carries one connection at a time.
    V3_0,
    /// 3.3.0.0: port sessions are multiplexed.
    #[default]
    V3_3,
}

impl Generation {
    /// The version an agent of this generation reports in its handshake.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Generation::V2_3 => "2.3.700.0",
            Generation::V3_0 => "3.0.196.0",
            Generation::V3_3 => "3.3.0.0",
        }
    }
}

/// How the agent behaves.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Which agent is played.
    pub generation: Generation,
    /// A version to report instead of the generation's own; it decides the port carriage too.
    pub version: Option<String>,
    /// Whether each output message is followed by a pause of 1 ms, as with the real agent.
    pub pacing: bool,
    /// The most bytes in one output message.
    pub payload: usize,
    /// The program run for a shell session; `sh` when none is given.
    pub shell: Option<String>,
    /// The text of the handshake's `CustomerMessage`, before the agent's own sentence about encryption.
    pub customer_message: String,
    /// Send output only after the first handshake has been completed, also in a plain shell. The real agent does
    /// so when the session is encrypted; `true` makes it do so always.
    pub shell_handshake: bool,
}

impl Default for AgentOptions {
    fn default() -> Self {
        AgentOptions {
            generation: Generation::default(),
            version: None,
            pacing: true,
            payload: 1024,
            shell: None,
            customer_message: String::new(),
            shell_handshake: false,
        }
    }
}

impl AgentOptions {
    /// The version reported in the handshake.
    #[must_use]
    pub fn agent_version(&self) -> &str {
        self.version.as_deref().unwrap_or(self.generation.version())
    }
}

/// Decrypts a data key: ciphertext and encryption context in, plaintext key (64 bytes) or a reason out.
pub type KmsDecrypt = dyn Fn(&[u8], &BTreeMap<String, String>) -> Result<Vec<u8>, String> + Send + Sync;

/// Encryption of a session with a key from KMS.
#[derive(Clone)]
pub struct KmsPolicy {
    /// The key named in the handshake request.
    pub key_id: String,
    /// Whether the request carries a random challenge, as agents since 3.3 do.
    pub challenge: bool,
    /// Whether a client that did not use the challenge is refused.
    pub require_challenge: bool,
    /// The agent's access to KMS.
    pub decrypt: Arc<KmsDecrypt>,
}

impl std::fmt::Debug for KmsPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsPolicy")
            .field("key_id", &self.key_id)
            .field("challenge", &self.challenge)
            .field("require_challenge", &self.require_challenge)
            .finish_non_exhaustive()
    }
}

/// What a session runs: the session document with its parameters filled in.
#[derive(Clone, Debug)]
pub enum Document {
    /// A shell on a pty (`Standard_Stream`, no document).
    Shell,
    /// A command on a pty (`AWS-StartInteractiveCommand`, and ECS Exec).
    InteractiveCommand {
        /// Run by `sh -c`.
        command: String,
    },
    /// A command on pipes (`AWS-StartNonInteractiveCommand`).
    NonInteractiveCommand {
        /// Run by `sh -c`.
        command: String,
        /// `separateOutputStream`: standard error and the exit code have payload types of their own.
        separate_output_stream: bool,
    },
    /// A port (`AWS-StartPortForwardingSession`, also `…ToRemoteHost`).
    PortForward {
        /// Where the agent connects to; `localhost` for the instance itself.
        host: String,
        /// The destination port.
        port: u16,
        /// `Properties` of the handshake, as the client sees them.
        properties: Map<String, Value>,
    },
    /// A port without `LocalPortForwarding` (`AWS-StartSSHSession`): the client's stdin and stdout.
    Ssh {
        /// The destination port on localhost.
        port: u16,
        /// `Properties` of the handshake, as the client sees them.
        properties: Map<String, Value>,
    },
}

/// One session as the agent is told about it.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// The session's id.
    pub session_id: String,
    /// The instance's id; part of the encryption context.
    pub target_id: String,
    /// What to run.
    pub document: Document,
    /// How to behave.
    pub options: AgentOptions,
    /// Encrypt the session (shell kinds only; the agent never encrypts a port).
    pub kms: Option<KmsPolicy>,
}

/// What the gateway tells the agent.
#[derive(Clone, Debug)]
pub enum FromGateway {
    /// A binary frame from the client, unchanged.
    Frame(Bytes),
    /// A client has opened the data channel: `start_publication` for the agent.
    ClientConnected,
    /// The client's connection is gone: `pause_publication` for the agent.
    ClientDisconnected,
}

/// How a session ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentEnd {
    /// `Output` of the `channel_closed` the gateway sends now; empty for a normal end.
    pub output: String,
}

/// Runs one session to its end. Everything it started ends with the future, also when it is dropped.
///
/// `inbound` closed ends the session. Frames the agent sends go to `outbound`; when that is full the agent waits.
pub async fn run(
    spec: AgentSpec,
    inbound: mpsc::Receiver<FromGateway>,
    outbound: mpsc::Sender<Bytes>,
    counters: Arc<Counters>,
) -> AgentEnd {
    let _ = (spec, inbound, outbound, counters);
    AgentEnd::default()
}
