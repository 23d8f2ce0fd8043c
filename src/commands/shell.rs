//! `shell` and `start-session`: any session document, as `aws ssm start-session` runs it.

use super::connect::Connection;
use super::failure::Failure;
use super::parameters;
use super::request::{Document, Shell, StartSession};
use crate::output::Style;
use crate::settings::Settings;

/// Runs `shell`. Returns the exit status.
pub(super) async fn shell(options: &Shell, settings: &Settings) -> Result<u8, Failure> {
    let document = parsed(&options.document)?;
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    run(&connection, document).await
}

/// Runs `start-session`. Returns the exit status.
pub(super) async fn start_session(options: &StartSession, settings: &Settings) -> Result<u8, Failure> {
    let document = parsed(&options.document)?;
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    run(&connection, document).await
}

type Parsed<'a> = (Option<&'a str>, Option<serde_json::Value>);

fn parsed(document: &Document) -> Result<Parsed<'_>, Failure> {
    let parameters = document.parameters.as_deref().map(parameters::parse).transpose();
    Ok((document.name.as_deref(), parameters.map_err(Failure::usage)?))
}

async fn run(connection: &Connection<'_>, (name, parameters): Parsed<'_>) -> Result<u8, Failure> {
    let request = connection.request(name, parameters);
    let outcome = connection.run(request, Style::Official).await?;
    Ok(outcome.status(true))
}
