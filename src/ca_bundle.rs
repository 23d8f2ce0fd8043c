//! A file of CA certificates, as the AWS CLI reads the one that `AWS_CA_BUNDLE` or a profile's `ca_bundle` names.
//!
//! The CLI hands the file to OpenSSL. Both refuse a file that ends inside a certificate or holds one that is damaged,
//! wherever it is, and skip other text, keys and requests. Labels are `CERTIFICATE`, `X509 CERTIFICATE` and `TRUSTED
//! CERTIFICATE` (RHEL's `ca-bundle.trust.crt`), in which OpenSSL's own data follows the certificate: a certificate that it
//! rejects for servers is left out. A folder is not a bundle.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};

use crate::files::{self, FileError};

/// Reason that a file is not a bundle; reads well after its name and a colon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate has no end, or the text breaks off in it.
    #[error("it ends in the middle of a certificate; copy the file again")]
    Truncated,
    /// A certificate holds something else.
    #[error("certificate {0} in it is damaged; copy the file again")]
    Damaged(usize),
    /// There is not one certificate.
    #[error("it contains no certificate")]
    Empty,
}

/// Reads a bundle. Whether the TLS library can use a certificate is its matter.
///
/// # Errors
/// See [`BundleError`].
pub(crate) fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    parse(&files::read(path, files::MAX_CERTIFICATES)?)
}

fn parse(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let mut certificates = Vec::new();
    let (text, trusted) = with_common_labels(text);
    for (index, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
        let certificate = certificate.map_err(|error| match error {
            pem::Error::MissingSectionEnd { .. } => BundleError::Truncated,
            _ => BundleError::Damaged(index + 1),
        })?;
        let damaged = || BundleError::Damaged(index + 1);
        let (der, rest) = element(&certificate).ok_or_else(damaged)?;
        match trusted.get(index) {
            Some(true) if is_rejected_for_servers(rest) => {}
            Some(true) => certificates.push(CertificateDer::from(der.to_vec())),
            _ if rest.is_empty() => certificates.push(certificate),
            _ => return Err(damaged()),
        }
    }
    // A file of certificates that are all rejected is one of certificates, too.
    if trusted.is_empty() { Err(BundleError::Empty) } else { Ok(certificates) }
}

/// The text with `CERTIFICATE` for OpenSSL's labels, and which of its certificates are `TRUSTED`.
fn with_common_labels(text: &[u8]) -> (Vec<u8>, Vec<bool>) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut trusted = Vec::new();
    let mut common = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.trim_ascii_end();
        let label = bare.strip_suffix(b"CERTIFICATE-----").and_then(|rest| {
            let rest = rest.strip_prefix(b"-----")?;
            [b"BEGIN ".as_slice(), b"END "]
                .into_iter()
                .find_map(|edge| Some((edge, rest.strip_prefix(edge)?)))
        });
        match label {
            Some((edge, label @ (b"" | b"X509 " | b"TRUSTED "))) => {
                if edge == b"BEGIN " {
                    trusted.push(label == b"TRUSTED ");
                }
                common.extend_from_slice(&[b"-----", edge, b"CERTIFICATE-----\n"].concat());
            }
            _ => common.extend_from_slice(line),
        }
    }
    (common, trusted)
}

/// The DER sequence at the beginning, with its header, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = content(der, SEQUENCE)?;
    (!content.is_empty()).then_some(())?;
    der.split_at_checked(der.len() - rest.len())
}

