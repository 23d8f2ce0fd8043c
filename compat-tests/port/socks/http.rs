//! HTTP CONNECT and SOCKS4 on the proxy's port, with real clients and with clients that mean no good.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use ssm_sim::{Config, Sim};

use super::{Proxy, named, web};
use crate::harness::net::{Server, connect, eventually};
use crate::harness::process::{Running, run};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, sim, start};
use crate::harness::{Aws, TARGET, World, required};

fn curl(world: &World, words: &[&str]) -> Command {
    let mut command = world.command(required("/usr/bin/curl"));
    command.args(["-sS", "--max-time", "60"]).args(words);
    command
}

/// Sends `request` and reads to the end.
#[track_caller]
fn talk(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and the end");
    String::from_utf8(answer).expect("text")
}

/// Returns the answer's head; what follows stays in the stream.
#[track_caller]
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

#[test]
fn curl_by_http_connect_and_socks4() {
    let (mut world, sim, web, echo) = (World::new(), named(sim()), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let port = web.port();
    let by_name = format!("http://web.internal:{port}");
    let by_address = format!("http://127.0.0.1:{port}");
    for (scheme, base) in [
        ("http", &by_name),
        ("http", &by_address),
        ("socks4", &by_address),
        ("socks4a", &by_name),
        ("socks5h", &by_name),
    ] {
        let (url, via) = (format!("{base}/{scheme}"), format!("{scheme}://127.0.0.1:{}", proxy.port));
        let finished = run(&mut curl(&world, &["--proxytunnel", "--proxy", &via, &url]));
        finished.assert_ok();
        assert_eq!(finished.text(), format!("/{scheme}"), "{via}");
    }
    assert_eq!(sim.requests().start, 3, "argv's, the name's and the address's: protocols share a session");
    proxy.end();
    assert_all_ended(&sim);
}

/// cli#6570: the AWS CLI supports HTTP proxies only.
#[test]
fn the_aws_cli_by_https_proxy() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let other = start(Config { tls: true, ..Config::default() });
    let bundle = world.path("ca.pem");
    std::fs::write(&bundle, other.ca_pem().expect("an authority")).expect("write");
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    world.set("AWS_CA_BUNDLE", &bundle.display().to_string());
    world.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port));
    let words = ["ssm", "describe-instance-information", "--query", "InstanceInformationList[0].InstanceId"];
    for version in [Aws::V1, Aws::V2] {
        let finished = run(&mut world.aws(version, &other.endpoint(), &words));
        finished.assert_ok();
        assert_eq!(finished.text(), format!("\"{TARGET}\"\n"), "{version:?}");
    }
    assert_eq!(sim.requests().start, 2, "the calls went through one session");
    proxy.end();
    assert_all_ended(&sim);
}

/// "The whole VPC in one command."
#[test]
fn forward_d_alone_is_a_proxy_for_http_clients() {
    let (sim, web) = (named(sim()), web());
    let world = crate::commands::world(&sim);
    let mut command = crate::commands::plugin(&world, &["forward", TARGET, "-D", "0"]);
    let running = Running::spawn_without_stdin(&mut command);
    let line = running.stdout.wait_for(" -> SOCKS and HTTP proxy\n");
    running.stdout.wait_for("ready\n");
    let address = line.lines().last().and_then(|line| line.split(' ').next()).expect("an address");
    let (url, via) = (format!("http://web.internal:{}/vpc", web.port()), format!("http://{address}"));
    let finished = run(&mut curl(&world, &["-p", "-x", &via, &url]));
    finished.assert_ok();
    assert_eq!(finished.text(), "/vpc");
    running.signal(Signal::INT);
    running.finish();
    assert_all_ended(&sim);
}

