//! From what the caller said to a link: network, AWS, the first URL and token.

use std::sync::Arc;

use serde_json::Value;

use super::extra::Starter;
use super::link_config;
use crate::aws::{self, AwsContext, HttpsProxy};
use crate::cli::{Secret, StartSession};
use crate::link::{Link, Network, Target};
use crate::settings::Settings;

/// What there is to open, and how to start more of it where the settings ask for that.
pub(super) struct Setup {
    pub target: Target,
    pub starter: Option<Starter>,
}

/// Reads the profile where its `ca_bundle` may be needed, checks the stream URL, and asks nobody yet.
///
/// # Errors
/// When the stream URL may not be opened.
pub(super) async fn prepare(start: &mut StartSession, settings: &Settings) -> anyhow::Result<Setup> {
    // Stand-ins on loopback have no TLS.
    let bundle = match start.stream_url.starts_with("wss:") {
        true => aws::ca_bundle(start.profile.as_deref()).await,
        false => None,
    };
    let network = Arc::new(Network::from_settings(settings, bundle));
    let url = network.stream_url(&start.stream_url)?;
    let aws = (!settings.skip_client_configure)
        .then(|| Arc::new(aws::Client::new(aws_context(start, &network))));
    let starter = aws.clone().and_then(|aws| starter(aws, start.request.clone()?, settings, network.clone()));
    let token = std::mem::replace(&mut start.token, Secret::new(String::new()));
    let session_id = start.session_id.clone();
    Ok(Setup { target: Target { session_id, url, token: Arc::new(token), network, aws }, starter })
}

/// Calls to AWS go through the network that the websocket goes through.
fn aws_context(start: &StartSession, network: &Network) -> AwsContext {
    let proxy = network.proxy().https().map(|url| HttpsProxy {
        url: Secret::new(url.to_owned()),
        except: network.proxy().no_proxy(HTTPS_PORT),
    });
    AwsContext {
        region: start.region.clone(),
        profile: start.profile.clone(),
        endpoint: start.endpoint.clone(),
        target: start.target.clone(),
        ca_bundle: network.ca_bundle().cloned(),
        proxy,
    }
}

fn starter(
    aws: Arc<aws::Client>,
    request: Value,
    settings: &Settings,
    network: Arc<Network>,
) -> Option<Starter> {
    if settings.sessions < 2 {
        return None;
    }
    let config = link_config(settings);
    Some(Box::new(move || {
        let (aws, request, config, network) = (aws.clone(), request.clone(), config.clone(), network.clone());
        Box::pin(async move {
            let opened = aws.start(&request).await.map_err(|error| error.to_string())?;
            let url = network.stream_url(&opened.stream_url).map_err(|error| error.to_string())?;
            let session_id = opened.session_id.clone();
            let token = Arc::new(opened.token);
            let target = Target { session_id, url, token, network, aws: Some(aws) };
            Ok((opened.session_id, Link::new(config, target)))
        })
    }))
}

const HTTPS_PORT: u16 = 443;