/// The content of the element with this tag at the beginning, and what follows the element.
fn content(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Returns whether OpenSSL's data after a certificate (`X509_CERT_AUX`: `SEQUENCE { trust SEQUENCE OPTIONAL,
/// reject [0] OPTIONAL, … }`) takes TLS servers out: by a rejection, or by trust in other purposes alone.
fn is_rejected_for_servers(aux: &[u8]) -> bool {
    let Some((aux, _)) = content(aux, SEQUENCE) else { return false };
    let (trust, rest) = match content(aux, SEQUENCE) {
        Some((trust, rest)) => (Some(trust), rest),
        None => (None, aux),
    };
    let names = |list: &[u8], purpose: &[u8]| list.windows(purpose.len()).any(|window| window == purpose);
    let names_servers = |list: &[u8]| names(list, &SERVER_AUTH) || names(list, &ANY_PURPOSE);
    content(rest, REJECT).is_some_and(|(reject, _)| names_servers(reject))
        || trust.is_some_and(|trust| !names_servers(trust))
}

const SEQUENCE: u8 = 0x30;
/// `[0]`, implicit and constructed.
const REJECT: u8 = 0xa0;
/// `OBJECT IDENTIFIER` 1.3.6.1.5.5.7.3.1, as DER.
const SERVER_AUTH: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// `OBJECT IDENTIFIER` 2.5.29.37.0, as DER.
const ANY_PURPOSE: [u8; 6] = [0x06, 0x04, 0x55, 0x1d, 0x25, 0x00];

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    /// A sequence that stands for a certificate: an integer, 1.
    const CERTIFICATE: [u8; 5] = [SEQUENCE, 3, 2, 1, 1];

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    }

    /// Lengths of the certificates, or the error.
    fn parsed(text: impl AsRef<[u8]>) -> Result<Vec<usize>, String> {
        let certificates = parse(text.as_ref()).map_err(|error| error.to_string())?;
        assert!(certificates.iter().all(|certificate| **certificate == CERTIFICATE));
        Ok(certificates.iter().map(|certificate| certificate.len()).collect())
    }

    fn trusted(aux: &[&[u8]]) -> String {
        let aux = aux.concat();
        let aux = [&[SEQUENCE, u8::try_from(aux.len()).unwrap()], aux.as_slice()].concat();
        pem("TRUSTED CERTIFICATE", &[CERTIFICATE.as_slice(), &aux].concat())
    }

    fn list(tag: u8, purpose: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(purpose.len()).unwrap()], purpose].concat()
    }

    /// Each form was tried with the AWS CLI 1.46 and 2.9, which agree.
    #[test]
    fn forms_that_the_aws_cli_takes() {
        let one = pem("CERTIFICATE", &CERTIFICATE);
        assert_eq!(parsed(&one), Ok(vec![5]));
        assert_eq!(parsed(one.replace('\n', "\r\n")), Ok(vec![5]));
        assert_eq!(parsed(one.trim_end()), Ok(vec![5]));
        assert_eq!(parsed(format!("\u{feff}{one}")), Ok(vec![5]));
        assert_eq!(parsed(one.replace("CERTIFICATE-----\n", "CERTIFICATE-----  \n")), Ok(vec![5]));
        assert_eq!(parsed(format!("# comment\n{one}text\n{one}")), Ok(vec![5, 5]));
        let others = [pem("PRIVATE KEY", b"x"), pem("CERTIFICATE REQUEST", b"x")].concat();
        assert_eq!(parsed(format!("{others}{one}{others}")), Ok(vec![5]));
        assert_eq!(parsed(pem("X509 CERTIFICATE", &CERTIFICATE)), Ok(vec![5]));
        assert_eq!(parsed(pem("TRUSTED CERTIFICATE", &CERTIFICATE)), Ok(vec![5]));
    }

    #[test]
    fn trusted_certificates_are_those_for_servers() {
        let (servers, clients) = (SERVER_AUTH, [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);
        for (aux, is_trusted) in [
            (list(SEQUENCE, &servers), true),
            (list(SEQUENCE, &ANY_PURPOSE), true),
            (list(SEQUENCE, &clients), false),
            (list(REJECT, &servers), false),
            (list(REJECT, &clients), true),
            ([list(SEQUENCE, &servers), list(REJECT, &clients)].concat(), true),
            (Vec::new(), true),
        ] {
            let expected = if is_trusted { vec![5] } else { Vec::new() };
            assert_eq!(parsed(trusted(&[&aux])), Ok(expected), "{aux:x?}");
        }
    }

    #[test]
    fn files_that_the_aws_cli_refuses() {
        let one = pem("CERTIFICATE", &CERTIFICATE);
        let (begin, damaged) = ("-----BEGIN CERTIFICATE-----\n", pem("CERTIFICATE", &[0, 0, 0]));
        let breaks_off = Err(BundleError::Truncated.to_string());
        assert_eq!(parsed(format!("{begin}MAMC\n")), breaks_off);
        assert_eq!(parsed(format!("{one}{begin}MAMC\n")), breaks_off);
        for first in [damaged.clone(), format!("{begin}####\n-----END CERTIFICATE-----\n")] {
            assert_eq!(parsed(format!("{first}{one}")), Err(BundleError::Damaged(1).to_string()));
            assert_eq!(parsed(format!("{one}{first}")), Err(BundleError::Damaged(2).to_string()));
        }
        assert!(parsed(format!("{begin}MAMC\n{one}")).is_err());
        let empty = Err(BundleError::Empty.to_string());
        let indented = one.replace("-----", "  -----");
        let utf_16: Vec<u8> = one.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for text in [b"".as_slice(), b"text\n", &CERTIFICATE, indented.as_bytes(), &utf_16] {
            assert_eq!(parsed(text), empty);
        }
    }
}
