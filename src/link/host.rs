//! Host and port of a URL.

use url::Url;

/// A host as resolvers and certificates have it: an IPv6 address without the brackets of a URL.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The port of a URL; 443 if it has none.
pub(crate) fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}
