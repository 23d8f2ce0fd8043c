//! Recognizing HTTP by a client's first bytes: connections of HTTP may be closed between requests, others may not.

/// Returns whether a client's first bytes begin a request, or a TLS handshake that offers HTTP (by ALPN, RFC
/// 7301).
pub(super) fn is_http(bytes: &[u8]) -> bool {
    if bytes.starts_with(&TLS_HANDSHAKE) {
        return PROTOCOLS.iter().any(|name| bytes.windows(name.len()).any(|window| window == *name));
    }
    METHODS.iter().any(|method| bytes.starts_with(method.as_bytes()))
}

/// The last is HTTP/2's preface.
const METHODS: [&str; 8] = ["GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "PRI "];
const TLS_HANDSHAKE: [u8; 2] = [22, 3];
/// Names with their lengths, as in the extension.
const PROTOCOLS: [&[u8]; 2] = [b"\x08http/1.1", b"\x02h2"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_tls_that_offers_http() {
        assert!(is_http(b"GET / HTTP/1.1\r\n") && is_http(b"PRI * HTTP/2.0\r\n\r\n"));
        assert!(is_http(b"\x16\x03\x01 client hello \0\x10\0\x0e\0\x0c\x02h2\x08http/1.1"));
        let others: [&[u8]; 6] = [
            b"",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"GETRANGE",
            b"\x16\x03\x01 client hello",
            b"\0\0\0\x08\x04\xd2",
            b"*1\r\n",
        ];
        assert!(!others.into_iter().any(is_http));
    }
}
