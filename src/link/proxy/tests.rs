use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::link::network::Network;

fn settings(variables: &[(&str, &str)]) -> ProxySettings {
    ProxySettings::from_env(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

/// The proxy's text for a URL, or `direct`.
fn way(variables: &[(&str, &str)], url: &str) -> String {
    let proxy = settings(variables).for_url(&Url::parse(url).unwrap()).unwrap();
    proxy.map_or("direct".to_owned(), |proxy| proxy.to_string())
}

const URL: &str = "wss://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/s?role=r";

#[test]
fn the_destination_decides_which_variable_counts() {
    assert_eq!(way(&[], URL), "direct");
    assert_eq!(way(&[("HTTPS_PROXY", "http://p:3128")], URL), "http://p:3128");
    assert_eq!(way(&[("https_proxy", "http://p:3128/")], URL), "http://p:3128");
    assert_eq!(way(&[("HTTP_PROXY", "http://p:3128")], URL), "direct");
    assert_eq!(way(&[("HTTP_PROXY", "http://p:3128")], "ws://gw.example/"), "http://p:3128");
    assert_eq!(way(&[("all_proxy", "socks5h://p")], URL), "socks5h://p:1080");
    assert_eq!(way(&[("ALL_PROXY", "http://a"), ("https_proxy", "https://b")], URL), "https://b:443");
    assert_eq!(way(&[("HTTPS_PROXY", ""), ("https_proxy", "p:3128")], URL), "http://p:3128");
    assert_eq!(
        way(&[("HTTPS_PROXY", "http://upper"), ("https_proxy", "http://lower")], URL),
        "http://upper:80"
    );
    assert_eq!(way(&[("HTTPS_PROXY", "http://[::1]:3128")], URL), "http://[::1]:3128");
}

/// Desktops write `socks://` for all programs, and neither the AWS CLI nor the official plugin reads the variable.
#[test]
fn an_all_proxy_is_used_where_it_can_be() {
    let url = &Url::parse(URL).unwrap();
    for (value, expected) in [
        ("socks://p:1081/", "socks5://p:1081"),
        ("SOCKS://p", "socks5://p:1080"),
        ("http://p:3128", "http://p:3128"),
        ("socks4://p", "direct"),
        ("ftp://p", "direct"),
        ("http://p:cret", "direct"),
    ] {
        assert_eq!(way(&[("ALL_PROXY", value)], URL), expected, "{value}");
        let ignored = settings(&[("ALL_PROXY", value)]).ignored(url);
        assert_eq!(ignored, (expected == "direct").then_some("ALL_PROXY"), "{value}");
    }
    let counts = |variables: &[(&str, &str)]| settings(variables).ignored(url).is_some();
    assert!(!counts(&[("ALL_PROXY", "ftp://p"), ("HTTPS_PROXY", "http://p")]), "another counts");
    assert!(!counts(&[("ALL_PROXY", "ftp://p"), ("no_proxy", "amazonaws.com")]), "none counts");
    assert!(!counts(&[("https_proxy", "ftp://p")]), "that is an error");
    assert_eq!(way(&[("https_proxy", "ftp://p"), ("no_proxy", "amazonaws.com")], URL), "direct");
}

#[test]
fn rules_of_no_proxy() {
    let way = |rules: &str, host: &str| {
        way(&[("HTTPS_PROXY", "http://p:3128"), ("no_proxy", rules)], &format!("wss://{host}/x")) == "direct"
    };
    let name = "ssmmessages.us-east-1.amazonaws.com";
    for rules in [
        "*",
        "amazonaws.com",
        ".amazonaws.com",
        "*.amazonaws.com",
        "x, AMAZONAWS.com ,y",
        "ssmmessages.us-east-1.amazonaws.com",
        "amazonaws.com:443",
    ] {
        assert!(way(rules, name), "{rules}");
    }
    for rules in ["", ",", "aws.com", "amazonaws.com:8443", "us-east-1", "10.0.0.0/8", "amazonaws.com.cn"] {
        assert!(!way(rules, name), "{rules}");
    }
    assert!(way("10.0.0.0/8", "10.1.2.3") && !way("10.0.0.0/8", "11.1.2.3"));
    assert!(
        way("10.1.2.3", "10.1.2.3") && way("10.1.2.3:443", "10.1.2.3") && !way("10.1.2.3:80", "10.1.2.3")
    );
    assert!(way("fd00::/8", "[fd00::1]") && way("fd00::1", "[fd00::1]") && !way("fd00::1", "[fd00::2]"));
    assert!(way("[fd00::1]:443", "[fd00::1]"));
    // Whatever the rules.
    assert!(way("", "localhost:1") && way("", "127.9.9.9") && way("", "[::1]:1"));
}

#[test]
fn a_bad_value_is_an_error_that_does_not_repeat_it() {
    for value in [
        "http://",
        "ftp://secret@p",
        "http://u:se#cret@p",
        "http://u:se/cret@p",
        "http://12:34?cret@p",
        "http://u:se cret@p",
        "http://p:cret",
        "p:99999",
        "socks4://secret",
    ] {
        let error = settings(&[("https_proxy", value)]).for_url(&Url::parse(URL).unwrap()).unwrap_err();
        assert!(error.is_permanent());
        let text = format!("{error} {error:?}");
        assert!(text.contains("https_proxy") && !text.contains("cret"), "{text}");
    }
}

#[test]
fn no_text_holds_the_password() {
    let settings = settings(&[("HTTPS_PROXY", "http://user:s%40cret@p:3128")]);
    let proxy = settings.for_url(&Url::parse(URL).unwrap()).unwrap().unwrap();
    assert_eq!(proxy.to_string(), "http://p:3128");
    let text = format!("{settings:?} {proxy:?} {proxy}");
    assert!(!text.contains("cret") && !text.contains("user"), "{text}");
    assert_eq!(proxy.intercept.basic_auth().unwrap(), "Basic dXNlcjpzQGNyZXQ=");
}

/// Result of a tunnel through a proxy that answers `answer`, and the request it received.
async fn tunnel_with(user: &str, answer: &'static str) -> (Result<String, ProxyError>, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut rest = [0; 4];
        if answer.starts_with("HTTP/1.1 2") && stream.read_exact(&mut rest).await.is_ok() {
            stream.write_all(&rest).await.unwrap();
        }
        String::from_utf8(request).unwrap()
    });
    let value = format!("http://{user}127.0.0.1:{port}");
    let proxy = settings(&[("HTTPS_PROXY", &value)]).for_url(&Url::parse(URL).unwrap()).unwrap().unwrap();
    let network = Network::from_env();
    let outcome = async {
        let mut stream = proxy.connect(|| network.tls(), "gw.example", 443).await?;
        stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.map_err(|error| proxy.broken("", error.to_string()))?;
        Ok(String::from_utf8_lossy(&echo).into_owned())
    };
    let outcome = outcome.await;
    (outcome, server.await.unwrap().replace(&port.to_string(), "PORT"))
}

