//! AWS: credentials, endpoints, and the few calls that a session makes.
//!
//! | what | when | how |
//! |---|---|---|
//! | [`Client::sign`] | each opening of the websocket | SigV4, service `ssmmessages` |
//! | [`Client::resume`] | a lost websocket | SSM ResumeSession: new token, new stream URL |
//! | [`Client::terminate`] | an end that cannot be sent to the agent | SSM TerminateSession |
//! | [`Client::start`] | additional sessions like the first | SSM StartSession |
//! | [`Client::push_key`] | `ssh --push-key` | EC2 Instance Connect SendSSHPublicKey |
//! | [`Client::instances`] | a target by its name | SSM DescribeInstanceInformation |
//! | [`Client::caller`] | a refused websocket, `doctor` | STS GetCallerIdentity |
//! | [`Client::session_key`], [`Client::check_data_key`] | `doctor` | SSM GetDocument, KMS GenerateDataKey as a dry run |
//! | [`Client::data_key`] | an encrypted session | KMS GenerateDataKey |
//!
//! Credentials, regions and endpoints follow the AWS SDK, whose crates do the work; for a role or an SSO profile the AWS
//! CLI's cache comes first. A setting that cannot be used, or a panic of the SDK, costs the call and not the session.
//! Nothing is read and nothing is asked before the first of these calls: a start that needs none pays for none.
//! A program that embeds sessions may make the calls itself ([`Api`]).

mod api;
mod body_limit;
mod caller;
mod cli_cache;
mod client;
mod config;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod files;
mod instances;
mod preferences;
mod process_input;
mod retries;
mod route;
mod sign;
#[cfg(feature = "cli")]
mod target;

pub use self::api::{Api, Call, StartSessionOutput};
pub use self::caller::Caller;
pub use self::client::{Client, Identity};
pub use self::config::{
    AwsContext, ca_bundle, named_region, profile_name, profile_names, profiles, read_ca_bundle,
    region_in_effect,
};
pub use self::error::{AwsError, ErrorKind};
pub use self::instances::ManagedInstance;
pub use self::route::Route;
pub(crate) use self::route::{Connection, HEAD_BUFFER};
#[cfg(feature = "cli")]
pub(crate) use self::target::{InvalidTag, TargetName};
