//! The path to the service: names, proxies, trust, the clock.

use std::io::{Read, Write};
use std::net::TcpStream;

use ssm_sim::Config;

use super::{assert_check, channel, check, doctor, world};
use crate::harness::net::{FreePort, Server};
use crate::harness::sim::{sim, start};

#[test]
fn a_clock_that_is_off() {
    let sim = sim();
    let mut world = world(&sim);
    let service = Server::start(|mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    world.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", service.port()));
    let (finished, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_check(&report, "clock", "failure", "AWS rejects signatures made with it");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn names_hosts_and_ports_that_lead_nowhere() {
    let sim = sim();
    let world = world(&sim);
    let (_, report) = doctor(&world, &["--url", "wss://ssmmessages.nowhere-1.amazonaws.com.invalid/x"]);
    assert_check(&report, "websocket", "failure", "not a Session Manager endpoint");
    let mut world = world;
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let (_, report) = doctor(&world, &["--url", "wss://gateway.invalid/x"]);
    assert_check(&report, "dns", "failure", "gateway.invalid: ");
    assert_check(&report, "websocket", "skipped", "see the dns check");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
    let closed = FreePort::new();
    let url = format!("ws://127.0.0.1:{}/x", closed.number());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "dns", "ok", "127.0.0.1");
    assert_check(&report, "websocket", "failure", "TCP port 443");
}

#[test]
fn proxies() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let proxy = Server::start(|mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\
                      Content-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    let address = format!("http://127.0.0.1:{}", proxy.port());
    world.set("HTTPS_PROXY", &address);
    let url = ["--url", "wss://gateway.invalid/x"];
    let (_, report) = doctor(&world, &url);
    assert_check(&report, "proxy", "ok", &address);
    assert_check(&report, "dns", "ok", "does not resolve here; the proxy will resolve it");
    assert_check(&report, "websocket", "failure", "put the user and password into HTTPS_PROXY");
    let closed = FreePort::new();
    world.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", closed.number()));
    assert_check(&doctor(&world, &url).1, "websocket", "failure", "proxy http://127.0.0.1:");
    world.set("HTTPS_PROXY", "ftp://user:swordfish@127.0.0.1:1");
    let (finished, report) = doctor(&world, &url);
    assert_check(&report, "proxy", "failure", "HTTPS_PROXY is not an http, https or socks5 URL");
    assert!(!finished.text().contains("swordfish"), "the password is shown");
    assert_check(&report, "websocket", "skipped", "see the proxy check");
}

/// The port's owner is alive, but is not a proxy.
#[test]
fn a_proxy_that_accepts_and_stays_silent_is_blamed() {
    let sim = sim();
    let mut world = world(&sim);
    let silent = Server::start(|stream: TcpStream| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    let proxy = format!("http://127.0.0.1:{}", silent.port());
    world.set("HTTPS_PROXY", &proxy);
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let (_, report) = doctor(&world, &["--url", "wss://gateway.invalid/x"]);
    assert_check(&report, "websocket", "failure", &format!("proxy {proxy} accepted the connection, but"));
    let websocket = check(&report, "websocket").to_string();
    assert!(!websocket.contains("set HTTPS_PROXY"), "{websocket}");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
}

#[test]
fn endpoints_of_partitions_fips_and_dual_stack() {
    let sim = sim();
    for (region, variable, host) in [
        ("eu-isoe-west-1", "", "ssmmessages.eu-isoe-west-1.cloud.adc-e.uk"),
        ("us-gov-west-1", "AWS_USE_FIPS_ENDPOINT", "ssmmessages-fips.us-gov-west-1.amazonaws.com"),
        ("eu-west-1", "AWS_USE_DUALSTACK_ENDPOINT", "ssmmessages.eu-west-1.api.aws"),
    ] {
        let mut world = world(&sim);
        if !variable.is_empty() {
            world.set(variable, "true");
        }
        // A proxy that is not there: nothing leaves this machine.
        let closed = FreePort::new();
        world.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", closed.number()));
        let (_, report) = doctor(&world, &["--region", region]);
        let dns = check(&report, "dns")["found"].to_string();
        assert!(dns.contains(&format!("{host}:")), "{dns}");
    }
}

#[test]
fn trust() {
    let sim = start(Config { tls: true, ..Config::default() });
    let mut world = world(&sim);
    let url = channel(&sim).replace("ws:", "wss:");
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "websocket", "failure", "signed by an unknown CA");
    let bundle = world.path("ca.pem");
    std::fs::write(&bundle, sim.ca_pem().expect("TLS")).expect("write the authority");
    world.set("AWS_CA_BUNDLE", &bundle.display().to_string());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "trust", "ok", "ca.pem");
    assert_check(&report, "websocket", "ok", "127.0.0.1");
    std::fs::write(&bundle, "no certificate").expect("spoil it");
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "trust", "failure", "there is no CA certificate in");
    assert_check(&report, "websocket", "skipped", "see the trust check");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
}

#[test]
fn something_between_that_does_not_pass_websockets() {
    let sim = sim();
    let world = world(&sim);
    for (answer, words) in [
        ("200 OK\r\nContent-Type: text/html", "allow websockets to the service in the proxy or filter"),
        ("302 Found\r\nLocation: http://portal.example/", "captive portal"),
        ("403 Forbidden\r\nContent-Type: text/html", "proxy or filter"),
        ("502 Bad Gateway", "502 Bad Gateway"),
    ] {
        let filter = Server::start(move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        });
        let url = format!("ws://127.0.0.1:{}/x", filter.port());
        assert_check(&doctor(&world, &["--url", &url]).1, "websocket", "failure", words);
    }
}
