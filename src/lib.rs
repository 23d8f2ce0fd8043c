//! A `session-manager-plugin` for the AWS CLI.

pub mod aws;
pub mod cli;
pub mod doctor;
pub mod link;
pub mod logging;
pub mod notice;
pub mod protocol;
pub mod session;
pub mod settings;
pub mod term;
pub mod wire_log;
