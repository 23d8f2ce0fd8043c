//! HTTP's CONNECT (RFC 9110, section 9.3.6), the proxy's half, sans-IO.
//!
//! One request for each connection: an answer other than 200 closes it, and what the client has sent behind the request is
//! dropped, so that no page in a browser can hide a CONNECT in the body of another request. Header fields are not used,
//! credentials included: access is decided by the listener.

use std::net::Ipv6Addr;

use bytes::BytesMut;

use super::request::{Protocol, Refusal, Reply, Request, Step, refused_destination};
use crate::destination::Destination;

/// Returns the answer to a request that was read.
pub(super) fn reply(reply: Reply) -> Vec<u8> {
    let (status, reason) = match reply {
        Reply::Succeeded => return b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec(),
        Reply::HostUnreachable => ("502 Bad Gateway", "The target cannot connect to this destination."),
        Reply::NetworkUnreachable => ("504 Gateway Timeout", "AWS is unreachable, or throttles the calls."),
        Reply::TimedOut => ("504 Gateway Timeout", "No session became ready in time."),
        Reply::NotAllowed => ("503 Service Unavailable", "The credentials do not allow this session."),
        Reply::GeneralFailure | Reply::CommandNotSupported | Reply::AddressNotSupported => {
            ("503 Service Unavailable", "No session is available for this destination.")
        }
    };
    answer(status, "", reason)
}

/// Reads the head of a request, and leaves the data behind it in the request. `None` while it is incomplete.
pub(super) fn parse(held: &mut BytesMut) -> Option<Step> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(held) {
        Ok(httparse::Status::Complete(length)) => length,
        // The method is enough.
        Ok(httparse::Status::Partial) if head.method.is_some_and(|method| method != CONNECT) => 0,
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(too_long()),
        Err(_) => return Some(malformed()),
    };
    if head.method != Some(CONNECT) {
        let answer = answer("405 Method Not Allowed", "Allow: CONNECT\r\n", ONLY_CONNECT);
        return Some(Step::Refuse(answer, Refusal::Method));
    }
    let Some((host, port)) = head.path.and_then(authority) else { return Some(malformed()) };
    Some(match Destination::new(host, port) {
        Ok(destination) => {
            let mut request = Request::new(destination, Protocol::Http);
            request.preface.early = held.split_off(length);
            Step::Connect(request)
        }
        Err(error) => {
            let refusal = refused_destination(host, error);
            Step::Refuse(answer("400 Bad Request", "", &refusal.to_string()), refusal)
        }
    })
}

/// Returns the step for a head of more bytes or fields than are read.
pub(super) fn too_long() -> Step {
    let status = "431 Request Header Fields Too Large";
    Step::Refuse(answer(status, "", "The head of the request is too long."), Refusal::TooLong)
}

fn malformed() -> Step {
    let reason = "The request is not CONNECT HOST:PORT HTTP/1.1.";
    Step::Refuse(answer("400 Bad Request", "", reason), Refusal::Malformed)
}

/// Reads `HOST:PORT` or `[ADDRESS]:PORT`. A host without brackets has no colon.
fn authority(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| port.parse().ok()).flatten()?;
    match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']')?;
            address.parse::<Ipv6Addr>().is_ok().then_some((address, port))
        }
        None if host.contains([':', '@', '/']) => None,
        None => Some((host, port)),
    }
}

/// An answer of one line, after which the connection is closed.
fn answer(status: &str, fields: &str, reason: &str) -> Vec<u8> {
    let length = reason.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\n{fields}Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{reason}\n"
    )
    .into_bytes()
}

const CONNECT: &str = "CONNECT";
const ONLY_CONNECT: &str =
    "This proxy supports CONNECT only; for http:// URLs use SOCKS, or curl --proxytunnel.";
/// Header fields of a request. Clients send five or so.
const MAX_FIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::port::proxy::request::MAX_REQUEST;
    use crate::session::port::proxy::tests::{play, refusal_of, request_of};

    #[test]
    fn names_addresses_and_early_data() {
        for (target, destination) in [
            ("db.internal:5432", "db.internal:5432"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("[fd00::1]:443", "[fd00::1]:443"),
        ] {
            for version in ["1.0", "1.1"] {
                let head = format!(
                    "CONNECT {target} HTTP/{version}\r\nHost: {target}\r\nProxy-Authorization: Basic eA==\r\n\r\n"
                );
                let bytes = [head.as_bytes(), b"\x16\x03\x01 early \r\n\r\n"].concat();
                for end in 0..head.len() {
                    assert_eq!(play(&bytes[..end], usize::MAX).1, None, "{end} bytes");
                }
                for piece in [1, 7, usize::MAX] {
                    let expected = (destination.to_owned(), Protocol::Http, bytes[head.len()..].to_vec());
                    assert_eq!(request_of(&bytes, piece), expected);
                }
            }
        }
    }

    /// Returns status line, header fields and body.
    fn parts(answer: &[u8]) -> (String, String, String) {
        let text = String::from_utf8(answer.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        (status.to_owned(), format!("{fields}\r\n"), body.to_owned())
    }

    #[test]
    fn refusals_are_one_line_with_its_length() {
        let long = format!("CONNECT db.internal:1 HTTP/1.1\r\nX: {}", "x".repeat(MAX_REQUEST));
        let fields = format!("CONNECT db.internal:1 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS + 1));
        for (request, status) in [
            ("GET http://web.internal/ HTTP/1.1\r\nHost: web.internal\r\n\r\n", "405"),
            ("POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nCONNECT db.internal:5432 HTTP/1.1\r\n\r\n", "405"),
            ("OPTIONS * HTTP/1.1\r\n\r\n", "405"),
            ("connect db.internal:5432 HTTP/1.1\r\n\r\n", "405"),
            ("PUT /without-an-end", "405"),
            ("CONNECT db.internal HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT db.internal:http HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT db.internal:99999 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT db.internal:+80 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT db.internal:0 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT fd00::1:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT [db.internal]:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT user@db.internal:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT http://db.internal:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT db:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT a;b.c:443 HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT\r\n\r\n", "400"),
            ("CONNECT db.internal:443 HTTP/2.0\r\n\r\n", "400"),
            ("CONNECT db.internal:443 HTTP/1.1\r\nno field\r\n\r\n", "400"),
            (&long, "431"),
            (&fields, "431"),
        ] {
            let (line, fields, body) = parts(&refusal_of(request.as_bytes()).0);
            assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {line}");
            assert!(fields.contains(&format!("Content-Length: {}\r\n", body.len())), "{fields:?}");
            assert!(fields.contains("Connection: close\r\n"));
            assert_eq!(fields.contains("Allow: CONNECT\r\n"), status == "405");
            assert!(body.ends_with('\n') && body.lines().count() == 1, "{body:?}");
        }
    }

    #[test]
    fn replies_name_a_status_and_a_reason() {
        assert_eq!(reply(Reply::Succeeded), b"HTTP/1.1 200 Connection established\r\n\r\n");
        for (code, status) in [
            (Reply::HostUnreachable, "502"),
            (Reply::GeneralFailure, "503"),
            (Reply::NotAllowed, "503"),
            (Reply::NetworkUnreachable, "504"),
            (Reply::TimedOut, "504"),
        ] {
            let (line, fields, body) = parts(&reply(code));
            assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
            assert!(fields.contains(&format!("Content-Length: {}\r\n", body.len())) && body.ends_with(".\n"));
        }
    }
}
