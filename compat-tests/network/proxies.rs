//! Proxies of each kind, for the websocket and for calls to AWS.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssm_sim::{Config, ProxyOptions, Visit};

use super::{API, ENCODED, HERE, PASSWORD, SERVICE, Site, assert_asked_for, with_password};
use crate::harness::api::Started;
use crate::harness::net::{FreePort, Server, echo_through, eventually, opened_port};
use crate::harness::process::{Running, Signal};
use crate::harness::sim::assert_all_ended;

#[test]
fn proxies_of_each_kind_carry_the_websocket() {
    let cases: [(&str, &str, ProxyOptions); 6] = [
        ("HTTPS_PROXY", "http://127.0.0.1:PORT", ProxyOptions::default()),
        ("https_proxy", "127.0.0.1:PORT", ProxyOptions::default()),
        ("ALL_PROXY", "http://user:PASSWORD@localhost:PORT/", with_password()),
        ("all_proxy", "socks5h://127.0.0.1:PORT", ProxyOptions::default()),
        ("HTTPS_PROXY", "socks5://user:PASSWORD@127.0.0.1:PORT", with_password()),
        (
            "HTTPS_PROXY",
            "https://user:PASSWORD@127.0.0.1:PORT",
            ProxyOptions { tls: true, ..with_password() },
        ),
    ];
    for (name, url, options) in cases {
        let mut site = Site::at(SERVICE).trusting();
        let proxy = site.proxy(options);
        if let Some(pem) = proxy.ca_pem() {
            std::fs::write(&site.bundle, format!("{}{pem}", site.front.ca_pem())).expect("write the CAs");
        }
        site.set(name, &url.replace("PORT", &proxy.port().to_string()).replace("PASSWORD", ENCODED));
        site.works();
        assert_asked_for(&proxy, &format!("{SERVICE}:443"));
        let expected = Visit { server_name: Some(SERVICE.to_owned()), host: Some(SERVICE.to_owned()) };
        assert_eq!(site.front.visits(), [expected], "{name}={url}");
    }
}

#[test]
fn a_proxy_that_wants_a_password_says_so() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(with_password());
    let port = proxy.port();
    let refused = format!(
        "proxy http://127.0.0.1:{port} refused the tunnel to {SERVICE}:443: 407 Proxy Authentication Required; "
    );
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"));
    site.fails_with(&format!(
        "{refused}put the user and password into HTTPS_PROXY, as in http://user:password@127.0.0.1:{port}"
    ));
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}x@127.0.0.1:{port}"));
    site.fails_with(&format!("{refused}it does not accept the user and password in HTTPS_PROXY"));
    // Written without escapes.
    site.set("HTTPS_PROXY", &format!("http://user:{PASSWORD}@127.0.0.1:{port}"));
    site.fails_with("HTTPS_PROXY is not an http, https or socks5 URL");
    assert!(site.front.visits().is_empty());
}

#[test]
fn a_proxy_that_refuses_is_quoted() {
    let mut site = Site::at(SERVICE).trusting();
    let forbidding =
        site.proxy(ProxyOptions { refuse: Some("403 Blocked".to_owned()), ..ProxyOptions::default() });
    site.set("https_proxy", &format!("http://127.0.0.1:{}", forbidding.port()));
    site.fails_with(&format!("refused the tunnel to {SERVICE}:443: 403 Blocked; "));
    assert_eq!(forbidding.requests().len(), 1, "a refusal is not tried again");
    let failing =
        site.proxy(ProxyOptions { refuse: Some("503 Try Later".to_owned()), ..ProxyOptions::default() });
    site.set("https_proxy", &format!("http://127.0.0.1:{}", failing.port()));
    site.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    site.fails_with(&format!("refused the tunnel to {SERVICE}:443: 503 Try Later"));
    assert!(failing.requests().len() > 1, "a passing failure is tried again");
}

