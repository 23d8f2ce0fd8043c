//! Proxies: which one applies, and the tunnel through it.

mod adapters;

use std::ffi::OsString;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower_service::Service as _;
use url::Url;

use self::adapters::{ConnectedStream, NoBody};
use super::host;
use super::stream::MaybeTls;
use super::tcp::{self, ConnectError};
use super::tls::{self, TrustError};
use crate::aws;

/// The proxies of the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case.
/// `localhost` and loopback addresses are never reached through a proxy (as in Go's `httpproxy`).
///
/// `NO_PROXY` is checked first: an invalid proxy URL does not matter for the hosts that it exempts.
/// Neither the AWS CLI nor the official plugin reads `ALL_PROXY`, and desktops set it for other programs: one that
/// cannot be used is [ignored](ProxySettings::ignored).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    http: Option<Setting>,
    https: Option<Setting>,
    all: Option<Setting>,
    no: String,
}

/// A variable and its value, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
struct Setting {
    name: &'static str,
    value: String,
}

impl ProxySettings {
    /// Reads the variables through `get`. Empty ones count as absent.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> ProxySettings {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = get(name)?.to_string_lossy().trim().to_owned();
                (!value.is_empty()).then_some(Setting { name, value })
            })
        };
        ProxySettings {
            http: first(["HTTP_PROXY", "http_proxy"]),
            https: first(["HTTPS_PROXY", "https_proxy"]),
            all: first(["ALL_PROXY", "all_proxy"]),
            no: first(["NO_PROXY", "no_proxy"]).map(|setting| setting.value).unwrap_or_default(),
        }
    }

    /// The rules of `NO_PROXY` as they hold for a destination port, with loopback added: names with their subdomains,
    /// addresses, networks (`10.0.0.0/8`), `*`. A rule with a port is left out for others.
    fn no_proxy(&self, port: u16) -> String {
        let rules = self.no.split(',').map(str::trim).filter_map(|rule| no_proxy_rule(rule, port));
        LOOPBACK.into_iter().chain(rules).collect::<Vec<_>>().join(",")
    }

    /// The proxy for a destination (`ws` counts as `http`, `wss` as `https`); `None` is a direct connection.
    ///
    /// # Errors
    /// When the variable that counts holds no URL of a proxy.
    pub fn for_url(&self, url: &Url) -> Result<Option<Proxy>, ProxyError> {
        let Some(setting) = self.setting(url) else { return Ok(None) };
        match setting.proxy(url) {
            None if setting.is_named() => Err(ProxyError::Setting { name: setting.name }),
            proxy => Ok(proxy),
        }
    }

    /// The variable that would count for a destination and is ignored, since nothing here can use what it holds.
    pub fn ignored(&self, url: &Url) -> Option<&'static str> {
        let setting = self.setting(url).filter(|setting| !setting.is_named())?;
        setting.proxy(url).is_none().then_some(setting.name)
    }

    /// The variable that counts for a destination that is not exempt.
    fn setting(&self, url: &Url) -> Option<&Setting> {
        let setting = match url.scheme() {
            "ws" | "http" => &self.http,
            _ => &self.https,
        };
        setting.as_ref().or(self.all.as_ref()).filter(|_| !self.exempts(url))
    }

    /// Returns whether the destination is reached without a proxy.
    fn exempts(&self, url: &Url) -> bool {
        let port = host::port(url);
        let matcher = Matcher::builder().all(ANY_PROXY).no(self.no_proxy(port)).build();
        destination(url).is_none_or(|destination| matcher.intercept(&destination).is_none())
    }
}

impl Setting {
    /// Returns whether it was set for this kind of destination rather than by the catch-all `ALL_PROXY`.
    fn is_named(&self) -> bool {
        !self.name.eq_ignore_ascii_case("ALL_PROXY")
    }

    /// The proxy it names, for a destination; `None` when it names none.
    fn proxy(&self, url: &Url) -> Option<Proxy> {
        let value = match self.value.split_at_checked(SOCKS.len()) {
            // What GNOME and others write.
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SOCKS) => format!("socks5://{rest}"),
            _ => self.value.clone(),
        };
        let intercept = Matcher::builder().all(value.as_str()).build().intercept(&destination(url)?)?;
        let kind = Kind::of(&intercept).filter(|_| is_authority_alone(&value))?;
        Some(Proxy { name: self.name, kind, intercept })
    }
}

/// A URL as a proxy's client asks for it.
fn destination(url: &Url) -> Option<Uri> {
    let scheme = if matches!(url.scheme(), "ws" | "http") { "http" } else { "https" };
    let port = host::port(url);
    format!("{scheme}://{}:{port}/", url.host_str()?).parse().ok()
}

impl fmt::Debug for ProxySettings {
    /// Without the values, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |setting: &Option<Setting>| setting.as_ref().map(|setting| setting.name);
        f.debug_struct("ProxySettings")
            .field("http", &name(&self.http))
            .field("https", &name(&self.https))
            .field("all", &name(&self.all))
            .field("no", &self.no)
            .finish()
    }
}

