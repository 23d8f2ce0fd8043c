//! TLS with a private certificate authority, and a front that puts it before a server without.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::background::Background;
use crate::head::read_head;

/// A server with TLS that hands all it gets to one without. Dropping it ends its connections.
pub struct TlsFront {
    background: Background,
    ca_pem: String,
    visits: Arc<Mutex<Vec<Visit>>>,
}

/// The beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The name asked for in the TLS handshake (SNI), if any.
    pub server_name: Option<String>,
    /// The first request's `Host` header.
    pub host: Option<String>,
}

impl TlsFront {
    /// Starts a front for `to` on a free port of 127.0.0.1. Its certificate is for `names`, host names or addresses.
    ///
    /// # Errors
    /// When no port or no certificate is available.
    pub fn start(to: SocketAddr, names: &[&str]) -> anyhow::Result<TlsFront> {
        let (ca_pem, acceptor) = certificates(names)?;
        let visits = Arc::<Mutex<Vec<Visit>>>::default();
        let seen = Arc::clone(&visits);
        let background = Background::start("ssm-sim-tls", |listener| serve(listener, acceptor, to, seen))?;
        Ok(TlsFront { background, ca_pem, visits })
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.background.port()
    }

    /// The certificate authority in PEM form.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The connections so far that have sent a request.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A certificate authority of one's own in PEM form, and a server certificate of it for `names`.
pub(crate) fn certificates(names: &[&str]) -> anyhow::Result<(String, TlsAcceptor)> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own, or a client that trusts another one would look for its key.
    let name = format!("ssm-sim authority {:08x}", fastrand::u32(..));
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let mut leaf = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.distinguished_name.push(DnType::CommonName, *names.first().unwrap_or(&"localhost"));
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .context("server certificate")?;
    Ok((ca_pem, TlsAcceptor::from(Arc::new(config))))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr, visits: Arc<Mutex<Vec<Visit>>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, visits) = (acceptor.clone(), Arc::clone(&visits));
        tokio::spawn(async move {
            if let Err(error) = relay(tcp, acceptor, to, &visits).await {
                debug!(%error, "connection through the TLS front failed");
            }
        });
    }
}

async fn relay(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    to: SocketAddr,
    visits: &Mutex<Vec<Visit>>,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let head = read_head(&mut stream).await?;
    let host = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim().to_owned())
    });
    let server_name = stream.get_ref().1.server_name().map(str::to_owned);
    visits.lock().unwrap_or_else(PoisonError::into_inner).push(Visit { server_name, host });
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    server.write_all(head.as_bytes()).await?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
