//! The route to the service: names, proxy, trust, clock, websocket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::StatusCode;
use serde_json::Map;
use url::Url;

use super::identity::Identity;
use super::options::Options;
use super::report::{Check, Status};
use crate::blocking;
use crate::link::host;
use crate::link::partition::endpoint;
use crate::link::probe::{self, Answer};
use crate::link::{ConnectError, Network, OpenError};
use crate::output::sentences;
use crate::settings::Settings;

/// Endpoint that a session would connect to.
pub(super) struct Route {
    pub network: Arc<Network>,
    /// The websocket's URL; or why there is none.
    stream: Result<Url, String>,
    /// Set if there is a URL, or a region to make one of.
    is_named: bool,
    /// Advice on a URL that cannot be used.
    correction: &'static str,
    /// SSM's endpoint, for its clock.
    api: Option<Url>,
}

impl Route {
    pub(super) fn new(options: &Options, settings: &Settings, identity: &Identity) -> Route {
        let network = Arc::new(Network::new(settings.stream_hosts(), identity.ca_bundle.clone()));
        let region = identity.region.as_deref();
        let text = match (&options.url, region) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(region)) => {
                Ok(format!("wss://{}{PATH}", endpoint("ssmmessages", region, identity.variant)))
            }
            (None, None) => Err("no region, so no endpoint".to_owned()),
        };
        let stream = text.and_then(|text| network.stream_url(&text).map_err(|error| error.to_string()));
        let configured = configured().map(|(_, url)| url);
        let api = match (&options.url, configured, region) {
            (_, Some(url), _) => Some(url),
            (Some(_), None, _) => stream.as_ref().ok().map(ping_url),
            (None, None, Some(region)) => {
                Some(format!("https://{}/ping", endpoint("ssm", region, identity.variant)))
            }
            (None, None, None) => None,
        };
        let api = api.and_then(|url| Url::parse(&url).ok()).filter(Url::has_host);
        let is_named = options.url.is_some() || identity.has_region();
        let correction = match options.url {
            Some(_) => "correct --url",
            None => "correct or unset SSM_PLUGIN_STREAM_HOST, or correct the region",
        };
        Route { network, stream, is_named, correction, api }
    }

    /// Returns whether a connection can be tried.
    ///
    /// # Errors
    /// A reference to the check that has failed: its cause is reported once.
    pub(super) fn usable(&self) -> Result<(), &'static str> {
        let Ok(url) = &self.stream else { return Err(self.cause()) };
        if self.network.proxy().for_url(url).is_err() {
            return Err("see the proxy check");
        }
        let is_plain = matches!(url.scheme(), "ws" | "http");
        if !is_plain && self.network.tls().is_err() {
            return Err("see the trust check");
        }
        Ok(())
    }

    /// The check that reports why there is no URL.
    fn cause(&self) -> &'static str {
        if self.is_named { "see the websocket check" } else { "see the region check" }
    }

    /// The URL that a session's signature would be for.
    pub(super) fn for_signing(&self) -> Option<Url> {
        self.stream.clone().ok()
    }
}

