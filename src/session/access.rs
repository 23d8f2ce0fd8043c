//! The way to AWS of a session: the network, and calls through it.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::aws::{self, AwsContext};
use crate::link::{self, Network, StreamHosts};

/// A way to AWS: the network as the user has set it up, and calls through it.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub network: Arc<Network>,
    pub aws: Arc<aws::Client>,
}

impl Access {
    /// By the network of the environment. `finish` may still use the client before sessions share it.
    ///
    /// # Errors
    /// As `finish`.
    pub(crate) async fn new<E>(
        hosts: StreamHosts,
        context: AwsContext,
        bundle: Option<PathBuf>,
        finish: impl AsyncFnOnce(aws::Client) -> Result<aws::Client, E>,
    ) -> Result<Access, E> {
        let network = Arc::new(Network::new(hosts, bundle));
        let aws = finish(aws::Client::new(with_network(context, &network))).await?;
        Ok(Access { network, aws: Arc::new(aws) })
    }
}

/// The service's address as far as it is known before there is a session, as a stream URL: the endpoint's if there is one,
/// else the region's. `None` for an endpoint that is not an `http` or `https` URL.
pub(crate) fn stream_host(endpoint: Option<&str>, region: Option<&str>) -> Option<Url> {
    let Some(endpoint) = endpoint else {
        let region = region.filter(|region| is_region(region)).unwrap_or("us-east-1");
        return Url::parse(&format!("wss://ssmmessages.{region}.amazonaws.com/")).ok();
    };
    let is_wanted = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let mut url = Url::parse(endpoint).ok().filter(is_wanted)?;
    let scheme = if url.scheme() == "http" { "ws" } else { "wss" };
    let _ = url.set_scheme(scheme);
    Some(url)
}

/// Returns whether a text can be a region's name.
pub(crate) fn is_region(region: &str) -> bool {
    !region.is_empty() && region.chars().all(|char| char.is_ascii_alphanumeric() || char == '-')
}

/// Calls to AWS go through the network that the websocket goes through.
pub(crate) fn with_network(context: AwsContext, network: &Arc<Network>) -> AwsContext {
    AwsContext { route: link::route(network), ..context }
}
