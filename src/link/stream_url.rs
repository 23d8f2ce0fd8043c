//! Where the websocket may go.

use url::{Host, Url};

/// Why a stream URL is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamUrlError {
    /// Not a URL at all. The text is not repeated: it may hold a signature.
    #[error("the stream URL is not a URL")]
    Malformed,
    /// Neither `wss` nor, on loopback, `ws`.
    #[error("the stream URL must begin with wss://")]
    Scheme,
    /// Not a host of AWS.
    #[error("the stream URL names {0}, which is not an AWS host; SSM_PLUGIN_ALLOW_STREAM_HOST={0} allows it")]
    Host(String),
}

/// Reads a stream URL and checks that it may be opened: `wss` to a host of AWS, anything on loopback, or the one host
/// that `allowed` names. The official plugin validates the host since 1.2.889.
///
/// # Errors
/// [`StreamUrlError`] says what is wrong.
pub fn parse(text: &str, allowed: Option<&str>) -> Result<Url, StreamUrlError> {
    let url = Url::parse(text).map_err(|_| StreamUrlError::Malformed)?;
    let host = url.host().ok_or(StreamUrlError::Malformed)?;
    let is_loopback = match &host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "wss" => {}
        "ws" if is_loopback => {}
        _ => return Err(StreamUrlError::Scheme),
    }
    let name = host.to_string();
    let is_allowed = allowed.is_some_and(|allowed| allowed.eq_ignore_ascii_case(&name));
    if is_loopback || is_allowed || is_aws_host(&name) { Ok(url) } else { Err(StreamUrlError::Host(name)) }
}

/// Whether the URL was presigned: it must then be opened as it is, and cannot be resumed.
pub fn is_presigned(url: &Url) -> bool {
    url.query_pairs().any(|(name, _)| name.to_ascii_lowercase().starts_with("x-amz-"))
}

fn is_aws_host(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    AWS_DOMAINS.iter().any(|domain| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// The domains of AWS's partitions; interface endpoints (`vpce-…`) lie below them.
const AWS_DOMAINS: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_aws_and_loopback_pass() {
        for url in [
            "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s?role=publish_subscribe",
            "wss://ssmmessages.cn-north-1.amazonaws.com.cn/x",
            "wss://ssmmessages.eu-west-1.api.aws/x",
            "wss://vpce-1-2.ssmmessages.us-east-1.vpce.amazonaws.com/x",
            "wss://SSMMESSAGES.us-east-1.AMAZONAWS.com/x",
            "ws://127.0.0.1:8080/x",
            "ws://[::1]:8080/x",
            "wss://localhost/x",
        ] {
            assert!(parse(url, None).is_ok(), "{url}");
        }
    }

    #[test]
    fn everything_else_is_refused_unless_named() {
        let refused = |url: &str| parse(url, None).unwrap_err();
        assert_eq!(refused("ws://ssmmessages.us-east-1.amazonaws.com/x"), StreamUrlError::Scheme);
        assert_eq!(refused("https://127.0.0.1/x"), StreamUrlError::Scheme);
        for host in ["evil.example", "amazonaws.com.evil.example", "evilamazonaws.com", "amazonaws.com"] {
            assert_eq!(refused(&format!("wss://{host}/x")), StreamUrlError::Host(host.into()));
        }
        assert_eq!(refused("wss://user@evil.example/"), StreamUrlError::Host("evil.example".into()));
        for text in ["", "not a url", "wss:", "wss://", "/v1/data-channel"] {
            assert_eq!(refused(text), StreamUrlError::Malformed, "{text}");
        }
        assert!(parse("wss://gateway.example/x", Some("Gateway.example")).is_ok());
        assert!(parse("ws://gateway.example/x", Some("gateway.example")).is_err());
    }

    #[test]
    fn a_presigned_url_is_known_by_its_query() {
        let url = |query| Url::parse(&format!("wss://a.amazonaws.com/x?role=r&{query}")).unwrap();
        assert!(is_presigned(&url("X-Amz-Signature=0")));
        assert!(is_presigned(&url("x-amz-credential=0")));
        assert!(!is_presigned(&url("cell-number=X-Amz-1")));
    }
}