/// One proxy. Its text is `scheme://host:port`, without the password.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The variable that names it.
    name: &'static str,
    kind: Kind,
    intercept: Intercept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks5,
}

impl Kind {
    fn of(intercept: &Intercept) -> Option<Kind> {
        match intercept.uri().scheme_str() {
            // An invalid port.
            _ if intercept.uri().port_u16().is_none() && has_port(intercept.uri()) => None,
            Some("http") => Some(Kind::Http),
            Some("https") => Some(Kind::Https),
            Some("socks5" | "socks5h") => Some(Kind::Socks5),
            _ => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Kind::Http => 80,
            Kind::Https => 443,
            Kind::Socks5 => 1080,
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.intercept.uri().scheme_str().unwrap_or("http");
        write!(f, "{scheme}://{}:{}", self.host(), self.port())
    }
}

/// Reason that a proxy provides no connection. No text holds its password.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The variable's value is not repeated: it may hold a password.
    #[error(
        "{name} is not an http, https or socks5 URL such as http://user:password@host:3128; percent-encode special \
         characters in the password, for example @ as %40"
    )]
    Setting {
        /// The variable.
        name: &'static str,
    },
    /// The proxy itself cannot be reached.
    #[error("proxy {proxy}: {error}")]
    Connect {
        /// The proxy.
        proxy: String,
        /// The error of the connection to it.
        error: ConnectError,
    },
    /// The proxy's certificate is not accepted, or TLS failed otherwise.
    #[error("cannot open TLS to proxy {proxy}: {}", tls::explain(error))]
    Tls {
        /// The proxy.
        proxy: String,
        /// The TLS library's error message.
        error: std::io::Error,
    },
    /// There is no certificate to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The proxy refused the tunnel.
    #[error("proxy {proxy} refused the tunnel to {to}: {answer}{hint}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// Host and port asked for.
        to: String,
        /// The HTTP status.
        status: StatusCode,
        /// Status and reason in the proxy's words.
        answer: String,
        /// Advice, after `; `, or empty.
        hint: String,
    },
    /// The proxy broke off, or does not speak the protocol.
    #[error("proxy {proxy} did not open the tunnel to {to}: {reason}")]
    Broken {
        /// The proxy.
        proxy: String,
        /// Host and port asked for.
        to: String,
        /// Message of the protocol's library.
        reason: String,
    },
}

impl ProxyError {
    /// Returns whether trying again soon cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            ProxyError::Setting { .. } | ProxyError::Trust(_) => true,
            ProxyError::Refused { status, .. } => {
                status.is_client_error() && !matches!(status.as_u16(), 408 | 429)
            }
            ProxyError::Tls { error, .. } => tls::is_permanent(error),
            ProxyError::Connect { .. } | ProxyError::Broken { .. } => false,
        }
    }
}

impl Proxy {
    /// A connection to `host` (with brackets, if an IPv6 address) through this proxy. `trust` is asked for if the proxy
    /// itself is reached by TLS.
    pub(super) async fn connect(
        &self,
        trust: impl FnOnce() -> Result<Arc<ClientConfig>, TrustError>,
        host: &str,
        port: u16,
    ) -> Result<MaybeTls<TcpStream>, ProxyError> {
        let tcp = tcp::connect(self.host(), self.port())
            .await
            .map_err(|error| ProxyError::Connect { proxy: self.to_string(), error })?;
        let to = format!("{host}:{port}");
        match self.kind {
            Kind::Http => self.tunnel(tcp, &to).await.map(MaybeTls::Plain),
            Kind::Https => {
                let config = trust()?;
                let stream = tls::connect(config, self.host(), tcp)
                    .await
                    .map_err(|error| ProxyError::Tls { proxy: self.to_string(), error })?;
                self.tunnel(stream, &to).await.map(|stream| MaybeTls::Tls(Box::new(stream)))
            }
            Kind::Socks5 => self.socks5(tcp, &to).await.map(MaybeTls::Plain),
        }
    }

    fn host(&self) -> &str {
        self.intercept.uri().host().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.intercept.uri().port_u16().unwrap_or(self.kind.default_port())
    }

