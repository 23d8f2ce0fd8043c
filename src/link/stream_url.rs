//! Rules for the hosts that a stream URL may name.

use url::{Host, Url};

use super::partition;
use crate::printable;

/// Reason that a stream URL is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamUrlError {
    /// Not a URL at all. The text is not repeated: it may hold a signature.
    #[error("the stream URL is not a valid URL")]
    Malformed,
    /// Neither `wss` nor, on loopback, `ws`.
    #[error("the stream URL must begin with wss://")]
    Scheme,
    /// Not an endpoint of Session Manager.
    #[error(
        "the stream URL has the host {0}, which is not a Session Manager endpoint of AWS; if it is your own host, \
         set SSM_PLUGIN_ALLOW_STREAM_HOST to it"
    )]
    Host(String),
    /// `SSM_PLUGIN_STREAM_HOST` is not a host name, perhaps with a port.
    #[error("SSM_PLUGIN_STREAM_HOST={0:?} is not a host name")]
    OtherMalformed(String),
    /// `SSM_PLUGIN_STREAM_HOST` is another machine, and the stream URL is not `wss`.
    #[error("SSM_PLUGIN_STREAM_HOST={0} needs a stream URL that begins with wss://")]
    OtherScheme(String),
    /// `SSM_PLUGIN_STREAM_HOST` is not an endpoint of Session Manager.
    #[error(
        "SSM_PLUGIN_STREAM_HOST={0} is not a Session Manager endpoint of AWS; if it is your own host, also set \
         SSM_PLUGIN_ALLOW_STREAM_HOST to it"
    )]
    OtherHost(String),
}

/// Reads a stream URL and checks that it may be opened: `wss` to a Session Manager endpoint of AWS, anything on
/// loopback, or the one host that `allowed` names. The official plugin validates the host since 1.2.889.
///
/// # Errors
/// [`StreamUrlError`] says what is wrong.
pub(crate) fn parse(text: &str, allowed: Option<&str>) -> Result<Url, StreamUrlError> {
    let url = Url::parse(text).map_err(|_| StreamUrlError::Malformed)?;
    check(&url, allowed)?;
    Ok(url)
}

/// The same URL at another host (`name` or `name:port`), such as an interface endpoint's. What signs or opens it then
/// uses that host throughout: address, TLS name, `Host` header.
///
/// # Errors
/// When `host` is none, or may not be opened by the rules of [`parse`].
pub(crate) fn with_host(mut url: Url, host: &str, allowed: Option<&str>) -> Result<Url, StreamUrlError> {
    let malformed = || StreamUrlError::OtherMalformed(printable::beginning(host));
    if host.len() > MAX_HOST {
        return Err(malformed());
    }
    let other = Url::parse(&format!("{}://{host}/", url.scheme())).map_err(|_| malformed())?;
    let is_host_alone = other.path() == "/"
        && other.query().is_none()
        && other.fragment().is_none()
        && other.username().is_empty()
        && other.password().is_none();
    if !is_host_alone {
        return Err(malformed());
    }
    url.set_host(other.host_str()).map_err(|_| malformed())?;
    url.set_port(other.port()).map_err(|()| malformed())?;
    match check(&url, allowed) {
        Err(StreamUrlError::Host(name)) => Err(StreamUrlError::OtherHost(name)),
        Err(StreamUrlError::Scheme) => Err(StreamUrlError::OtherScheme(host.to_owned())),
        outcome => outcome.map(|()| url),
    }
}

/// Returns whether the URL was presigned: it must then be opened as it is, and cannot be resumed.
pub(crate) fn is_presigned(url: &Url) -> bool {
    url.query_pairs().any(|(name, _)| name.to_ascii_lowercase().starts_with("x-amz-"))
}

fn check(url: &Url, allowed: Option<&str>) -> Result<(), StreamUrlError> {
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
    if is_loopback || is_allowed || is_endpoint(&name) { Ok(()) } else { Err(StreamUrlError::Host(name)) }
}

/// Returns whether the name is `ssmmessages.<region>.<domain of AWS>`, or `….ssmmessages.<region>.vpce.<domain
/// of AWS>`.
///
/// A name below AWS's domains alone says nothing: buckets, APIs (`….execute-api.<region>.amazonaws.com`) and load
/// balancers belong to customers, who choose some of the labels themselves.
fn is_endpoint(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let below = |domain: &str| name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    partition::domains().find_map(below).is_some_and(|rest| {
        let labels: Vec<&str> = rest.split('.').collect();
        match labels.as_slice() {
            [service, region] | [.., service, region, "vpce"] => is_service(service) && is_region(region),
            _ => false,
        }
    })
}

