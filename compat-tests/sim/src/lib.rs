//! `ssm-sim`: a local stand-in for AWS Systems Manager Session Manager.
pub mod agent;
