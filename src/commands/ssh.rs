//! `ssh`: an SSH server's connection on stdin and stdout, for ProxyCommand.

use serde_json::json;

#[cfg(unix)]
use super::agent_socket::AgentSocket;
use super::connect::Connection;
use super::failure::{Failure, refused};
use super::push_key::{self, Key};
use super::request::Ssh;
use crate::output::Style;
use crate::session::Outcome;
use crate::settings::Settings;

/// Runs `ssh`. Returns the exit status.
pub(super) async fn run(options: &Ssh, settings: &Settings) -> Result<u8, Failure> {
    if options.identity_agent.is_some() && cfg!(windows) {
        return Err(Failure::usage("--identity-agent does not work on Windows"));
    }
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    let key = match &options.push_key {
        Some(file) => Some(push(&connection, options, file.as_deref()).await?),
        None => None,
    };
    let parameters = json!({ "portNumber": [options.port.to_string()] });
    let request = connection.request(Some(DOCUMENT), Some(parameters));
    let outcome = with_agent(options, key, connection.run(request, Style::Plain)).await?;
    Ok(outcome.status(true))
}

/// Sends a public key to EC2 Instance Connect. The instance accepts it for a minute.
async fn push(connection: &Connection<'_>, options: &Ssh, file: Option<&str>) -> Result<Key, Failure> {
    if !connection.target.starts_with("i-") {
        return Err(Failure::usage("--push-key works only with EC2 instances (ids that begin with i-)"));
    }
    let key = push_key::find(file, options.identity_agent.is_some()).await?;
    let user = options.user.as_deref().unwrap_or(USER);
    tracing::info!("ec2-instance-connect:SendSSHPublicKey for {user}");
    let pushed = connection.access().aws.push_key(&connection.target, user, &key.public_line()).await;
    pushed.map_err(|error| refused(&error))?;
    Ok(key)
}

/// Runs the session, with the socket of `--identity-agent` for as long.
#[cfg(unix)]
async fn with_agent(
    options: &Ssh,
    key: Option<Key>,
    session: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    let Some(path) = &options.identity_agent else { return session.await };
    let made = match key {
        Some(Key::Made(identity)) => Some(identity),
        _ => None,
    };
    let mut socket = AgentSocket::listen(path, made)?;
    tokio::select! {
        outcome = session => outcome,
        () = socket.serve() => Ok(Outcome::default()),
    }
}

#[cfg(windows)]
async fn with_agent(
    _options: &Ssh,
    _key: Option<Key>,
    session: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    session.await
}

/// The user of Amazon Linux.
const USER: &str = "ec2-user";
const DOCUMENT: &str = "AWS-StartSSHSession";