#[tokio::test]
async fn a_tunnel_is_requested_and_handed_over() {
    let (outcome, request) = tunnel_with("", "HTTP/1.1 200 Connection established\r\n\r\n").await;
    assert_eq!(outcome.unwrap(), "ping");
    assert_eq!(request, "CONNECT gw.example:443 HTTP/1.1\r\nhost: gw.example:443\r\n\r\n");
    let (outcome, request) = tunnel_with("user:pass@", "HTTP/1.1 200 OK\r\nX-Proxy: yes\r\n\r\n").await;
    assert_eq!(outcome.unwrap(), "ping");
    assert!(request.contains("\r\nproxy-authorization: Basic dXNlcjpwYXNz\r\n"), "{request}");
}

#[tokio::test]
async fn refusals_are_quoted_with_what_to_do() {
    let refused = async |user, answer| {
        let error = tunnel_with(user, answer).await.0.unwrap_err();
        (error.is_permanent(), error.to_string())
    };
    let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let (permanent, text) = refused("", basic).await;
    assert!(permanent);
    assert!(
        text.contains("refused the tunnel to gw.example:443: 407 Proxy Authentication Required; put"),
        "{text}"
    );
    assert!(text.contains("into HTTPS_PROXY, as in http://user:password@127.0.0.1:"), "{text}");
    let (_, text) = refused("user:pass@", basic).await;
    assert!(text.ends_with("; it does not accept the user and password in HTTPS_PROXY"), "{text}");
    assert!(!text.contains("pass@"), "{text}");
    let ntlm = "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n";
    let (_, text) = refused("", ntlm).await;
    assert!(
        text.ends_with("407 No; it requires NTLM or Negotiate authentication, but only Basic is supported"),
        "{text}"
    );
    let (permanent, text) =
        refused("", "HTTP/1.1 403 Blocked by\t policy 7\r\nContent-Length: 0\r\n\r\n").await;
    assert!(permanent && text.contains(": 403 Blocked by policy 7; if the host needs no proxy"), "{text}");
    let (permanent, text) = refused("", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!").await;
    assert!(!permanent && text.ends_with(": 502 Bad Gateway"), "{text}");
}

#[tokio::test]
async fn other_answers_are_no_tunnel() {
    for answer in ["", "HTTP/1.1 ", "SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"] {
        let (outcome, _) = tunnel_with("", answer).await;
        let error = outcome.expect_err(answer);
        assert!(matches!(error, ProxyError::Broken { .. }) && !error.is_permanent(), "{answer}: {error}");
    }
}
