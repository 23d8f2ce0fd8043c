//! Destination of a forward, and the StartSession request for it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Value, json};

/// A host, as the instance names it, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Destination {
    /// A name or an address, without brackets. The agent resolves it.
    pub host: String,
    pub port: u16,
}

/// Reason that a destination is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DestinationError {
    #[error("port 0 is not a valid destination port")]
    PortZero,
    #[error("the host has characters that the session document does not allow, or is too long")]
    Host,
    #[error("AWS's session document requires at least {SHORTEST_HOST} characters in a host name")]
    TooShort,
}

impl Destination {
    /// A destination that the session documents take.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub(crate) fn new(host: &str, port: u16) -> Result<Destination, DestinationError> {
        if port == 0 {
            return Err(DestinationError::PortZero);
        }
        let is_allowed = |c: char| c.is_ascii_graphic() && !FORBIDDEN.contains(c);
        if host.len() > LONGEST_HOST || !host.chars().all(is_allowed) {
            return Err(DestinationError::Host);
        }
        if host.len() < SHORTEST_HOST {
            return Err(DestinationError::TooShort);
        }
        Ok(Destination { host: host.to_owned(), port })
    }

    /// Returns whether it is the instance itself. Agents since 3.3.4851 forward there only with the document
    /// that names no host.
    fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(address) => address.is_loopback(),
                IpAddr::V6(address) => {
                    address.is_loopback()
                        || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
                }
            })
    }

    /// The request for a session to it: as argv's, of the same target for the same reason, with AWS's own documents.
    pub(crate) fn request(&self, argv: &Value) -> Value {
        let port = self.port.to_string();
        let (document, parameters) = if self.is_loopback() {
            ("AWS-StartPortForwardingSession", json!({"portNumber": [port]}))
        } else {
            let parameters = json!({"host": [self.host], "portNumber": [port]});
            ("AWS-StartPortForwardingSessionToRemoteHost", parameters)
        };
        let mut request = json!({"DocumentName": document, "Parameters": parameters});
        for name in ["Target", "Reason"] {
            if let Some(value) = argv.get(name) {
                request[name] = value.clone();
            }
        }
        request
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Destination { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// The `allowedPattern` of the parameter `host` in AWS-StartPortForwardingSessionToRemoteHost:
/// `^[^,$^&\(\)!;'\"<>\`{}\[\]\|#=]{3,}$`.
const FORBIDDEN: &str = ",$^&()!;'\"<>`{}[]|#=";
const SHORTEST_HOST: usize = 3;
/// Of a domain name: RFC 1035 2.3.4. SOCKS5 has no more, either.
const LONGEST_HOST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(host: &str) -> Destination {
        Destination::new(host, 5432).unwrap()
    }

    #[test]
    fn the_document_and_its_parameters() {
        let argv =
            json!({"Target": "i-1", "Reason": "CHG1", "DocumentName": "Own", "Parameters": {"x": ["y"]}});
        assert_eq!(
            destination("db.internal").request(&argv),
            json!({
                "Target": "i-1", "Reason": "CHG1",
                "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
                "Parameters": {"host": ["db.internal"], "portNumber": ["5432"]},
            })
        );
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            let expected = json!({
                "Target": "i-1", "DocumentName": "AWS-StartPortForwardingSession",
                "Parameters": {"portNumber": ["5432"]},
            });
            assert_eq!(destination(host).request(&json!({"Target": "i-1"})), expected, "{host}");
        }
    }

    #[test]
    fn what_the_document_would_refuse() {
        assert_eq!(Destination::new("db.internal", 0), Err(DestinationError::PortZero));
        for host in ["", "d", "db"] {
            assert_eq!(Destination::new(host, 1), Err(DestinationError::TooShort), "{host:?}");
        }
        for host in ["a b c", "a\nb.c", "\"db\".x", "a;b.c", "$(id)", "d\u{e4}b.internal", &"a".repeat(256)] {
            assert_eq!(Destination::new(host, 1), Err(DestinationError::Host), "{host:?}");
        }
        for host in ["fd00::1", "10.0.0.7", "a_b-c.d", &"a".repeat(255)] {
            assert!(Destination::new(host, 1).is_ok(), "{host}");
        }
        assert_eq!(destination("fd00::1").to_string(), "[fd00::1]:5432");
        assert_eq!(destination("db.internal").to_string(), "db.internal:5432");
    }
}
