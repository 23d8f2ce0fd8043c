//! The way of calls to AWS alongside a session's websocket.

use std::sync::Arc;

use super::network::Network;
use super::websocket;
use crate::aws::{Connection, Route};

/// The way of calls to AWS: to `https` hosts that of the websocket. Metadata services, which have `http` endpoints, are
/// always reached directly.
pub(crate) fn route(network: &Arc<Network>) -> Route {
    let network = Arc::clone(network);
    Route::new(move |url| {
        let network = Arc::clone(&network);
        async move {
            let proxy = match url.scheme() {
                "https" => network.proxy().for_url(&url).map_err(Box::new)?,
                _ => None,
            };
            let stream = websocket::reach(&network, &url, proxy.as_ref()).await.map_err(Box::new)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        }
    })
}
