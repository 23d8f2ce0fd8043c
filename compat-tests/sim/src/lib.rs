//! `ssm-sim`: a local stand-in for AWS Systems Manager Session Manager.
//!
//! One port on the loopback interface is all of AWS that the plugin needs: the SSM, ECS and KMS endpoints
//! ([`Sim::endpoint`] for `--endpoint-url`), the message gateway with its limits, and behind it an [`agent`] with
//! real shells and real TCP destinations. The link between can be made as bad as wanted ([`Faults`]). It shares no
//! code with the plugin, so that the two check each other.
//!
//! ```text
//! client ── websocket ── gateway ── Shaper ── to_agent ──> agent
//!                   <── Shaper ── pump (one a session) <──
//! ```

pub mod agent;
mod api;
mod background;
mod config;
mod control;
mod documents;
mod frame;
mod gateway;
mod head;
mod identity;
mod inside;
mod instance;
mod kms;
mod meter;
mod proxy;
mod pump;
mod replay;
mod report;
mod server;
mod service;
mod session;
mod shaper;
mod signature;
mod sim;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use config::{
    Config, Credentials, CustomDocument, Cut, DEFAULT_TARGET, Faults, KmsOptions, ResumePolicy,
    SERVICE_MESSAGE_LIMIT, Way,
};
pub use inside::{CallError, Inside};
pub use instance::{Instance, PingStatus, PushedKey};
pub use proxy::{Proxy, ProxyOptions, TunnelRequest};
pub use replay::Replay;
pub use report::{
    AgentReport, OpenReport, RequestCounts, SessionReport, SessionState, SignatureReport, Traffic,
};
pub use sim::Sim;
pub use tls::{TlsFront, Visit};
