//! The way of calls to AWS alongside a session's websocket.

use std::sync::Arc;

use url::Url;

use super::network::Network;
use super::websocket;
use crate::aws::{Connection, HttpsProxy, Route};
use crate::secret::Secret;

/// Returns the proxy for calls to AWS alongside a session at `url`.
pub(crate) fn https_proxy(network: &Arc<Network>, url: &Url) -> Option<HttpsProxy> {
    let proxy = network.proxy().for_calls(url)?;
    Some(HttpsProxy {
        url: Secret::new(proxy.to_owned()),
        except: network.proxy().no_proxy(HTTPS_PORT),
        route: network.proxy().is_socks(url).then(|| route(network)),
    })
}

/// Connects to `https` hosts as to the websocket's.
fn route(network: &Arc<Network>) -> Route {
    let network = Arc::clone(network);
    Route::new(move |url| {
        let network = Arc::clone(&network);
        async move {
            let proxy = network.proxy().for_url(&url).map_err(Box::new)?;
            let stream = websocket::reach(&network, &url, proxy.as_ref()).await.map_err(Box::new)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        }
    })
}

const HTTPS_PORT: u16 = 443;
