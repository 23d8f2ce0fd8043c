//! SigV4: the identity that a request claims, and whether its signature is right.

use axum::http::{HeaderMap, Method, Uri, header};
use ring::hmac;
use sha2::{Digest, Sha256};

use crate::config::Credentials;
use crate::report::SignatureReport;

/// A parsed `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    access_key: String,
    date: String,
    region: String,
    service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// The signed parts of a request.
pub(crate) struct Signed<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Signature {
    /// Reads the `Authorization` header; `Err` when there is one but not in the form of SigV4.
    pub fn parse(headers: &HeaderMap) -> Result<Option<Signature>, String> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let value = value.to_str().map_err(|_| "Authorization is not text".to_owned())?;
        let parsed = value.strip_prefix("AWS4-HMAC-SHA256").and_then(parse_fields);
        parsed.map(Some).ok_or_else(|| format!("Authorization header is not a SigV4 one: {}", value.len()))
    }

    /// Returns whether it was made with these credentials.
    pub fn verify(&self, request: &Signed<'_>, credentials: &Credentials) -> bool {
        if self.access_key != credentials.access_key {
            return false;
        }
        let Some(expected) = self.expected(request, &credentials.secret_key) else { return false };
        expected.eq_ignore_ascii_case(&self.signature)
    }

    /// The access key's id.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// For a report.
    pub fn report(&self, headers: &HeaderMap, verified: bool) -> SignatureReport {
        SignatureReport {
            access_key: self.access_key.clone(),
            region: self.region.clone(),
            service: self.service.clone(),
            session_token: headers.contains_key("x-amz-security-token"),
            verified,
        }
    }

    fn expected(&self, request: &Signed<'_>, secret: &str) -> Option<String> {
        let text = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
        let time = text("x-amz-date")?;
        let mut canonical = format!(
            "{}\n{}\n{}\n",
            request.method,
            encode(request.uri.path(), true),
            canonical_query(request.uri.query().unwrap_or_default())
        );
        for name in &self.signed_headers {
            let value = text(name)?.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            canonical.push_str(&format!("{name}:{value}\n"));
        }
        let hash = match text("x-amz-content-sha256") {
            Some(hash) => hash.to_owned(),
            None => hex::encode(Sha256::digest(request.body)),
        };
        canonical.push_str(&format!("\n{}\n{hash}", self.signed_headers.join(";")));
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [self.date.as_str(), &self.region, &self.service, "aws4_request"] {
            key = mac(&key, part);
        }
        Some(hex::encode(mac(&key, &to_sign)))
    }
}

fn parse_fields(fields: &str) -> Option<Signature> {
    let field = |name: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
    let scope: Vec<&str> = field("Credential")?.split('/').collect();
    let [access_key, date, region, service, "aws4_request"] = scope[..] else { return None };
    let signature = field("Signature")?;
    if access_key.is_empty() || signature.len() != 64 {
        return None;
    }
    Some(Signature {
        access_key: access_key.to_owned(),
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
        signature: signature.to_owned(),
    })
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(&decode(name), false), encode(&decode(value), false)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but the unreserved characters (and `/` in a path, whose escapes are thus encoded again).
fn encode(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (path && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "get-vanilla-query-order-key-case" of the published SigV4 test suite.
    #[test]
    fn agrees_with_the_published_test_suite() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().expect("value"));
        headers.insert("x-amz-date", "20150830T123600Z".parse().expect("value"));
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        headers.insert("authorization", authorization.parse().expect("value"));
        let uri: Uri = "/?Param2=value2&Param1=value1".parse().expect("uri");
        let signature = Signature::parse(&headers).expect("parses").expect("is there");
        let request = Signed { method: &Method::GET, uri: &uri, headers: &headers, body: b"" };
        let mut credentials = Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        assert!(signature.verify(&request, &credentials));
        credentials.secret_key.push('x');
        assert!(!signature.verify(&request, &credentials));
    }

    #[test]
    fn other_headers_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(Signature::parse(&headers), Ok(None));
        for value in ["Bearer x", "AWS4-HMAC-SHA256 Credential=a/b/c", ""] {
            headers.insert("authorization", value.parse().expect("value"));
            assert!(Signature::parse(&headers).is_err(), "{value}");
        }
    }
}
