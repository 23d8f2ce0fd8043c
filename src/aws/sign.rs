//! SigV4 signatures: of the websocket's opening request, and of calls without an SDK.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

/// The headers that sign a `GET` of this websocket URL.
pub(super) fn headers(
    url: &Url,
    region: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<HeaderMap, String> {
    signed(
        &Request { method: "GET", url, service: SERVICE, headers: &[], body: &[] },
        region,
        credentials,
        now,
    )
}

/// The headers that sign a `POST` of AWS's JSON protocol, whose other `headers` are signed, too.
pub(super) fn post(
    url: &Url,
    region: &str,
    service: &'static str,
    headers: &[(&str, &str)],
    body: &[u8],
    credentials: &Credentials,
    now: SystemTime,
) -> Result<HeaderMap, String> {
    signed(&Request { method: "POST", url, service, headers, body }, region, credentials, now)
}

/// The header `Host` of a URL, as it goes on the wire: without the default port.
pub(super) fn host(url: &Url) -> Result<String, String> {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        (Some(host), None) => Ok(host.to_owned()),
        (None, _) => Err("the URL has no host".into()),
    }
}

struct Request<'a> {
    method: &'a str,
    url: &'a Url,
    service: &'static str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
}

fn signed(
    request: &Request<'_>,
    region: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<HeaderMap, String> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(request.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?;
    let host = host(request.url)?;
    let request = SignableRequest::new(
        request.method,
        request.url.as_str(),
        std::iter::once(("host", host.as_str())).chain(request.headers.iter().copied()),
        SignableBody::Bytes(request.body),
    )
    .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(request, &params.into()).map_err(|error| error.to_string())?.into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let mut value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The message gateway's name in signatures.
const SERVICE: &str = "ssmmessages";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sign_at(url: &str, token: Option<&str>) -> HeaderMap {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", token.map(str::to_owned), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000);
        headers(&Url::parse(url).unwrap(), "eu-west-1", &credentials, now).unwrap()
    }

    #[test]
    fn scope_and_headers_are_those_of_the_gateway() {
        let headers = sign_at("wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s?role=x", None);
        let text = headers["authorization"].to_str().unwrap();
        assert!(
            text.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251009/eu-west-1/ssmmessages/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature="
            ),
            "{text}"
        );
        assert_eq!(headers["x-amz-date"], "20251009T085320Z");
        assert!(!headers.contains_key("x-amz-security-token"));
        assert!(headers["authorization"].is_sensitive());
    }

    #[test]
    fn a_session_token_is_signed_too() {
        let headers = sign_at("wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s", Some("tok"));
        assert_eq!(headers["x-amz-security-token"], "tok");
        let text = headers["authorization"].to_str().unwrap();
        assert!(text.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"), "{text}");
    }

    #[test]
    fn host_port_and_query_count() {
        let signature = |url: &str| sign_at(url, None)["authorization"].to_str().unwrap().to_owned();
        let base = signature("ws://127.0.0.1:8080/v1/data-channel/s?role=x&cell-number=a");
        for other in [
            "ws://127.0.0.1:8081/v1/data-channel/s?role=x&cell-number=a",
            "ws://127.0.0.2:8080/v1/data-channel/s?role=x&cell-number=a",
            "ws://127.0.0.1:8080/v1/data-channel/s?role=x&cell-number=b",
        ] {
            assert_ne!(signature(other), base, "{other}");
        }
        assert_eq!(signature("ws://127.0.0.1:8080/v1/data-channel/s?cell-number=a&role=x"), base);
        assert_eq!(signature("wss://h.example:443/s"), signature("wss://h.example/s"));
    }
}
