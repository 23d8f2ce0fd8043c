//! The forms of ssh's `-L` and `-D`.
//!
//! ```text
//! SPEC        = local ":" host ":" port          ; a port of a host that the instance reaches
//!             / [ bind ":" ] local ":" port      ; a port of the instance itself (without a host)
//! local       = [ bind ":" ] [ number ] / path   ; no number, or 0: any free port; a path has a "/"
//! bind, host  = name / address / "[" IPv6 address "]" / "*" (bind: all addresses)
//! ```

use std::path::PathBuf;

use crate::printable::beginning;
use crate::session::{Forwarded, ListenOn};

/// Reads a SPEC.
///
/// # Errors
/// A phrase about it, with its form.
pub(super) fn parse(text: &str) -> Result<Forwarded, String> {
    let parts = split(text).ok_or_else(|| form(text))?;
    let (listen, host, port) = match parts.as_slice() {
        [path, host, port] if path.contains('/') => {
            (ListenOn::File(PathBuf::from(path)), host.as_str(), port)
        }
        [path, port] if path.contains('/') => (ListenOn::File(PathBuf::from(path)), INSTANCE, port),
        [local, port] => (ListenOn::Port(None, local_port(local, text)?), INSTANCE, port),
        [local, host, port] => (ListenOn::Port(None, local_port(local, text)?), host.as_str(), port),
        [bind, local, host, port] => {
            (ListenOn::Port(Some(bind.clone()), local_port(local, text)?), host.as_str(), port)
        }
        _ => return Err(form(text)),
    };
    let port = number(port).ok_or_else(|| form(text))?;
    Forwarded::new(listen, host, port).map_err(|reason| format!("{:?}: {reason}", beginning(text)))
}

/// Reads the value of `-D`: a port on loopback.
///
/// # Errors
/// A phrase about it.
pub(super) fn parse_dynamic(text: &str) -> Result<u16, String> {
    let form = || format!("{:?} is not a valid [BIND:]PORT, for example 1080", beginning(text));
    let parts = split(text).ok_or_else(form)?;
    match parts.as_slice() {
        [port] => number_or_any(port).ok_or_else(form),
        [bind, port] if LOOPBACK.contains(&bind.as_str()) => number_or_any(port).ok_or_else(form),
        [_, port] if number_or_any(port).is_some() => {
            Err(format!("{:?}: the proxy listens on loopback only; use localhost:PORT", beginning(text)))
        }
        _ => Err(form()),
    }
}

/// The parts between colons, without the brackets around IPv6 addresses. `None` if a bracket has no other.
fn split(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let part;
        (part, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (part, after) = inner.split_once(']')?;
                (part, after)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        parts.push(part.to_owned());
        if rest.is_empty() {
            return Some(parts);
        }
        rest = rest.strip_prefix(':')?;
    }
}

fn local_port(text: &str, whole: &str) -> Result<u16, String> {
    number_or_any(text).ok_or_else(|| form(whole))
}

fn number_or_any(text: &str) -> Option<u16> {
    if text.is_empty() { Some(0) } else { number(text) }
}

fn number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn form(text: &str) -> String {
    format!(
        "{:?} is not [BIND:]PORT:HOST:HOSTPORT (such as 15432:db.internal:5432), PORT:HOSTPORT, or SOCKET:HOST:HOSTPORT \
         (where SOCKET is a path with a slash)",
        beginning(text)
    )
}

/// The instance's name for itself.
const INSTANCE: &str = "localhost";
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let port = |bind: Option<&str>, port| ListenOn::Port(bind.map(str::to_owned), port);
        let file = |path: &str| ListenOn::File(PathBuf::from(path));
        for (text, listen, host, hostport) in [
            ("15432:db.internal:5432", port(None, 15432), "db.internal", 5432),
            ("8080:80", port(None, 8080), "localhost", 80),
            ("0:db.internal:5432", port(None, 0), "db.internal", 5432),
            (":db.internal:5432", port(None, 0), "db.internal", 5432),
            (":80", port(None, 0), "localhost", 80),
            ("127.0.0.1:8080:10.0.0.7:80", port(Some("127.0.0.1"), 8080), "10.0.0.7", 80),
            ("*:8080:10.0.0.7:80", port(Some("*"), 8080), "10.0.0.7", 80),
            (":8080:10.0.0.7:80", port(Some(""), 8080), "10.0.0.7", 80),
            ("[::1]:8080:[fd00::1]:80", port(Some("::1"), 8080), "fd00::1", 80),
            ("./db.sock:db.internal:5432", file("./db.sock"), "db.internal", 5432),
            ("/tmp/db:5432", file("/tmp/db"), "localhost", 5432),
        ] {
            assert_eq!(parse(text), Ok(Forwarded::new(listen, host, hostport).unwrap()), "{text}");
        }
        for text in [
            "",
            "80",
            "x:80",
            "80:x",
            "1:b:c:d:5",
            "80:host:",
            "65536:h.x:1",
            "1:[fd00::1:80",
            "8080:[::1]x:1",
            "-1:80",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("15432:db.internal:5432") && !error.contains('\n'), "{text}: {error}");
        }
        assert!(parse("1:a\"b.c:80").unwrap_err().contains("characters"));
    }

    #[test]
    fn dynamic() {
        for (text, port) in
            [("1080", 1080), ("0", 0), ("localhost:1080", 1080), ("[::1]:1080", 1080), (":", 0)]
        {
            if text == ":" {
                assert!(parse_dynamic(text).is_err());
            } else {
                assert_eq!(parse_dynamic(text), Ok(port), "{text}");
            }
        }
        assert!(parse_dynamic("0.0.0.0:1080").unwrap_err().contains("loopback only"));
        assert!(parse_dynamic("x").unwrap_err().contains("for example 1080"));
    }
}
