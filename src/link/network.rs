//! The network as the user has set it up: trust, proxies, and another host for the websocket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use url::Url;

use super::connector::Connector;
use super::network_changes::{NetworkChanges, Subscription};
use super::proxy::ProxySettings;
use super::stream_url::{self, StreamUrlError};
use super::tls::{self, TrustError};

/// Network settings shared by all connections of a process. Cheap to make: the trust store is read when the
/// first TLS connection asks for it.
#[derive(Debug)]
pub struct Network {
    tls: OnceLock<Arc<rustls::ClientConfig>>,
    ca_bundle: Option<PathBuf>,
    proxy: ProxySettings,
    hosts: StreamHosts,
    changes: NetworkChanges,
    connector: Option<Arc<dyn Connector>>,
}

/// The hosts that stream URLs may lead to, in addition to AWS's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHosts {
    /// One more host that a stream URL may name.
    pub allowed: Option<String>,
    /// The host to connect to instead of the stream URL's.
    pub instead: Option<String>,
}

impl Network {
    /// From the environment's proxy and trust variables.
    pub fn from_env() -> Network {
        Network::new(StreamHosts::default(), None)
    }

    /// As [`Network::from_env`], with additional hosts. `ca_bundle` is the profile's; `AWS_CA_BUNDLE` overrides it, as in
    /// the AWS CLI.
    pub fn new(hosts: StreamHosts, ca_bundle: Option<PathBuf>) -> Network {
        let bundle = std::env::var_os(CA_BUNDLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let proxy = ProxySettings::from_env(|name| std::env::var_os(name));
        Network { proxy, ..Network::direct(hosts, bundle.or(ca_bundle)) }
    }

    /// Without proxies; the environment is not read. `ca_bundle`: a PEM file of certificates to trust instead of the system's.
    pub fn direct(hosts: StreamHosts, ca_bundle: Option<PathBuf>) -> Network {
        Network {
            tls: OnceLock::new(),
            ca_bundle,
            proxy: ProxySettings::default(),
            hosts,
            changes: NetworkChanges::default(),
            connector: None,
        }
    }

    /// Connects by `connector` instead of TCP and proxies.
    #[must_use]
    pub fn with_connector(self, connector: Arc<dyn Connector>) -> Network {
        Network { connector: Some(connector), ..self }
    }

    /// Reports that the way to the service may have changed: each link checks its websocket, and attempts that wait for
    /// their turn are made now. Needed with a [`Connector`] only; otherwise the system reports changes.
    pub fn report_change(&self) {
        self.changes.report();
    }

    /// The URL to open (and to sign) for a stream URL of the service: checked, and with the other
    /// host where one is set. A presigned URL keeps its host, which is a part of its signature.
    ///
    /// # Errors
    /// When the URL, or the host in its place, may not be opened.
    pub fn stream_url(&self, text: &str) -> Result<Url, StreamUrlError> {
        let allowed = self.hosts.allowed.as_deref();
        let url = stream_url::parse(text, allowed)?;
        match &self.hosts.instead {
            Some(host) if stream_url::is_presigned(&url) => {
                tracing::warn!(host, "a presigned stream URL cannot be sent to another host");
                Ok(url)
            }
            Some(host) => stream_url::with_host(url, host, allowed),
            None => Ok(url),
        }
    }

    /// The TLS configuration, read at the first call and shared from then on.
    ///
    /// # Errors
    /// When there is no certificate to trust, or the CA bundle cannot be used.
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, TrustError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(self.ca_bundle.as_deref())?;
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }

    /// The PEM file trusted instead of the system's store, for clients with a separate trust store.
    pub fn ca_bundle(&self) -> Option<&Path> {
        self.ca_bundle.as_deref()
    }

    /// Subscribes to changes of the machine's network.
    pub(super) fn changes(&self) -> Subscription {
        self.changes.subscribe(self.connector.is_none())
    }

    /// Returns the connector, if the network has one.
    pub(super) fn connector(&self) -> Option<&Arc<dyn Connector>> {
        self.connector.as_ref()
    }

    /// The proxies.
    pub fn proxy(&self) -> &ProxySettings {
        &self.proxy
    }
}

/// Not read by the AWS SDK for Rust itself.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";