fn is_service(label: &str) -> bool {
    matches!(label, "ssmmessages" | "ssmmessages-fips")
}

/// Returns whether the label has a region's form, `us-gov-west-1`: words, then a number.
fn is_region(label: &str) -> bool {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    label.rsplit_once('-').is_some_and(|(words, number)| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && words.contains('-')
            && words.split('-').all(is_word)
    })
}

/// A name of 253 characters with a port; those beyond ASCII take more than one byte each.
const MAX_HOST: usize = 1024;

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
            "wss://ssmmessages-fips.us-gov-west-1.amazonaws.com/x",
            "wss://vpce-1-2-us-east-1a.ssmmessages.us-east-1.vpce.amazonaws.com/x",
            "wss://vpce-1-2.ssmmessages-fips.us-east-1.vpce.amazonaws.com/x",
            "wss://ssmmessages.us-isob-east-1.sc2s.sgov.gov/x",
            "wss://ssmmessages.eusc-de-east-1.api.amazonwebservices.eu/x",
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
        for host in [
            "evil.example",
            "amazonaws.com.evil.example",
            "evilamazonaws.com",
            "amazonaws.com",
            "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
            "vpce-1-2.execute-api.us-east-1.vpce.amazonaws.com",
            "ssm.us-east-1.amazonaws.com",
            "xssmmessages.us-east-1.amazonaws.com",
            "ssmmessages.amazonaws.com",
            // Names that customers choose: a bucket, a database, a load balancer, a web site.
            "ssmmessages.s3.amazonaws.com",
            "ssmmessages.s3-us-west-2.amazonaws.com",
            "my.ssmmessages.s3.us-east-1.amazonaws.com",
            "ssmmessages.c0ffee.us-east-1.rds.amazonaws.com",
            "ssmmessages.us-east-1.elb.amazonaws.com",
            "us-east-1.ssmmessages.us-east-1.amazonaws.com",
        ] {
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
    fn another_host_takes_the_place_of_the_first() {
        const URL: &str =
            "wss://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/s%201?role=r&cell-number=AAE%3D";
        let vpce = "vpce-0a-1b.ssmmessages.us-east-1.vpce.amazonaws.com";
        let moved = |host: &str, allowed| with_host(parse(URL, None).unwrap(), host, allowed);
        let expected = URL.replace("ssmmessages.us-east-1.amazonaws.com", vpce);
        assert_eq!(moved(vpce, None).unwrap().as_str(), expected);
        assert_eq!(moved("localhost:4433", None).unwrap().authority(), "localhost:4433");
        assert_eq!(moved("[::1]:4433", None).unwrap().authority(), "[::1]:4433");
        assert_eq!(moved("gw.example", Some("gw.example")).unwrap().host_str(), Some("gw.example"));
        for host in ["gw.example", "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"] {
            assert_eq!(moved(&format!("{host}:1"), None), Err(StreamUrlError::OtherHost(host.into())));
        }
        for host in
            ["", "https://x.amazonaws.com", "x.amazonaws.com/p", "u@x.amazonaws.com", "a b", "x?y", "x#y"]
        {
            assert_eq!(moved(host, None), Err(StreamUrlError::OtherMalformed(host.into())), "{host}");
        }
        let port = parse("wss://localhost:4433/x", None).unwrap();
        assert_eq!(with_host(port, vpce, None).unwrap().authority(), vpce);
        let plain = parse("ws://127.0.0.1:4433/x", None).unwrap();
        assert_eq!(with_host(plain.clone(), vpce, None), Err(StreamUrlError::OtherScheme(vpce.into())));
        for host in ["x".repeat(100_000), "x.".repeat(50_000), "é".repeat(2000)] {
            let beginning: String = host.chars().take(80).collect();
            let error = with_host(plain.clone(), &host, None).unwrap_err();
            assert_eq!(error, StreamUrlError::OtherMalformed(beginning));
        }
    }

    #[test]
    fn a_presigned_url_is_known_by_its_query() {
        let url = |query| Url::parse(&format!("wss://a.amazonaws.com/x?role=r&{query}")).unwrap();
        assert!(is_presigned(&url("X-Amz-Signature=0")));
        assert!(is_presigned(&url("x-amz-credential=0")));
        assert!(!is_presigned(&url("cell-number=X-Amz-1")));
    }
}
