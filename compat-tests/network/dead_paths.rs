//! Paths that go dead without a word while new connections work: a closed lid, another Wi-Fi, a forgotten NAT entry.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use ssm_sim::{Config, Proxy, ProxyOptions};

use super::{API, SERVICE, Site};
use crate::harness::api::Started;
use crate::harness::net::{Server, connect, eventually, opened_port, random_bytes};
use crate::harness::process::{Running, Signal};
use crate::harness::sim::assert_all_ended;

/// Generous for a loaded machine, and far below the minute that two intervals of pings take.
const SOON: Duration = Duration::from_secs(20);

/// A site behind a proxy whose tunnels can go dead.
fn site() -> (Site, Proxy) {
    let mut site = Site::with(Config::default(), |_| SERVICE.to_owned()).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    (site, proxy)
}

/// A connection through a forwarded port to `server`, which has carried something.
#[track_caller]
fn forward(site: &Site, server: &Server) -> (Running, TcpStream) {
    let started = Started::port(&site.sim.endpoint(), server.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&site.world));
    let mut stream = connect(opened_port(&plugin.stdout));
    stream.write_all(b"before").expect("write");
    stream.read_exact(&mut [0; 6]).expect("an echo");
    (plugin, stream)
}

/// Sends one byte after another until all of them are echoed. Returns the time to the first echo.
#[track_caller]
fn type_until_echoed(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut reader = stream.try_clone().expect("clone");
    let echo = std::thread::spawn(move || {
        let mut first = [0];
        reader.read_exact(&mut first).expect("the first echo");
        (first[0], began.elapsed(), reader)
    });
    let mut sent = Vec::new();
    while !echo.is_finished() {
        let key = (sent.len() % 251) as u8;
        stream.write_all(&[key]).expect("type");
        sent.push(key);
        std::thread::sleep(Duration::from_millis(50));
    }
    let (first, took, mut reader) = echo.join().expect("the reader");
    let mut rest = vec![0; sent.len() - 1];
    reader.read_exact(&mut rest).expect("the other echoes");
    rest.insert(0, first);
    assert!(rest == sent, "lost or duplicated: {} keys", sent.len());
    took
}

#[track_caller]
fn finish(site: &Site, plugin: Running) {
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&site.sim);
}

#[test]
fn typing_continues_within_seconds() {
    let (site, proxy) = site();
    let (plugin, mut stream) = forward(&site, &site.echo);
    proxy.silence();
    let took = type_until_echoed(&mut stream);
    assert!(took < SOON, "{took:?}");
    finish(&site, plugin);
}

#[test]
fn typing_after_a_rest_continues_within_seconds() {
    let (site, proxy) = site();
    let (plugin, mut stream) = forward(&site, &site.echo);
    proxy.silence();
    std::thread::sleep(Duration::from_secs(5));
    let took = type_until_echoed(&mut stream);
    assert!(took < SOON, "{took:?}");
    finish(&site, plugin);
}

/// A call to resume waited ten seconds for an answer on the connection of the last one.
#[test]
fn each_death_resumes_over_a_new_connection() {
    let (site, proxy) = site();
    let mut started = Started::port(&site.sim.endpoint(), site.echo.port(), 0);
    started.endpoint = format!("https://{API}");
    let plugin = Running::spawn_without_stdin(&mut started.command(&site.world));
    let mut stream = connect(opened_port(&plugin.stdout));
    for death in 1..=3 {
        type_until_echoed(&mut stream);
        proxy.silence();
        type_until_echoed(&mut stream);
        assert_eq!(site.sim.requests().resume, death);
    }
    finish(&site, plugin);
}

/// Slow, because an agent repeats only ten messages a second of those that a dead path has swallowed.
#[test]
fn a_download_continues_within_seconds() {
    const PIECE: usize = 1000;
    let (site, proxy) = site();
    let bytes = random_bytes(7, 200 * PIECE);
    let sent = bytes.clone();
    let source = Server::start(move |mut stream| {
        let mut request = [0; 6];
        let mut sends = stream.read_exact(&mut request).and_then(|()| stream.write_all(&request)).is_ok();
        for piece in sent.chunks(PIECE) {
            sends = sends && stream.write_all(piece).is_ok();
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (plugin, mut stream) = forward(&site, &source);
    let mut received = vec![0; bytes.len()];
    let (begin, rest) = received.split_at_mut(50 * PIECE);
    stream.read_exact(begin).expect("the beginning");
    proxy.silence();
    let (mut longest, mut done) = (Duration::ZERO, 0);
    while done < rest.len() {
        let began = Instant::now();
        let n = stream.read(&mut rest[done..]).expect("the rest");
        assert!(n > 0, "it ended after {done} bytes");
        (longest, done) = (longest.max(began.elapsed()), done + n);
    }
    assert!(received == bytes, "lost or duplicated");
    assert!(longest < SOON, "{longest:?}");
    assert!(site.sim.requests().resume > 0, "the path was not dead");
    finish(&site, plugin);
}

/// The stream of an SSH session: nothing but its own bytes, each once and in order.
#[test]
fn an_ssh_stream_survives_50_deaths_in_a_row() {
    const DEATHS: u64 = 50;
    let (site, proxy) = site();
    let parameters = json!({"portNumber": [site.echo.port().to_string()]});
    let started = Started::at(&site.sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
    let mut plugin = Running::spawn(&mut started.command(&site.world));
    let banner = plugin.stdout.wait_for("\n").len() + plugin.stdout.wait_for("\n").len();
    let mut sent = b"SSH-2.0-test\r\n".to_vec();
    plugin.send(&sent);
    plugin.stdout.wait_for("SSH-2.0-test\r\n");
    for death in 0..DEATHS {
        let bytes = random_bytes(death, 4_000);
        let (alive, dead) = bytes.split_at(2_000);
        plugin.send(alive);
        proxy.silence();
        plugin.send(dead);
        sent.extend_from_slice(&bytes);
        eventually(&format!("echo {death}"), || plugin.stdout.bytes().len() >= banner + sent.len());
        assert!(plugin.stdout.bytes()[banner..] == sent, "lost or duplicated at death {death}");
    }
    let opens = site.sim.session(started.id()).expect("the session").opens.len() as u64;
    assert!(opens > DEATHS, "{opens} websockets");
    plugin.close_stdin();
    let finished = plugin.finish();
    finished.assert_ok();
    assert!(finished.stdout[banner..] == sent, "something follows the echo");
    assert_eq!(finished.errors(), "");
}
