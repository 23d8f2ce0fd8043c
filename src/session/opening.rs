//! From argv and settings to a session with a link.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::Session;
use super::console::Console;
use super::extra::{Started, Starter};
use super::journal::Journal;
use super::watch::Watch;
use crate::aws::{self, AwsContext, HttpsProxy};
use crate::cli::StartSession;
use crate::link::{self, Link, Network, stream_url};
use crate::protocol::{self, TerminalSize};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::term::Size;
use crate::wire_log::Recording;

/// Prepares a session; nothing is connected before its link is asked for events.
///
/// # Errors
/// What is wrong with the stream URL or the process, with the console to say it on.
pub(super) async fn open(
    start: StartSession,
    settings: Settings,
    recording: Option<Recording>,
    console: Console,
    watch: io::Result<Watch>,
) -> Result<Session, (Console, anyhow::Error)> {
    let aws = (!settings.skip_client_configure).then(|| aws_context(&start));
    let bundle = match &aws {
        Some(context) if is_bundle_wanted(&start) => aws::ca_bundle(context.profile.as_deref()).await,
        _ => None,
    };
    let prepare = || -> anyhow::Result<(link::Target, Watch)> {
        let network = Arc::new(Network::from_settings(&settings, bundle));
        let url = network.stream_url(&start.stream_url)?;
        let aws = aws.map(|context| Arc::new(aws::Client::new(with_network(context, &network))));
        let session_id = start.session_id.clone();
        let target = link::Target { session_id, url, token: Arc::new(start.token), network, aws };
        Ok((target, watch.context("cannot listen for signals")?))
    };
    let config = link_config(&settings, recording);
    match prepare() {
        Ok((target, watch)) => Ok(Session {
            id: start.session_id,
            legacy: start.legacy,
            aws: target.aws.clone(),
            is_presigned: stream_url::is_presigned(&target.url),
            starter: starter(&target, start.request, &config, &settings),
            further: None,
            link: Link::new(config, target),
            journal: Journal::new(settings.log_connections),
            settings,
            console,
            watch,
            exit_code: None,
            is_port: false,
            connections: None,
        }),
        Err(error) => Err((console, error)),
    }
}

/// Starts further sessions as the first was started: with the same request, on the same way. `None` where that is not
/// asked for or not possible (a caller without credentials, one that did not pass its request).
fn starter(
    first: &link::Target,
    request: Option<Value>,
    config: &link::Config,
    settings: &Settings,
) -> Option<Starter> {
    let request = Arc::new(request.filter(|_| settings.sessions > 1)?);
    let aws = Arc::clone(first.aws.as_ref()?);
    let (network, config) = (Arc::clone(&first.network), config.clone());
    Some(Box::new(move || {
        let (aws, network, config) = (Arc::clone(&aws), Arc::clone(&network), config.clone());
        let request = Arc::clone(&request);
        Box::pin(async move {
            let opened = aws.start(&request).await.map_err(|error| error.to_string())?;
            let url = network.stream_url(&opened.stream_url).map_err(|error| error.to_string())?;
            let (session_id, token) = (opened.session_id, Arc::new(opened.token));
            let target = link::Target { session_id, url, token, network, aws: Some(Arc::clone(&aws)) };
            Ok(Started { id: target.session_id.clone(), link: Link::new(config, target), aws })
        })
    }))
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

/// Calls to AWS go through the network that the websocket goes through.
fn with_network(context: AwsContext, network: &Network) -> AwsContext {
    let proxy = network.proxy().https().map(|url| HttpsProxy {
        url: Secret::new(url.to_owned()),
        except: network.proxy().no_proxy(HTTPS_PORT),
    });
    AwsContext { ca_bundle: network.ca_bundle().cloned(), proxy, ..context }
}

/// Not for stand-ins on loopback, which have no TLS.
fn is_bundle_wanted(start: &StartSession) -> bool {
    start.stream_url.starts_with("wss:")
}

fn link_config(settings: &Settings, recording: Option<Recording>) -> link::Config {
    let size = Size::current(Size { cols: settings.columns, rows: settings.lines });
    link::Config {
        channel: protocol::Config {
            message_rate: settings.message_rate.unwrap_or(0),
            max_payload: settings.max_payload,
            max_window: settings.window,
            handshake_timeout: settings.handshake_timeout,
            initial_size: TerminalSize { cols: size.cols, rows: size.rows },
            ..protocol::Config::default()
        },
        open_timeout: settings.open_timeout,
        reconnect_timeout: settings.reconnect_timeout,
        ping_interval: settings.ping_interval,
        recording,
    }
}

const HTTPS_PORT: u16 = 443;

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
