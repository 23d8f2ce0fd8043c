//! A session as it is described to its agent: document, encryption, behaviour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::destination::Destinations;
use super::programs::Programs;

/// Simulated agent generation: decides the version in its handshake and how port sessions are carried.
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

/// A rule that an agent does not keep: what a check of rules has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A command's exit code is one too high.
    ExitCode,
    /// Each twentieth message of output is forgotten before it is numbered.
    LostOutput,
    /// Data messages are never acknowledged.
    NoAcknowledgement,
    /// The flag TerminateSession blocks the listener, as with the real agent when the destination has closed first: it is
    /// never acknowledged, and neither is anything after it.
    StuckTerminate,
}

/// Behaviour of the agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Simulated agent generation.
    pub generation: Generation,
    /// A version to report instead of the generation's own; it decides the port carriage too.
    pub version: Option<String>,
    /// True if each output message is followed by a pause of 1 ms, as with the real agent.
    pub pacing: bool,
    /// The most bytes in one output message.
    pub payload: usize,
    /// The program run for a shell session; `sh` when none is given.
    pub shell: Option<String>,
    /// The text of the handshake's `CustomerMessage`, before the agent's own sentence about encryption.
    pub customer_message: String,
    /// Perform the handshake in every session. The real agent skips it for shells and interactive commands that
    /// are not encrypted.
    pub always_handshake: bool,
    /// Delay before a shell's first output is read: 1 s with the real agent.
    pub shell_delay: Duration,
    /// Time after the end of the handshake in which input is still acknowledged and ignored. The real agent
    /// says that the handshake is complete before it sets the flag that lets input through; how long that takes
    /// is its machine's business.
    pub deaf_after_handshake: Duration,
    /// The network of port sessions' destinations.
    pub destinations: Destinations,
    /// Commands without a terminal are started by Windows PowerShell, which reports that there is no `sh`.
    pub is_windows: bool,
    /// The way to run shells and commands.
    pub programs: Programs,
    /// The rule that is not kept.
    pub broken: Option<Broken>,
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
            always_handshake: false,
            shell_delay: Duration::ZERO,
            deaf_after_handshake: Duration::ZERO,
            destinations: Destinations::default(),
            is_windows: false,
            programs: Programs::default(),
            broken: None,
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
    /// True if the request carries a random challenge, as agents since 3.3 do.
    pub challenge: bool,
    /// True if a client that did not use the challenge is refused.
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

/// A session document with its parameters filled in.
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
        /// Split into words like a shell does and executed without one (agent source).
        command: String,
        /// `separateOutputStream`: standard error and the exit code have payload types of their own.
        separate_output_stream: bool,
    },
    /// A port (`AWS-StartPortForwardingSession`, also `…ToRemoteHost`).
    PortForward {
        /// Host that the agent connects to; `localhost` for the instance itself.
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

impl Document {
    /// The session type in the handshake.
    #[must_use]
    pub fn session_type(&self) -> &'static str {
        match self {
            Document::Shell => "Standard_Stream",
            Document::InteractiveCommand { .. } => "InteractiveCommands",
            Document::NonInteractiveCommand { .. } => "NonInteractiveCommands",
            Document::PortForward { .. } | Document::Ssh { .. } => "Port",
        }
    }

    pub(super) fn is_port(&self) -> bool {
        self.session_type() == "Port"
    }

    /// Returns whether the agent insists on a handshake without encryption too (agent source,
    /// `RequireHandshake`).
    pub(super) fn requires_handshake(&self) -> bool {
        !matches!(self, Document::Shell | Document::InteractiveCommand { .. })
    }
}

/// One session as it is described to the agent.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// The session's id.
    pub session_id: String,
    /// The instance's id; part of the encryption context.
    pub target_id: String,
    /// Document to run.
    pub document: Document,
    /// Behaviour.
    pub options: AgentOptions,
    /// Encrypt the session (shell kinds only; the agent never encrypts a port).
    pub kms: Option<KmsPolicy>,
}

/// Events from the gateway to the agent.
#[derive(Clone, Debug)]
pub enum FromGateway {
    /// A binary frame from the client, unchanged.
    Frame(Bytes),
    /// A client has opened the data channel: `start_publication` for the agent.
    ClientConnected,
    /// The client's connection is gone: `pause_publication` for the agent.
    ClientDisconnected,
}

/// End of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentEnd {
    /// `Output` of the `channel_closed` the gateway sends now; empty for a normal end.
    pub output: String,
}
