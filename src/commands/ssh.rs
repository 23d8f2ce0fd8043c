//! `ssh`: an SSH server's connection on stdin and stdout, for ProxyCommand.

use serde_json::json;

use super::connect::Connection;
use super::failure::{Failure, refused};
use super::grammar::Ssh;
use super::push_key;
use crate::output::Style;
use crate::settings::Settings;

/// Runs `ssh`. Returns the exit status.
pub(super) async fn run(options: &Ssh, settings: &Settings) -> Result<u8, Failure> {
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    if let Some(file) = &options.push_key {
        if !connection.target.starts_with("i-") {
            return Err(Failure::usage("--push-key works with EC2 instances only, whose ids begin with i-"));
        }
        let key = push_key::find(file.as_deref()).await?;
        let user = options.user.as_deref().unwrap_or(USER);
        tracing::info!("ec2-instance-connect:SendSSHPublicKey for {user}");
        let pushed = connection.access().aws.push_key(&connection.target, user, &key).await;
        pushed.map_err(|error| refused(&error))?;
    }
    let parameters = json!({ "portNumber": [options.port.to_string()] });
    let request = connection.request(Some(DOCUMENT), Some(parameters));
    let outcome = connection.run(request, Style::Plain).await?;
    Ok(outcome.status(true))
}

/// The user of Amazon Linux.
const USER: &str = "ec2-user";
const DOCUMENT: &str = "AWS-StartSSHSession";
