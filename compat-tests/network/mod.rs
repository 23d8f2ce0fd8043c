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

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ssm_sim::{Config, Proxy, ProxyOptions, Sim, TlsFront, Visit};

use crate::harness::api::Started;
use crate::harness::gateway::Gateway;
use crate::harness::net::{FreePort, Server, echo_through, eventually, opened_port, random_bytes};
use crate::harness::process::{Finished, Running, Signal};
use crate::harness::sim::{assert_all_ended, start};
use crate::harness::{World, wire};

const SERVICE: &str = "ssmmessages.us-east-1.amazonaws.com";
const API: &str = "ssm.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
const CONNECT: &str = "ec2-instance-connect.us-east-1.amazonaws.com";
const ENDPOINT: &str = "vpce-0a1b2c3d-4e5f.ssmmessages.us-east-1.vpce.amazonaws.com";
const SOMEBODYS_API: &str = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
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
        "{refused}give user and password in HTTPS_PROXY, as http://user:password@127.0.0.1:{port}"
    ));
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}x@127.0.0.1:{port}"));
    site.fails_with(&format!("{refused}it does not accept the user and password in HTTPS_PROXY"));
    // Written without escapes.
    site.set("HTTPS_PROXY", &format!("http://user:{PASSWORD}@127.0.0.1:{port}"));
    site.fails_with("HTTPS_PROXY is not the URL of a proxy");
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
fn an_all_proxy_that_nobody_can_use_costs_a_line() {
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
    site.fails_with("HTTPS_PROXY is not the URL of a proxy");
}

#[test]
fn a_private_authority_is_trusted_when_named() {
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let mut site = Site::here("localhost");
        site.set(name, &site.bundle.display().to_string());
        site.works();
    }
}

#[test]
fn a_private_authority_is_trusted_when_the_profile_names_it() {
    let site = Site::here("localhost");
    std::fs::create_dir(site.world.home().join(".aws")).expect("config folder");
    let config = format!("[default]\nca_bundle = {}\n", site.bundle.display());
    std::fs::write(site.world.home().join(".aws/config"), config).expect("config");
    site.works();
}

/// A CA in `AWS_CA_BUNDLE` replaces all others, as with the AWS CLI.
#[test]
fn named_authorities_replace_the_system_s() {
    let other = TlsFront::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), &["elsewhere"]).expect("another");
    for (system, named) in [("other", "ours"), ("ours", "other")] {
        let mut site = Site::here("localhost");
        for (variable, which) in [("SSL_CERT_FILE", system), ("AWS_CA_BUNDLE", named)] {
            let path = site.world.path(&format!("{which}.pem"));
            let pem = if which == "ours" { site.front.ca_pem() } else { other.ca_pem() };
            std::fs::write(&path, pem).expect("write the CA");
            site.set(variable, &path.display().to_string());
        }
        if named == "ours" {
            site.works();
        } else {
            site.fails_with("its certificate is signed by an unknown CA");
        }
    }
}

/// RHEL's `ca-bundle.trust.crt` has this form; the AWS CLI takes it.
#[cfg(unix)]
#[test]
fn openssl_s_trusted_certificates_are_a_bundle() {
    let site = Site::here("localhost").trusting();
    let openssl = |words: &[&str]| {
        let mut command = site.world.command("openssl");
        command.args(["x509", "-in"]).arg(&site.bundle).args(["-trustout", "-out"]).arg(&site.bundle);
        assert!(command.args(words).status().expect("openssl").success());
    };
    openssl(&["-addtrust", "serverAuth", "-setalias", "ours"]);
    site.works();
    openssl(&["-clrtrust", "-addreject", "serverAuth"]);
    site.fails_with("there is no CA certificate in");
}

#[test]
fn a_bundle_that_breaks_off_is_refused_in_a_sentence() {
    let site = Site::here("localhost").trusting();
    let pem = std::fs::read_to_string(&site.bundle).expect("the CA");
    std::fs::write(&site.bundle, format!("{pem}{}", &pem[..200])).expect("write");
    site.fails_with(": it breaks off inside a certificate; copy the file again");
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
fn an_unknown_authority_is_refused_with_advice() {
    let mut site = Site::here("localhost");
    site.fails_with(
        "cannot open TLS to localhost: its certificate is signed by an unknown CA; if a proxy or gateway uses its own, \
         name that CA's PEM file in AWS_CA_BUNDLE or the profile's ca_bundle (which replaces the system's CAs); the AWS \
         CLI's --ca-bundle and --no-verify-ssl do not reach the plugin",
    );
    let missing = site.world.path("missing.pem");
    site.set("AWS_CA_BUNDLE", &missing.display().to_string());
    site.fails_with(&format!("cannot read the CA certificates in {}: ", missing.display()));
    std::fs::write(&missing, "no certificate\n").expect("write");
    site.fails_with(&format!("there is no CA certificate in {}", missing.display()));
    // A certificate for another name.
    let site = Site::here("127.0.0.1").trusting();
    site.fails_with("cannot open TLS to 127.0.0.1: its certificate is for another name");
}

#[test]
fn other_hosts_are_refused_unless_allowed() {
    let mut site = Site::at(ELSEWHERE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    site.fails_with(&format!(
        "the stream URL names {ELSEWHERE}, which is not a Session Manager endpoint of AWS; a host of your own must be \
         named in SSM_PLUGIN_ALLOW_STREAM_HOST"
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
    for host in [ELSEWHERE, SOMEBODYS_API] {
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

#[test]
fn calls_to_aws_take_the_proxy_too() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(with_password());
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}@127.0.0.1:{}", proxy.port()));
    site.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let mut started = Started::port(&site.sim.endpoint(), site.echo.port(), 0);
    started.endpoint = format!("https://{API}");
    let plugin = Running::spawn_without_stdin(&mut started.command(&site.world));
    let port = opened_port(&plugin.stdout);
    proxy.silence();
    assert!(echo_through(port, b"resumed") == b"resumed");
    assert!(site.sim.requests().resume > 0, "not resumed");
    assert_asked_for(&proxy, &format!("{API}:443"));
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&site.sim);
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