#[test]
#[cfg_attr(windows, ignore = "a refusal takes two seconds there, and has other words")]
fn a_proxy_that_is_not_there_is_named() {
    let mut site = Site::at(SERVICE).trusting();
    let closed = FreePort::new();
    let proxy = format!("127.0.0.1:{}", closed.number());
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}@{proxy}"));
    site.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    site.fails_with(&format!("proxy http://{proxy}: cannot connect to {proxy}: Connection refused"));
    // One that takes connections and says nothing.
    let silent = Server::start(|stream| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", silent.port()));
    site.fails_with(&format!("no websocket to {SERVICE} after 1 s (last error: no answer within 0."));
    site.fails_with(&format!(" s (through proxy http://127.0.0.1:{}))", silent.port()));
    // One whose certificate is not trusted.
    let proxy = site.proxy(ProxyOptions { tls: true, ..ProxyOptions::default() });
    site.set("HTTPS_PROXY", &format!("https://127.0.0.1:{}", proxy.port()));
    site.fails_with(&format!("cannot open TLS to proxy https://127.0.0.1:{}: its certificate", proxy.port()));
}

#[test]
#[cfg_attr(windows, ignore = "0.0.0.0 leads nowhere there")]
fn no_proxy_and_loopback_go_direct() {
    let closed = FreePort::new();
    let nowhere = format!("http://127.0.0.1:{}", closed.number());
    let site = |host| {
        let mut site = Site::here(host).trusting();
        site.set("HTTPS_PROXY", &nowhere);
        site.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
        site.set("SSM_PLUGIN_ALLOW_STREAM_HOST", HERE);
        site
    };
    site("localhost").works();
    let mut site = site(HERE);
    site.fails_with(&nowhere);
    site.set("NO_PROXY", "10.0.0.0/8,.example");
    site.fails_with(&nowhere);
    site.set("NO_PROXY", "10.0.0.0/8, 0.0.0.0/8");
    site.set("SSM_PLUGIN_OPEN_TIMEOUT", "30");
    let plugin = site.spawn();
    opened_port(&plugin.stdout);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}

/// GNOME sets `ALL_PROXY=socks://…`, for programs that neither the AWS CLI nor the official plugin are among
/// (kimi-cli#404, cdk-local#672).
#[test]
fn gnome_all_proxy_is_socks5() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("ALL_PROXY", &format!("socks://127.0.0.1:{}/", proxy.port()));
    site.works();
    assert_asked_for(&proxy, &format!("{SERVICE}:443"));
}

#[test]
#[cfg_attr(windows, ignore = "0.0.0.0 leads nowhere there, and all_proxy is ALL_PROXY")]
fn an_unusable_all_proxy_is_reported_and_ignored() {
    let unusable = "ftp://user:swordfish@127.0.0.1:1";
    let site = || {
        let mut site = Site::here(HERE).trusting();
        site.set("SSM_PLUGIN_ALLOW_STREAM_HOST", HERE);
        site.set("SSM_PLUGIN_STATUS", "always");
        site.set("all_proxy", unusable);
        site
    };
    let errors = |site: &Site| {
        let plugin = site.spawn();
        opened_port(&plugin.stdout);
        plugin.signal(Signal::INT);
        let finished = plugin.finish();
        finished.assert_ok();
        finished.errors()
    };
    let line = "session-manager-plugin: all_proxy is ignored: it is not an http, https or socks5 URL\n";
    let mut site = site();
    assert_eq!(errors(&site), line);
    // None of its business.
    site.set("NO_PROXY", "0.0.0.0/8");
    assert_eq!(errors(&site), "");
    site.set("all_proxy", "");
    site.set("HTTPS_PROXY", unusable);
    assert_eq!(errors(&site), "", "NO_PROXY is asked first");
    site.set("NO_PROXY", "");
    site.fails_with("HTTPS_PROXY is not an http, https or socks5 URL");
}

