//! `ssm-sim`: a local stand-in for AWS Systems Manager Session Manager.
pub mod agent;
mod config;
mod report;
mod sim;

pub use config::{
    Config, Credentials, CustomDocument, Cut, DEFAULT_TARGET, Faults, KmsOptions, ResumePolicy,
    SERVICE_MESSAGE_LIMIT, Way,
};
pub use report::{
    AgentReport, OpenReport, RequestCounts, SessionReport, SessionState, SignatureReport, Traffic,
};
pub use sim::Sim;
