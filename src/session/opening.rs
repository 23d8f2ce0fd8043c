//! From argv and settings to a session with a link.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::access::{Access, with_network};
use super::live::LiveSession;
use super::port::Ports;
use super::starter::Starter;
use super::state::Session;
use super::watch::Watch;
use crate::aws::{self, AwsContext};
use crate::cli::StartSession;
use crate::link::{self, Link, Network, stream_url};
use crate::output::{Console, sentences};
use crate::process::Parent;
use crate::protocol::{self, TerminalSize};
use crate::settings::Settings;
use crate::term::current_size;
use crate::wire_log::Recording;

/// Prepares a session; nothing is connected before its link is polled for events.
///
/// # Errors
/// What is wrong with the stream URL or the process, with the console to say it on.
pub(super) async fn open(
    start: StartSession,
    access: Option<Access>,
    settings: Settings,
    recording: Option<Recording>,
    console: Console,
    watch: io::Result<Watch>,
    ports: Ports,
) -> Result<Box<Session>, (Console, anyhow::Error)> {
    let mut console = console;
    let bundle = match access {
        None if is_bundle_wanted(&start) => aws::read_ca_bundle(start.profile.as_deref()).await,
        _ => None,
    };
    let context = aws_context(&start);
    let prepare = || -> anyhow::Result<(link::Target, Arc<aws::Client>, Watch)> {
        let (network, aws) = match access {
            Some(Access { network, aws }) => (network, Some(aws)),
            None => (Arc::new(Network::new(settings.stream_hosts(), bundle)), None),
        };
        let url = network.stream_url(&start.stream_url)?;
        let aws = aws.unwrap_or_else(|| Arc::new(aws::Client::new(with_network(context, &network))));
        let target = link::Target {
            session_id: start.session_id.clone(),
            url,
            token: Arc::new(start.token),
            network,
            aws: Some(Arc::clone(&aws)),
            sign_first: !settings.skip_client_configure,
        };
        Ok((target, aws, watch.context("cannot listen for signals")?))
    };
    let (target, aws, watch) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return Err((console, error)),
    };
    if let Some(name) = target.network.proxy().ignored(&target.url) {
        console.status(&sentences::proxy_ignored(name));
    }
    let config = link_config(&settings, recording);
    let has_credentials = !stream_url::is_presigned(&target.url);
    let starter = starter(&target, &aws, start.request, &config);
    let mut live = LiveSession::new(start.session_id, Link::new(config, target), aws);
    (live.has_credentials, live.is_legacy) = (has_credentials, start.legacy);
    let target = start.target;
    let (exit_code, script) = (None, None);
    Ok(Box::new(Session { live, target, starter, settings, console, watch, exit_code, ports, script }))
}

/// Returns false for a request that starts a shell, whatever the agent announces. Only the AWS CLI always passes on the
/// request that it made, and so does a command of ours, which has no `parent`; other tools are known to pass
/// `{"Target":…}` for a port session, too (ecsta).
pub(super) fn may_be_port(start: &StartSession, parent: Option<&Parent>) -> bool {
    let Some(Value::Object(request)) = &start.request else { return true };
    parent.is_some_and(|parent| !parent.is_aws_cli())
        || request.keys().any(|key| key.eq_ignore_ascii_case("DocumentName"))
}

/// For additional sessions, by the same route. `None` where there can be none: a caller that did not pass its request.
fn starter(
    first: &link::Target,
    aws: &Arc<aws::Client>,
    request: Option<Value>,
    config: &link::Config,
) -> Option<Starter> {
    let (request, network) = (Arc::new(request?), Arc::clone(&first.network));
    Some(Starter { aws: Arc::clone(aws), network, config: config.clone(), request })
}

fn aws_context(start: &StartSession) -> AwsContext {
    AwsContext {
        region: start.region.clone(),
        profile: start.profile.clone(),
        endpoint: start.endpoint.clone(),
        target: start.target.clone(),
        ..AwsContext::default()
    }
}

/// Not for stand-ins on loopback, which have no TLS.
fn is_bundle_wanted(start: &StartSession) -> bool {
    start.stream_url.starts_with("wss:")
}

pub(super) fn link_config(settings: &Settings, recording: Option<Recording>) -> link::Config {
    let fallback = TerminalSize { cols: settings.columns, rows: settings.lines };
    link::Config {
        channel: protocol::Config {
            client_version: settings.reported_version.clone(),
            message_rate: settings.message_rate,
            max_payload: settings.max_payload,
            max_window: settings.window,
            handshake_timeout: settings.handshake_timeout,
            initial_size: current_size(fallback),
            ..protocol::Config::default()
        },
        open_timeout: settings.open_timeout,
        reconnect_timeout: settings.reconnect_timeout,
        ping_interval: settings.ping_interval,
        recording,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_s_defaults_are_the_settings_defaults() {
        let (ours, theirs) = (link_config(&Settings::default(), None), link::Config::default());
        let initial_size = theirs.channel.initial_size;
        let channel = protocol::Config { initial_size, ..ours.channel.clone() };
        assert_eq!(format!("{:?}", link::Config { channel, ..ours }), format!("{theirs:?}"));
    }
}
