//! The reason in a server's refusal to open a websocket.

use http::{Response, header};
use serde_json::Value;

use crate::printable::escaped;

/// Returns the reason that the response names: its error type and message, in JSON, XML or plain text. `None` for
/// HTML pages, empty bodies and unreadable text. Only the part of the body that arrived with the head is known.
pub(super) fn reason(response: &Response<Option<Vec<u8>>>) -> Option<String> {
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // `InvalidSignatureException:http://internal.amazon.com/…`
    let kind = header("x-amzn-errortype").split([':', ',']).next().unwrap_or_default().trim();
    let body = response.body().as_deref().and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default();
    let is_page = header(header::CONTENT_TYPE.as_str()).starts_with("text/html");
    let (body_kind, message) = if is_page { (None, None) } else { read(body.trim()) };
    let kind = Some(kind.to_owned()).filter(|kind| !kind.is_empty()).or(body_kind);
    let reason = match (kind, message) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => return None,
    };
    Some(escaped(&reason.chars().take(MAX_REASON).collect::<String>()))
}

/// Returns whether the reason is a URL that is not valid any more, which no other credentials would change.
pub(super) fn is_about_url(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    let mentions = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    mentions(&["url"]) && mentions(&["valid", "expired"]) && !mentions(&["signature", "credential"])
}

/// The error's type and its message.
fn read(body: &str) -> (Option<String>, Option<String>) {
    if let Ok(Value::Object(fields)) = serde_json::from_str(body) {
        let field = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| fields.get(*name)?.as_str())?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        // `com.amazon.coral.service#InvalidSignatureException`
        let kind =
            field(["__type", "code"]).map(|kind| kind.rsplit('#').next().unwrap_or_default().to_owned());
        return (kind, field(["message", "Message"]));
    }
    if body.starts_with('<') {
        return (element(body, "Code"), element(body, "Message"));
    }
    let is_sentence = !body.is_empty() && body.lines().count() == 1;
    (None, is_sentence.then(|| body.to_owned()))
}

fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Characters of the server's text.
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(kind: &str, content_type: &str, body: &str) -> Option<String> {
        let mut response = Response::builder().status(403).header("content-type", content_type);
        if !kind.is_empty() {
            response = response.header("x-amzn-errortype", kind);
        }
        reason(&response.body(Some(body.as_bytes().to_vec())).unwrap())
    }

    #[test]
    fn the_type_and_the_message_are_found() {
        let json = r#"{"__type":"com.amazon#InvalidSignatureException","message":"it does not match"}"#;
        let expected = Some("InvalidSignatureException: it does not match".to_owned());
        assert_eq!(reason_of("", "application/json", json), expected);
        let xml = "<ErrorResponse><Error><Code>InvalidSignatureException</Code><Message>it does not match</Message>";
        assert_eq!(reason_of("", "text/xml", xml), expected);
        let kind = "InvalidSignatureException:http://internal.amazon.com/coral/";
        assert_eq!(reason_of(kind, "", r#"{"Message":"it does not match"}"#), expected);
        assert_eq!(reason_of(kind, "", "").as_deref(), Some("InvalidSignatureException"));
        assert_eq!(reason_of("", "text/plain", "Forbidden\n").as_deref(), Some("Forbidden"));
    }

    #[test]
    fn stale_urls() {
        for reason in ["this stream URL is not valid any more", "AccessDeniedException: StreamUrl expired"] {
            assert!(is_about_url(reason), "{reason}");
        }
        for reason in [
            "InvalidSignatureException: the signature is not valid for this URL",
            "ExpiredTokenException: The security token included in the request is expired",
            "access to this URL is blocked by policy 7",
            "Forbidden",
        ] {
            assert!(!is_about_url(reason), "{reason}");
        }
    }

    #[test]
    fn pages_and_hostile_text() {
        assert_eq!(reason_of("", "text/html; charset=utf-8", "<h1>Forbidden</h1>"), None);
        for body in ["", "<html><p>Denied</p></html>", "{}", "one\ntwo", "[1]\n[2]"] {
            assert_eq!(reason_of("", "", body), None, "{body}");
        }
        let long = reason_of("", "", &format!("\u{1b}[2J{}", "x".repeat(10_000))).unwrap();
        assert!(!long.contains('\u{1b}') && long.len() < 2 * MAX_REASON, "{long}");
    }
}