/// A client may send its data with its request, in one packet or in pieces, before the answer.
#[test]
fn early_data_is_not_lost() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let early = crate::harness::net::random_bytes(4, 100_000);
    let (target, port) = (format!("db.internal:{}", echo.port()), echo.port().to_be_bytes());
    let http = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
    let socks4 = [&[4, 1][..], &port, &[0, 0, 0, 1], b"me\0db.internal\0"].concat();
    for (request, length) in [(http, "HTTP/1.1 200 Connection established\r\n\r\n".len()), (socks4, 8)] {
        for piece in [usize::MAX, 11] {
            let mut stream = connect(proxy.port);
            let mut writer = stream.try_clone().expect("clone");
            let all = [&request[..], &early].concat();
            let writing = std::thread::spawn(move || {
                let start = all.len().min(500);
                for part in all[..start].chunks(piece).chain(all[start..].chunks(16 << 10)) {
                    writer.write_all(part).expect("write");
                }
            });
            let mut answer = vec![0; length + early.len()];
            stream.read_exact(&mut answer).expect("the answer and the echo");
            assert!(answer[..2] == *b"HT" || answer[..2] == [0, 90], "{:?}", &answer[..8]);
            assert!(answer[length..] == early, "early data of pieces of {piece} bytes");
            writing.join().expect("the writer");
        }
    }
    proxy.end();
    assert_all_ended(&sim);
}

#[test]
fn other_methods_and_bad_requests_start_nothing() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let target = format!("db.internal:{}", echo.port());
    // A page in a browser can send the second to any port.
    let hidden = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    for (request, status, line) in [
        ("GET http://web.internal/ HTTP/1.1\r\n\r\n".to_owned(), "405 Method Not Allowed", "CONNECT only"),
        (
            format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
            "405 Method Not Allowed",
            "CONNECT only",
        ),
        ("CONNECT db.internal HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request", "HOST:PORT"),
        ("CONNECT db:80 HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request", "at least 3 characters"),
        (
            format!("CONNECT {target} HTTP/1.1\r\nX: {}", "x".repeat(20_000)),
            "431 Request Header Fields Too Large",
            "too long",
        ),
    ] {
        let answer = talk(proxy.port, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer:?}");
        assert_eq!(answer.contains("\r\nAllow: CONNECT\r\n"), status.starts_with("405"), "{answer:?}");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        assert!(body.lines().count() == 1 && body.contains(line), "{body:?}");
    }
    assert_eq!(sim.requests().start, 1);
    let lines = ["an HTTP request other than CONNECT", "at least 3 characters", "more than 8192 bytes"];
    for line in lines {
        eventually(line, || proxy.plugin.stderr.text().contains(line));
    }
    let errors = proxy.end();
    for line in lines {
        assert_eq!(errors.matches(line).count(), 1, "{line}: {errors}");
    }
}

#[test]
fn an_http_status_names_the_cause() {
    let status = |sim: &Sim, name: &str| {
        let (mut world, echo) = (World::new(), Server::echo());
        let proxy = Proxy::start(&mut world, sim, echo.port());
        if name == "db.internal" {
            sim.refuse_starts(Some("AccessDeniedException"));
        }
        let answer = talk(proxy.port, format!("CONNECT {name}:9 HTTP/1.1\r\n\r\n").as_bytes());
        sim.refuse_starts(None);
        proxy.end();
        answer
    };
    for (name, expected) in [
        ("nowhere.invalid", "HTTP/1.1 502 Bad Gateway\r\n"),
        ("db.internal", "HTTP/1.1 503 Service Unavailable\r\n"),
    ] {
        let answer = status(&named(sim()), name);
        assert!(answer.starts_with(expected), "{answer:?}");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        assert_eq!(body.lines().count(), 1, "{body:?}");
    }
}

/// An endless head does not keep other clients out, and is cut off in time.
#[test]
fn endless_heads_are_bounded_in_time_and_bytes() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let slow: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = connect(proxy.port);
            let _ = stream.write_all(b"CONNECT db.internal:80 HTTP/1.1\r\nX: ");
            stream
        })
        .collect();
    let mut honest = connect(proxy.port);
    let request = format!("CONNECT db.internal:{} HTTP/1.1\r\n\r\n", echo.port());
    honest.write_all(request.as_bytes()).expect("write");
    assert!(head(&mut honest).starts_with("HTTP/1.1 200 "));
    for mut stream in slow {
        // Its time is over, or it made room: closed without an answer.
        assert_eq!(uninterrupted(|| stream.read(&mut [0])).unwrap_or_default(), 0);
    }
    honest.write_all(b"x").expect("write");
    honest.read_exact(&mut [0]).expect("the honest one lives");
    assert_eq!(sim.requests().start, 2);
    proxy.end();
    assert_all_ended(&sim);
}
