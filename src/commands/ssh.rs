//! `ssh`: an SSH server's connection on stdin and stdout, for ProxyCommand.

use serde_json::json;

use super::connect::Connection;
use super::failure::Failure;
use super::grammar::Ssh;
use crate::session::Style;
use crate::settings::Settings;

/// Runs `ssh`. Returns the exit status.
pub(super) async fn run(options: &Ssh, settings: &Settings) -> Result<u8, Failure> {
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    let parameters = json!({ "portNumber": [options.port.to_string()] });
    let request = connection.request(Some(DOCUMENT), Some(parameters));
    let outcome = connection.run(request, Style::Plain).await?;
    Ok(outcome.status(true))
}

const DOCUMENT: &str = "AWS-StartSSHSession";
