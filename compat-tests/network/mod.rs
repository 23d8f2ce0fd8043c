//! Networks that are not the open internet: proxies, private certificate authorities, other stream hosts,
//! connections that die without a word.
//!
//! The service is a simulator behind TLS at a name of AWS's, which only the proxy can resolve.

#[cfg(target_os = "linux")]
mod address_change;
mod bad_link;
#[cfg(unix)]
mod clients;
mod dead_paths;
mod destinations;
#[cfg(unix)]
mod lookup;
mod malformed;
#[cfg(unix)]
mod progress;
mod proxies;
mod trust;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ssm_sim::{Config, Proxy, ProxyOptions, Sim, TlsFront, Visit};

use crate::harness::api::Started;
use crate::harness::gateway::Gateway;
use crate::harness::net::{Server, echo_through, opened_port, random_bytes};
use crate::harness::process::{Finished, Running, Signal};
use crate::harness::sim::{assert_all_ended, start};
use crate::harness::{World, wire};

const SERVICE: &str = "ssmmessages.us-east-1.amazonaws.com";
const API: &str = "ssm.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
const CONNECT: &str = "ec2-instance-connect.us-east-1.amazonaws.com";
const ENDPOINT: &str = "vpce-0a1b2c3d-4e5f.ssmmessages.us-east-1.vpce.amazonaws.com";
const FOREIGN_API: &str = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
const ELSEWHERE: &str = "gateway.example";
/// An address that leads to this machine on UNIX, but is no loopback address.
const HERE: &str = "0.0.0.0";
const PASSWORD: &str = "p@ss/word#1";
/// [`PASSWORD`] in a URL.
const ENCODED: &str = "p%40ss%2Fword%231";

/// A service with TLS, its certificate authority in a file, and something to forward to.
struct Site {
    world: World,
    sim: Sim,
    front: TlsFront,
    echo: Server,
    bundle: PathBuf,
}

impl Site {
    /// Stream URLs name `host` (perhaps with a port).
    fn at(host: &str) -> Site {
        Site::with(Config::default(), |_| host.to_owned())
    }

    /// Stream URLs name `host` with the port of the TLS front.
    fn here(host: &str) -> Site {
        Site::with(Config::default(), |port| format!("{host}:{port}"))
    }

    fn with(config: Config, authority: impl FnOnce(u16) -> String) -> Site {
        let sim = start(config);
        let names = [SERVICE, API, STS, CONNECT, ENDPOINT, ELSEWHERE, "localhost", HERE];
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, sim.port()));
        let front = TlsFront::start(to, &names).expect("start the TLS front");
        sim.set_stream_base(&format!("wss://{}", authority(front.port())));
        let world = World::new();
        let bundle = world.path("ca.pem");
        std::fs::write(&bundle, front.ca_pem()).expect("write the CA");
        Site { world, sim, front, echo: Server::echo(), bundle }
    }

    fn trusting(mut self) -> Site {
        self.set("AWS_CA_BUNDLE", &self.bundle.display().to_string());
        self
    }

    fn set(&mut self, name: &str, value: &str) {
        self.world.set(name, value);
    }

    /// A proxy that finds the service under any name.
    fn proxy(&self, options: ProxyOptions) -> Proxy {
        let to = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, self.front.port())));
        Proxy::start(ProxyOptions { to, ..options }).expect("start the proxy")
    }

    fn spawn(&self) -> Running {
        let started = Started::port(&self.sim.endpoint(), self.echo.port(), 0);
        Running::spawn_without_stdin(&mut started.command(&self.world))
    }

    /// A forwarded port carries bytes both ways.
    #[track_caller]
    fn works(&self) {
        let plugin = self.spawn();
        let port = opened_port(&plugin.stdout);
        let bytes = random_bytes(1, 50_000);
        assert!(echo_through(port, &bytes) == bytes, "the echo differs");
        plugin.signal(Signal::INT);
        plugin.finish().assert_ok();
        assert_all_ended(&self.sim);
    }

    /// A session by the API behind `proxy` loses its connection, is resumed, and ends.
    #[track_caller]
    fn is_resumed_through(&mut self, proxy: &Proxy) {
        self.set("SSM_PLUGIN_PING_INTERVAL", "1");
        let mut started = Started::port(&self.sim.endpoint(), self.echo.port(), 0);
        started.endpoint = format!("https://{API}");
        let plugin = Running::spawn_without_stdin(&mut started.command(&self.world));
        let port = opened_port(&plugin.stdout);
        proxy.silence();
        assert!(echo_through(port, b"resumed") == b"resumed");
        assert!(self.sim.requests().resume > 0, "not resumed");
        assert_asked_for(proxy, &format!("{API}:443"));
        plugin.signal(Signal::INT);
        plugin.finish().assert_ok();
        assert_all_ended(&self.sim);
    }

    /// No session comes about, and stdout says so in one line with these words.
    #[track_caller]
    fn fails_with(&self, words: &str) -> Finished {
        let finished = self.spawn().finish();
        finished.assert_ok();
        let text = finished.text();
        let line = text.lines().find(|line| line.starts_with("Cannot perform start session: "));
        assert!(
            line.is_some_and(|line| line.contains(words)),
            "no {words:?} in {text:?}, {}",
            finished.errors()
        );
        for secret in [PASSWORD, ENCODED] {
            assert!(!text.contains(secret) && !finished.errors().contains(secret), "a password in {text:?}");
        }
        finished
    }
}