/// The endpoint's URL that the environment has for SSM, with the variable.
fn configured() -> Option<(&'static str, String)> {
    ["AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
}

/// Returns whether the names have addresses. Behind a proxy that is the proxy's to know.
pub(super) async fn dns(route: &Route) -> Check {
    const NAME: &str = "dns";
    let mut lines = Vec::new();
    let mut addresses_of = Map::new();
    let mut failed = false;
    let mut seen = Vec::new();
    for url in route.stream.iter().chain(&route.api) {
        let host = url.host_str().unwrap_or_default();
        if seen.contains(&host) {
            continue;
        }
        seen.push(host);
        let bare = host::without_brackets(host);
        let is_proxied = route.network.proxy().for_url(url).is_ok_and(|proxy| proxy.is_some());
        let looked_up = blocking::addresses(bare, host::port(url));
        match tokio::time::timeout(ASK_TIMEOUT, looked_up).await {
            Ok(Ok(addresses)) => {
                let addresses: Vec<String> =
                    addresses.iter().map(|address| address.ip().to_string()).take(MAX_ADDRESSES).collect();
                lines.push(format!("{host}: {}", addresses.join(", ")));
                addresses_of.insert(host.to_owned(), addresses.into());
            }
            _ if is_proxied => {
                lines.push(format!("{host}: does not resolve here; the proxy will resolve it"));
            }
            Ok(Err(error)) => {
                failed = true;
                lines.push(format!("{host}: {error}"));
            }
            Err(_) => {
                failed = true;
                lines.push(format!("{host}: no response from the resolver"));
            }
        }
    }
    let check = match (lines.is_empty(), failed) {
        (true, _) => return Check::skipped(NAME, route.cause()),
        (false, false) => Check::ok(NAME, lines.join("\n")),
        (false, true) => Check::failure(NAME, lines.join("\n")).advice(
            "check DNS, the VPN and the name of the region; if this network has no internet access, use VPC endpoints or a proxy",
        ),
    };
    check.field("addresses", addresses_of)
}

/// Checks the proxy that applies to the websocket.
pub(super) fn proxy(route: &Route) -> Check {
    const NAME: &str = "proxy";
    let Ok(url) = &route.stream else { return Check::skipped(NAME, route.cause()) };
    let none = || format!("no proxy is set for {}", url.host_str().unwrap_or_default());
    match route.network.proxy().for_url(url) {
        Ok(None) => match route.network.proxy().ignored(url) {
            Some(name) => Check::warning(NAME, format!("{}; {}", none(), sentences::proxy_ignored(name)))
                .advice("unset it, or set HTTPS_PROXY if a proxy is needed"),
            None => Check::ok(NAME, none()),
        },
        Ok(Some(proxy)) => Check::ok(NAME, format!("{proxy}")).field("proxy", proxy.to_string()),
        Err(error) => Check::failure(NAME, error.to_string()).advice("correct the variable, or unset it"),
    }
}

/// The certificates that are trusted.
pub(super) fn trust(route: &Route) -> Check {
    const NAME: &str = "trust";
    let is_plain = |url: &Url| matches!(url.scheme(), "ws" | "http");
    if route.stream.as_ref().is_ok_and(is_plain) {
        return Check::skipped(NAME, "not used (ws://)");
    }
    let bundle = route.network.ca_bundle().map(|path| path.display().to_string());
    let check = match (route.network.tls(), route.network.ca_bundle()) {
        (Ok(_), None) => Check::ok(NAME, "the system's certificates"),
        (Ok(_), Some(path)) => Check::ok(
            NAME,
            format!("only the certificates in {} (AWS_CA_BUNDLE or the profile's ca_bundle)", path.display()),
        ),
        (Err(error), _) => Check::failure(NAME, error.to_string())
            .advice("AWS_CA_BUNDLE and the profile's ca_bundle must name a PEM file of certificates"),
    };
    check.field("bundle", bundle)
}

/// Compares this machine's clock with the service's.
pub(super) async fn clock(route: &Route) -> Check {
    const NAME: &str = "clock";
    let Some(url) = &route.api else {
        return match configured() {
            Some((variable, _)) => Check::skipped(NAME, format!("{variable} is not a valid URL")),
            None => Check::skipped(NAME, route.cause()),
        };
    };
    if url.scheme() == "https"
        && let Err(reason) = route.usable()
    {
        return Check::skipped(NAME, reason);
    }
    let before = SystemTime::now();
    let answer = match probe::ask(&route.network, url, ASK_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => return Check::skipped(NAME, format!("cannot be checked: {error}")),
    };
    let after = SystemTime::now();
    let date = answer.headers.get("date").and_then(|value| value.to_str().ok());
    let Some(theirs) = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok()) else {
        return Check::skipped(NAME, "the service's response has no date");
    };
    judge_clock(DateTime::from(before).secs(), DateTime::from(after).secs(), theirs.secs())
}

