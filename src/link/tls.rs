//! TLS configuration and trust store, with explanations of certificate errors.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::host;
use crate::ca_bundle::{self, BundleError};
use crate::files;

/// Reason that the trust store could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or a certificate in it is damaged.
    #[error("cannot read the CA certificates in {path}: {reason}")]
    Unreadable {
        /// The file that `AWS_CA_BUNDLE`, the profile's `ca_bundle` or `SSL_CERT_FILE` names.
        path: PathBuf,
        /// The system's message, or what is wrong with the file.
        reason: String,
    },
    /// The file holds no certificate that the TLS library can use.
    #[error("there is no CA certificate in {path}")]
    Empty {
        /// The file that `AWS_CA_BUNDLE` or the profile's `ca_bundle` names.
        path: PathBuf,
    },
    /// Neither the system nor the settings know a certificate.
    #[error(
        "no CA certificates found{reason}; install the system's CA certificates, or set AWS_CA_BUNDLE to a PEM file"
    )]
    Nothing {
        /// Error of the system's store, in brackets, or empty.
        reason: String,
    },
    /// The TLS library takes no settings of ours.
    #[error("cannot set up TLS: {0}")]
    Library(String),
}

/// A TLS configuration that trusts the certificates of `bundle`, a PEM file, and without one the system's store (or
/// `SSL_CERT_FILE`, `SSL_CERT_DIR`). A bundle replaces the store, as in the AWS CLI: its user may have named it to trust
/// no other CA. Reads files: a few milliseconds, and [`READING`] at most.
///
/// # Errors
/// When the bundle cannot be read or holds no certificate, and when there is no certificate at all. A system store
/// that is partly unreadable is logged: the rest may be all that is needed.
pub(crate) fn client_config(bundle: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, TrustError> {
    let roots = roots(bundle)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Library(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Reads the certificates on another thread: opening a file may block (a file system that has gone).
fn roots(bundle: Option<&Path>) -> Result<rustls::RootCertStore, TrustError> {
    let read = |bundle: Option<&Path>| match bundle {
        Some(path) => bundle_roots(path),
        None => system_roots(),
    };
    let (sender, read_elsewhere) = mpsc::channel();
    let thread = thread::Builder::new().name("trust".to_owned()).spawn({
        let bundle = bundle.map(Path::to_owned);
        move || drop(sender.send(read(bundle.as_deref())))
    });
    if thread.is_err() {
        // Connecting needs the certificates; a file that blocks is rare.
        return read(bundle);
    }
    match read_elsewhere.recv_timeout(READING) {
        Ok(roots) => roots,
        Err(RecvTimeoutError::Disconnected) => Err(TrustError::Library("internal error".to_owned())),
        Err(RecvTimeoutError::Timeout) => {
            let reason = format!("it cannot be read within {READING:?}");
            match bundle.map(Path::to_owned).or_else(system_file) {
                Some(path) => Err(TrustError::Unreadable { path, reason }),
                None => {
                    Err(TrustError::Nothing { reason: format!(" (they cannot be read within {READING:?})") })
                }
            }
        }
    }
}

fn bundle_roots(path: &Path) -> Result<rustls::RootCertStore, TrustError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(read_bundle(path)?);
    if roots.is_empty() { Err(TrustError::Empty { path: path.to_owned() }) } else { Ok(roots) }
}

fn system_roots() -> Result<rustls::RootCertStore, TrustError> {
    // The library opens whatever has this name; of a folder, only regular files.
    if let Some(path) = system_file() {
        files::check(&path, files::MAX_CERTIFICATES)
            .map_err(|error| TrustError::Unreadable { path, reason: error.to_string() })?;
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "cannot read a part of the system's trust store");
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        let reason = native.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TrustError::Nothing { reason });
    }
    Ok(roots)
}

/// The file that the user names in place of the system's.
fn system_file() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

/// The certificates of a bundle.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds no certificate.
pub(crate) fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unusable = path.to_owned();
    ca_bundle::read(path).map_err(|error| match error {
        BundleError::Empty => TrustError::Empty { path: unusable },
        error => TrustError::Unreadable { path: unusable, reason: error.to_string() },
    })
}

/// The client's side of a TLS handshake. `host` may be a name or an address, the latter with or without brackets.
pub(super) async fn connect<S>(
    config: Arc<rustls::ClientConfig>,
    host: &str,
    stream: S,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bare = host::without_brackets(host).to_owned();
    let name = ServerName::try_from(bare).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "this host name cannot appear in a TLS certificate")
    })?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Explains a failed handshake to a user who can fix it.
pub(super) fn explain(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(reason)) = inner else { return error.to_string() };
    match reason {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by an unknown CA; if a proxy or gateway uses its own CA, \
             set AWS_CA_BUNDLE or the profile's ca_bundle to a PEM file with that CA, which replaces the system's CAs; the \
             AWS CLI does not pass --ca-bundle or --no-verify-ssl on to the plugin"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate was issued by a CA that has the name of a trusted CA but a different key; check that the PEM \
             file in AWS_CA_BUNDLE is up to date"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host name".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Returns whether the peer showed a certificate that is not accepted: the same next time.
pub(super) fn is_permanent(error: &io::Error) -> bool {
    // What rustls says about certificates comes as invalid data; a connection cut in the middle does not.
    error.kind() == io::ErrorKind::InvalidData
}

/// The run stands still meanwhile; a healthy network file system answers within that.
const READING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_bundle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let error = || client_config(Some(&path)).unwrap_err().to_string();
        let missing = std::fs::read(&path).unwrap_err();
        assert_eq!(error(), format!("cannot read the CA certificates in {}: {missing}", path.display()));
        std::fs::write(&path, "nothing here\n").unwrap();
        assert!(error().starts_with("there is no CA certificate in"), "{}", error());
        let begin = "-----BEGIN CERTIFICATE-----\n";
        std::fs::write(&path, format!("{begin}MAMC\n")).unwrap();
        assert!(
            error().ends_with("ca.pem: it ends in the middle of a certificate; copy the file again"),
            "{}",
            error()
        );
        // A sequence, but not a certificate.
        std::fs::write(&path, format!("{begin}MAMCAQE=\n-----END CERTIFICATE-----\n")).unwrap();
        assert!(error().starts_with("there is no CA certificate in"), "{}", error());
    }

    #[test]
    fn an_untrusted_certificate_is_reported_with_advice() {
        let error =
            |reason| io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(reason));
        assert!(explain(&error(CertificateError::UnknownIssuer)).contains("AWS_CA_BUNDLE"));
        assert!(explain(&error(CertificateError::BadSignature)).contains("is up to date"));
        assert!(explain(&error(CertificateError::Expired)).contains("expired"));
        assert!(explain(&error(CertificateError::NotValidForName)).contains("another host name"));
        assert!(is_permanent(&error(CertificateError::UnknownIssuer)));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(!is_permanent(&cut));
        assert_eq!(explain(&cut), cut.to_string());
    }
}