fn with_password() -> ProxyOptions {
    ProxyOptions { auth: Some(("user".to_owned(), PASSWORD.to_owned())), ..ProxyOptions::default() }
}

#[track_caller]
fn assert_asked_for(proxy: &Proxy, host: &str) {
    let requests = proxy.requests();
    assert!(requests.iter().any(|request| request.opened && request.to == host), "{requests:?}");
}

#[test]
fn other_hosts_are_refused_unless_allowed() {
    let mut site = Site::at(ELSEWHERE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    site.fails_with(&format!(
        "the stream URL has the host {ELSEWHERE}, which is not a Session Manager endpoint of AWS; if it is your own host, \
         set SSM_PLUGIN_ALLOW_STREAM_HOST to it"
    ));
    assert_eq!(proxy.requests(), []);
    site.set("SSM_PLUGIN_ALLOW_STREAM_HOST", ELSEWHERE);
    // The refused session is still open at the service, whose end `works` would wait for.
    let plugin = site.spawn();
    opened_port(&plugin.stdout);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_asked_for(&proxy, &format!("{ELSEWHERE}:443"));
}

#[test]
fn another_stream_host_is_used_throughout() {
    // An interface endpoint's name, through a proxy.
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    site.set("SSM_PLUGIN_STREAM_HOST", ENDPOINT);
    site.works();
    assert_asked_for(&proxy, &format!("{ENDPOINT}:443"));
    let visit = Visit { server_name: Some(ENDPOINT.to_owned()), host: Some(ENDPOINT.to_owned()) };
    assert_eq!(site.front.visits(), [visit]);
    // With a port.
    let mut site = Site::at(SERVICE).trusting();
    let host = format!("localhost:{}", site.front.port());
    site.set("SSM_PLUGIN_STREAM_HOST", &host);
    site.works();
    let visit = Visit { server_name: Some("localhost".to_owned()), host: Some(host) };
    assert_eq!(site.front.visits(), [visit]);
    // Not an endpoint of Session Manager; an API below AWS's domain may be anybody's.
    for host in [ELSEWHERE, FOREIGN_API] {
        site.set("SSM_PLUGIN_STREAM_HOST", host);
        site.fails_with(&format!("SSM_PLUGIN_STREAM_HOST={host} is not a Session Manager endpoint of AWS"));
    }
    site.set("SSM_PLUGIN_STREAM_HOST", "https://localhost/");
    site.fails_with("SSM_PLUGIN_STREAM_HOST=\"https://localhost/\" is not a host name");
}

/// smp#15: proxies forget a connection after a minute of silence; the official plugin pings every five minutes.
#[test]
fn pings_come_at_their_interval() {
    let (pings, times) = std::sync::mpsc::channel();
    let gateway = Gateway::scripted(move |socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "$ ");
        socket.acknowledged(number);
        for _ in 0..4 {
            assert!(socket.ping(), "a ping");
            let _ = pings.send(Instant::now());
        }
        socket.close("");
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = plugin.take_stdin();
    plugin.finish().assert_ok();
    let times: Vec<Instant> = times.try_iter().collect();
    let took = times[3].duration_since(times[0]);
    // A busy machine makes them late; nothing makes them early.
    let expected = Duration::from_millis(2500)..Duration::from_secs(12);
    assert!(expected.contains(&took), "three intervals of a second in {took:?}");
    assert_eq!(gateway.opens(), 1, "answered pings are no reason to connect again");
}

#[test]
fn a_half_open_connection_is_replaced() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    site.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let plugin = site.spawn();
    let port = opened_port(&plugin.stdout);
    for round in 1..=2 {
        let bytes = random_bytes(round, 50_000);
        assert!(echo_through(port, &bytes) == bytes, "the echo differs");
        let tunnels = proxy.requests().len();
        proxy.silence();
        assert!(echo_through(port, &bytes) == bytes, "the echo after the silence differs");
        assert!(proxy.requests().len() > tunnels, "no new tunnel");
    }
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&site.sim);
}