/// The service's time, in whole seconds, lies between `before` and `after` when the clocks agree.
fn judge_clock(before: i64, after: i64, theirs: i64) -> Check {
    const NAME: &str = "clock";
    let skew = if theirs < before { theirs - before } else { (theirs - after).max(0) };
    let how = if skew < 0 { "ahead of" } else { "behind" };
    let text = format!("this machine's clock is {} s {how} the service's", skew.abs());
    let check = match skew.unsigned_abs() {
        0..=2 => Check::ok(NAME, "matches the service"),
        3..=MAX_SKEW => Check::ok(NAME, text),
        seconds if seconds <= REFUSED_SKEW => Check::warning(NAME, text)
            .advice("set the clock; AWS rejects signatures if it is off by 5 minutes"),
        _ => Check::failure(NAME, format!("{text}; AWS rejects signatures made with it")).advice(SET_CLOCK),
    };
    check.field("seconds_ahead", -skew)
}

/// Opens a websocket, unless a check before has failed for the same cause.
pub(super) async fn websocket(route: &Route, dns: &Check) -> Check {
    const NAME: &str = "websocket";
    let url = match &route.stream {
        Ok(url) => url,
        Err(_) if !route.is_named => return Check::skipped(NAME, route.cause()),
        Err(reason) => {
            return Check::failure(NAME, reason.clone()).advice(route.correction);
        }
    };
    if let Err(reason) = route.usable() {
        return Check::skipped(NAME, reason);
    }
    if dns.status == Status::Failure {
        return Check::skipped(NAME, "see the dns check");
    }
    let host = url.host_str().unwrap_or_default();
    let start = tokio::time::Instant::now();
    match probe::ask(&route.network, url, ASK_TIMEOUT).await {
        Ok(answer) => judge(host, &answer, start.elapsed()),
        Err(error) => match silent_proxy(route, url, &error).await {
            Some(proxy) => Check::failure(
                NAME,
                format!(
                    "proxy {proxy} accepted the connection, but {host} did not respond through it within {} s",
                    ASK_TIMEOUT.as_secs()
                ),
            )
            .advice(format!(
                "check that the proxy is an HTTP or SOCKS proxy that allows {host}, or add that host to NO_PROXY"
            ))
            .field("proxy", proxy),
            None => Check::failure(NAME, error.to_string()).advice(advice(&error)).field("host", host),
        },
    }
}

/// The proxy, if it accepts connections and nothing came through it in time.
async fn silent_proxy(route: &Route, url: &Url, error: &OpenError) -> Option<String> {
    if !matches!(error, OpenError::TimedOut { .. }) {
        return None;
    }
    let proxy = route.network.proxy().for_url(url).ok()??.to_string();
    let address = Url::parse(&proxy).ok()?;
    let address = (address.host_str()?.to_owned(), address.port_or_known_default()?);
    let bare = host::without_brackets(&address.0);
    let connected = tokio::net::TcpStream::connect((bare, address.1));
    tokio::time::timeout(PROXY_TIMEOUT, connected).await.ok()?.ok()?;
    Some(proxy)
}

fn judge(host: &str, answer: &Answer, time: Duration) -> Check {
    const NAME: &str = "websocket";
    let status = answer.status;
    let ms = time.as_millis();
    let header =
        |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = header("content-type").starts_with("text/html");
    let check = match status {
        StatusCode::SWITCHING_PROTOCOLS => {
            Check::ok(NAME, format!("{host} accepted a websocket after {ms} ms"))
        }
        // We ask without a session: a refusal by the service itself shows that the way is open.
        status
            if status.is_client_error()
                && !is_page
                && status != StatusCode::PROXY_AUTHENTICATION_REQUIRED =>
        {
            Check::ok(NAME, format!("{host} is reachable ({ms} ms)"))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Check::failure(NAME, format!("a proxy on the way to {host} responded with {status}"))
                .advice("put the user and the password for the proxy into HTTPS_PROXY")
        }
        status if status.is_client_error() => Check::failure(
            NAME,
            format!("{host} responded with {status} and an HTML page, so a proxy or filter is in the way"),
        )
        .advice(format!("allow wss://{host} in the proxy or filter, or set HTTPS_PROXY or NO_PROXY")),
        status if status.is_server_error() => Check::failure(NAME, format!("{host} responded with {status}"))
            .advice("a gateway on the way cannot connect, or the service has problems; try again later"),
        status => {
            Check::failure(NAME, format!("{host} responded with {status} instead of opening a websocket"))
                .advice(
                    "allow websockets to the service in the proxy or filter that blocks them, or sign in to the captive portal",
                )
        }
    };
    check.field("host", host).field("milliseconds", ms as u64).field("status", status.as_u16())
}

fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::Connect(ConnectError::Resolve { .. }) => "check DNS and VPN",
        OpenError::Connect(ConnectError::Connect { .. }) | OpenError::TimedOut { .. } => {
            "allow TCP port 443 to the host in firewalls and security groups, or set HTTPS_PROXY"
        }
        OpenError::Proxy(_) => "correct HTTPS_PROXY or ALL_PROXY, or add the service's host to NO_PROXY",
        OpenError::Trust(_) => "set AWS_CA_BUNDLE to a PEM file of certificates",
        OpenError::Tls { .. } => {
            "if a company proxy inspects TLS, set AWS_CA_BUNDLE to the PEM file of its CA"
        }
        OpenError::Status { .. } | OpenError::Upgrade { .. } => {
            "allow websockets to the service in the proxy or filter that blocks them, or sign in to the captive portal"
        }
    }
}

/// The HTTP origin of a websocket's server.
fn ping_url(url: &Url) -> String {
    let scheme = if url.scheme() == "ws" { "http" } else { "https" };
    match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{scheme}://{host}:{port}/ping"),
        (host, None) => format!("{scheme}://{host}/ping"),
    }
}

/// Time limit of one network request.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a proxy's TCP connection.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);
/// A data channel of no session.
const PATH: &str = "/v1/data-channel/doctor?role=publish_subscribe";
/// Advice on a clock that is wrong.
const SET_CLOCK: &str = if cfg!(windows) {
    "set the clock, for example with w32tm /resync as administrator"
} else if cfg!(target_os = "macos") {
    "set the clock, for example with sudo sntp -sS time.apple.com"
} else {
    "set the clock (if the laptop or WSL was asleep, run sudo hwclock -s or restart NTP)"
};
/// Seconds that do not matter.
const MAX_SKEW: u64 = 60;
/// Seconds; a minute short of the 5 at which AWS rejects signatures, because clocks drift.
const REFUSED_SKEW: u64 = 240;
/// Addresses that are listed.
const MAX_ADDRESSES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let judge = |before, after, theirs| judge_clock(before, after, theirs).status;
        assert_eq!(judge(100, 101, 100), Status::Ok);
        assert_eq!(judge(100, 130, 115), Status::Ok);
        assert_eq!(judge(1000, 1000, 940), Status::Ok);
        assert_eq!(judge(1000, 1000, 900), Status::Warning);
        assert_eq!(judge(1000, 1001, 1102), Status::Warning);
        assert_eq!(judge(1000, 1000, 100), Status::Failure);
        let check = judge_clock(1000, 1000, 4600);
        assert_eq!(
            check.found,
            "this machine's clock is 3600 s behind the service's; AWS rejects signatures made with it"
        );
    }

    #[test]
    fn answers() {
        let answer = |status: u16, content_type: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", content_type.parse().unwrap());
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), headers };
            judge("h", &answer, Duration::ZERO).status
        };
        for status in [101, 400, 403, 404] {
            assert_eq!(answer(status, "application/json"), Status::Ok, "{status}");
        }
        for status in [200, 302, 407, 502] {
            assert_eq!(answer(status, "application/json"), Status::Failure, "{status}");
        }
        assert_eq!(answer(403, "text/html; charset=utf-8"), Status::Failure);
    }

    #[test]
    fn endpoints() {
        let origin = |url: &str| ping_url(&Url::parse(url).unwrap());
        assert_eq!(origin("wss://h.example/x?a"), "https://h.example/ping");
        assert_eq!(origin("ws://[::1]:80/x"), "http://[::1]/ping");
        assert_eq!(origin("ws://127.0.0.1:8080/x"), "http://127.0.0.1:8080/ping");
    }
}
