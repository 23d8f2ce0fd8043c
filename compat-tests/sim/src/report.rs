//! Reports of what the simulator has seen of its sessions.

use serde::{Deserialize, Serialize};

/// One session, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The session's id.
    pub id: String,
    /// Target of the session.
    pub target: String,
    /// The document's name.
    pub document: String,
    /// State of the session.
    pub state: SessionState,
    /// `Output` of its end.
    pub output: String,
    /// TerminateSession was called for it.
    pub terminated: bool,
    /// The service's message limit was exceeded.
    pub limit_exceeded: bool,
    /// ResumeSession calls, refused ones included.
    pub resumes: u64,
    /// TerminateSession calls.
    pub terminates: u64,
    /// Pings of the client's websockets.
    pub pings: u64,
    /// The data channels opened for it, oldest first.
    pub opens: Vec<OpenReport>,
    /// Traffic from the client.
    pub up: Traffic,
    /// Traffic to the client.
    pub down: Traffic,
    /// Counters of the agent.
    pub agent: AgentReport,
}

/// States of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Started, never opened.
    #[default]
    Started,
    /// A client is connected.
    Connected,
    /// The client's websocket is gone.
    Disconnected,
    /// Over.
    Ended,
}

/// One accepted or refused data channel of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReport {
    /// True if it was accepted.
    pub accepted: bool,
    /// Reason for the refusal.
    pub refusal: String,
    /// As in the client's first frame.
    pub client_version: String,
    /// As in the client's first frame.
    pub client_id: String,
    /// `User-Agent` of the upgrade request.
    pub user_agent: String,
    /// The `Authorization` header's parts, if the upgrade was signed.
    pub signature: Option<SignatureReport>,
}

/// Claims of a signed request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureReport {
    /// Access key id.
    pub access_key: String,
    /// Region of the credential scope.
    pub region: String,
    /// Service of the credential scope (`ssmmessages` for a data channel).
    pub service: String,
    /// True if a session token (`X-Amz-Security-Token`) came with it.
    pub session_token: bool,
    /// True if the signature was verified; always false without [`crate::Config::credentials`].
    pub verified: bool,
}

/// Frames in one direction, at the gateway, before faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Data messages, repeated ones included.
    pub messages: u64,
    /// Payload bytes of data messages, repeated ones included.
    pub bytes: u64,
    /// Data messages with a sequence number seen before.
    pub resends: u64,
    /// Acknowledgements.
    pub acks: u64,
    /// Frames that the link's faults lost.
    pub lost: u64,
    /// Frames for a client that was not connected.
    pub dropped: u64,
    /// The most data messages in any window of 1 s.
    pub peak_1s: u64,
    /// The most data messages in any window of 2 s.
    pub peak_2s: u64,
    /// The longest payload in bytes.
    pub largest: u64,
}

/// The agent's own counters; see [`crate::agent::Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are described at `agent::Counters`")]
pub struct AgentReport {
    pub messages_up: u64,
    pub bytes_up: u64,
    pub messages_down: u64,
    pub bytes_down: u64,
    pub duplicates_received: u64,
    pub early_received: u64,
    pub bad_received: u64,
    pub resends_sent: u64,
    pub acks_sent: u64,
    pub acks_received: u64,
}

/// API requests since the start, all sessions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// StartSession, refused ones included.
    pub start: u64,
    /// ResumeSession, refused ones included.
    pub resume: u64,
    /// TerminateSession, refused ones included.
    pub terminate: u64,
    /// ECS ExecuteCommand, refused ones included.
    pub execute_command: u64,
    /// KMS GenerateDataKey, refused ones included.
    pub generate_data_key: u64,
    /// SSM DescribeInstanceInformation, refused ones included.
    pub describe_instances: u64,
    /// EC2 Instance Connect SendSSHPublicKey, refused ones included.
    pub push_key: u64,
    /// STS AssumeRole and AssumeRoleWithWebIdentity, refused ones included.
    pub assume_role: u64,
    /// SSO GetRoleCredentials, refused ones included.
    pub role_credentials: u64,
    /// Data channels asked for, refused ones included.
    pub opens: u64,
}
