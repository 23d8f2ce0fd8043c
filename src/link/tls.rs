//! Whom we trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A TLS configuration that trusts the system's store (or `SSL_CERT_FILE`, `SSL_CERT_DIR`) and the certificates of
/// `bundle`, a PEM file.
///
/// # Errors
/// When the bundle cannot be read or holds no certificate. A system store that is missing or partly unreadable is
/// logged: the bundle may be all that is needed.
pub fn client_config(bundle: Option<&Path>) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        tracing::warn!(%error, "cannot read a part of the system's trust store");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = bundle {
        let name = path.display();
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read the certificates in {name}"))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        anyhow::ensure!(added > 0, "there is no certificate in {name}");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