    /// Asks for a tunnel (`CONNECT`, RFC 9110 section 9.3.6) and returns the stream once there is one.
    async fn tunnel<S>(&self, stream: S, to: &str) -> Result<S, ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |reason: String| self.broken(to, reason);
        let mut request = Request::builder().method(Method::CONNECT).uri(to).header(header::HOST, to);
        if let Some(value) = self.intercept.basic_auth() {
            request = request.header(header::PROXY_AUTHORIZATION, value);
        }
        let request = request.body(NoBody).map_err(|error| broken(error.to_string()))?;
        let (mut sender, mut connection) = http1::Builder::new()
            .max_buf_size(aws::HEAD_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(words(&error)))?;
        let mut answer = std::pin::pin!(sender.send_request(request));
        let mut connection_ended = false;
        let response = loop {
            tokio::select! {
                biased;
                response = &mut answer => break response.map_err(|error| broken(words(&error)))?,
                // An error shows in the answer, too.
                _ = poll_fn(|cx| connection.poll_without_shutdown(cx)), if !connection_ended => {
                    connection_ended = true;
                }
            }
        };
        if !response.status().is_success() {
            return Err(self.refused(to, &response));
        }
        if !connection_ended {
            let rest = poll_fn(|cx| connection.poll_without_shutdown(cx));
            rest.await.map_err(|error| broken(words(&error)))?;
        }
        let parts = connection.into_parts();
        if !parts.read_buf.is_empty() {
            return Err(broken("it sent unexpected data after its response".to_owned()));
        }
        Ok(parts.io.into_inner())
    }

    /// The proxy resolves the name, as with Go's client.
    async fn socks5(&self, tcp: TcpStream, to: &str) -> Result<TcpStream, ProxyError> {
        let broken = |reason: String| self.broken(to, reason);
        let destination =
            format!("https://{to}/").parse::<Uri>().map_err(|error| broken(error.to_string()))?;
        let mut socks = SocksV5::new(self.intercept.uri().clone(), ConnectedStream(Some(TokioIo::new(tcp))));
        if let Some((user, password)) = self.intercept.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        let stream = socks.call(destination).await.map_err(|error| broken(error.to_string()))?;
        Ok(stream.into_inner())
    }

    fn broken(&self, to: &str, reason: String) -> ProxyError {
        ProxyError::Broken { proxy: self.to_string(), to: to.to_owned(), reason }
    }

    fn refused<B>(&self, to: &str, response: &Response<B>) -> ProxyError {
        let status = response.status();
        let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let phrase = match phrase {
            // Nothing from the network may steer the user's terminal.
            Some(phrase) => String::from_utf8_lossy(phrase.as_bytes())
                .chars()
                .filter(|char| !char.is_control())
                .take(MAX_PHRASE)
                .collect(),
            None => status.canonical_reason().unwrap_or_default().to_owned(),
        };
        ProxyError::Refused {
            proxy: self.to_string(),
            to: to.to_owned(),
            status,
            answer: format!("{} {phrase}", status.as_str()).trim_end().to_owned(),
            hint: self.hint(response),
        }
    }

    fn hint<B>(&self, response: &Response<B>) -> String {
        let name = self.name;
        match response.status() {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let wanted = schemes(response);
                if !wanted.is_empty() && !wanted.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
                    return format!(
                        "; it requires {} authentication, but only Basic is supported",
                        wanted.join(" or ")
                    );
                }
                if self.intercept.basic_auth().is_some() {
                    return format!("; it does not accept the user and password in {name}");
                }
                format!("; put the user and password into {name}, as in {}", self.with_user())
            }
            StatusCode::FORBIDDEN => "; if the host needs no proxy, add it to NO_PROXY".to_owned(),
            _ => String::new(),
        }
    }

    fn with_user(&self) -> String {
        self.to_string().replacen("://", "://user:password@", 1)
    }
}

fn has_port(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority.as_str() != authority.host())
}

/// The names of the authentication schemes a proxy offers.
fn schemes<B>(response: &Response<B>) -> Vec<String> {
    let values = response.headers().get_all(header::PROXY_AUTHENTICATE).into_iter();
    let names = values.filter_map(|value: &HeaderValue| value.to_str().ok()?.split_whitespace().next());
    names.take(MAX_SCHEMES).map(|name| name.chars().take(MAX_PHRASE).collect()).collect()
}

/// Returns whether a proxy's URL ends with its host and port. A `/`, `?` or `#` in a password would end it
/// early: what is left of it is then taken for a host, and shown.
fn is_authority_alone(value: &str) -> bool {
    let authority = value.split_once("://").map_or(value, |(_, rest)| rest);
    !authority.trim_end_matches('/').contains(['/', '?', '#'])
}

/// A rule as hyper-util reads it; `None` when it is for another port.
fn no_proxy_rule(rule: &str, port: u16) -> Option<&str> {
    if rule.is_empty() {
        return None;
    }
    let is_address = rule.parse::<IpAddr>().is_ok() || rule.contains('/');
    let rule = match rule.rsplit_once(':') {
        Some((host, of)) if !is_address => match of.parse::<u16>() {
            Ok(of) if of == port => host,
            Ok(_) => return None,
            Err(_) => rule,
        },
        _ => rule,
    };
    let rule = host::without_brackets(rule);
    // `*.example.com`, as Go and Windows have it.
    Some(rule.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(rule))
}

/// hyper says what went wrong in an error's source.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A scheme without the protocol's version.
const SOCKS: &str = "socks://";
/// Placeholder for any proxy where only the exemptions matter.
const ANY_PROXY: &str = "http://proxy.invalid";
/// Never reached through a proxy.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.0/8", "::1"];
/// Characters of a proxy's own words that are shown.
const MAX_PHRASE: usize = 80;
/// Authentication schemes that are shown.
const MAX_SCHEMES: usize = 4;

#[cfg(test)]
mod tests;