/// Calls to AWS go the way of the websocket: without that, a session was opened unsigned, and then nothing could be
/// resumed, ended or restarted.
#[test]
fn socks_proxies_carry_the_calls_to_aws() {
    for (name, url, options) in [
        ("HTTPS_PROXY", "socks5://127.0.0.1:PORT", ProxyOptions::default()),
        ("ALL_PROXY", "socks5h://user:PASSWORD@127.0.0.1:PORT", with_password()),
    ] {
        let config = Config { require_signed_open: true, ..Config::default() };
        let mut site = Site::with(config, |_| SERVICE.to_owned()).trusting();
        let proxy = site.proxy(options);
        site.set(name, &url.replace("PORT", &proxy.port().to_string()).replace("PASSWORD", ENCODED));
        let mut started = Started::port(&site.sim.endpoint(), site.echo.port(), 0);
        started.endpoint = format!("https://{API}");
        let plugin = Running::spawn_without_stdin(&mut started.command(&site.world));
        let port = opened_port(&plugin.stdout);
        assert_eq!(echo_through(port, b"before"), b"before");
        site.sim.cut(started.id());
        assert_eq!(echo_through(port, b"after"), b"after");
        assert!(site.sim.requests().resume > 0, "{name}: {:?}", proxy.requests());
        assert_asked_for(&proxy, &format!("{API}:443"));
        plugin.signal(Signal::INT);
        plugin.finish().assert_ok();
        assert_all_ended(&site.sim);
    }
}

#[test]
fn calls_to_aws_take_the_proxy_too() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(with_password());
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}@127.0.0.1:{}", proxy.port()));
    site.is_resumed_through(&proxy);
}

/// The SDK's settings for endpoints, when the caller names none. Where calls go is seen at the proxy, which alone could
/// resolve these names.
#[test]
fn endpoints_of_the_environment_are_used() {
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], "ssm.us-east-1.amazonaws.com:443"),
        (&[("AWS_USE_FIPS_ENDPOINT", "true")], "ssm-fips.us-east-1.amazonaws.com:443"),
        (&[("AWS_USE_DUALSTACK_ENDPOINT", "true")], "ssm.us-east-1.api.aws:443"),
        (&[("AWS_ENDPOINT_URL", "https://any.example")], "any.example:443"),
        (
            &[
                ("AWS_ENDPOINT_URL", "https://any.example"),
                ("AWS_ENDPOINT_URL_SSM", "https://ssm.example:8443"),
            ],
            "ssm.example:8443",
        ),
    ];
    for (variables, expected) in cases {
        let mut site = Site::at(SERVICE).trusting();
        let proxy = site.proxy(ProxyOptions::default());
        site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
        variables.iter().for_each(|(name, value)| site.set(name, value));
        let mut started = Started::port(&site.sim.endpoint(), site.echo.port(), 0);
        started.endpoint = String::new();
        let plugin = Running::spawn_without_stdin(&mut started.command(&site.world));
        opened_port(&plugin.stdout);
        site.sim.cut(started.id());
        eventually(&format!("a call to {expected} with {variables:?}"), || {
            proxy.requests().iter().any(|request| request.to == expected)
        });
        let calls = proxy.requests().into_iter().filter(|request| request.to != format!("{SERVICE}:443"));
        assert!(calls.clone().all(|request| request.to == expected), "{:?}", calls.collect::<Vec<_>>());
    }
}

/// Interim responses without end, which HTTP allows: neither signals nor time limits wait for the last of them.
#[test]
fn a_proxy_that_repeats_interim_responses_holds_nothing_up() {
    let clients = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&clients);
    let flood = Server::start(move |mut client| {
        count.fetch_add(1, Ordering::SeqCst);
        let interim = b"HTTP/1.1 100 \r\n\r\n".repeat(50_000);
        while client.write_all(&interim).is_ok() {}
    });
    let mut site = Site::at(SERVICE).trusting();
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", flood.port()));
    site.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    site.fails_with("no websocket to ssmmessages.us-east-1.amazonaws.com after 1 s");
    site.set("SSM_PLUGIN_OPEN_TIMEOUT", "600");
    let before = clients.load(Ordering::SeqCst);
    let plugin = site.spawn();
    eventually("a client of the proxy", || clients.load(Ordering::SeqCst) > before);
    plugin.signal(Signal::TERM);
    plugin.finish();
}
