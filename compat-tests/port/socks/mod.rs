//! The SOCKS and HTTP proxy (`SSM_PLUGIN_SOCKS`), with curl and with clients that mean no good.

mod access;
mod browser;
mod http;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use ssm_sim::{SessionState, Sim};

use crate::harness::api::Started;
use crate::harness::net::{Server, connect, echo_through, eventually, opened_port};
use crate::harness::process::{Running, run};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, await_pings, sim, sim_that_forbids_loopback, unpaced_sim};
use crate::harness::{World, required};

/// A plugin with a proxy in addition to its port.
pub struct Proxy {
    pub plugin: Running,
    pub port: u16,
}

impl Proxy {
    /// Its port leads to `main`.
    #[track_caller]
    pub fn start(world: &mut World, sim: &Sim, main: u16) -> Proxy {
        world.set("SSM_PLUGIN_SOCKS", "0");
        world.set("SSM_PLUGIN_STATUS", "always");
        world.set("SSM_PLUGIN_PING_INTERVAL", "1");
        let started = Started::port(&sim.endpoint(), main, 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(world));
        opened_port(&plugin.stdout);
        plugin.stderr.wait_for("SOCKS and HTTP proxy on 127.0.0.1:");
        let port = plugin.stderr.wait_for("\n").trim().parse().expect("a port");
        Proxy { plugin, port }
    }

    #[track_caller]
    pub fn end(self) -> String {
        self.plugin.signal(Signal::INT);
        let finished = self.plugin.finish();
        finished.assert_ok();
        finished.errors()
    }

    /// Asks for a name: the code of the reply, and the connection.
    #[track_caller]
    pub fn connect(&self, name: &str, port: u16) -> (u8, TcpStream) {
        let address = [&[3, name.len() as u8], name.as_bytes()].concat();
        self.request(1, &address, port)
    }

    #[track_caller]
    fn request(&self, command: u8, address: &[u8], port: u16) -> (u8, TcpStream) {
        let mut stream = connect(self.port);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let request = [&[5, 1, 0, 5, command, 0], address, &port.to_be_bytes()].concat();
        stream.write_all(&request).expect("write");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[..3], [5, 0, 5]);
        (answer[3], stream)
    }
}

fn named(sim: Sim) -> Sim {
    for name in ["web.internal", "db.internal", "third.internal"] {
        sim.set_host(name, "127.0.0.1");
    }
    sim
}

/// A web server that answers each request with its path.
pub fn web() -> Server {
    Server::start(|mut stream| {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match uninterrupted(|| stream.read(&mut buffer)) {
                Ok(n @ 1..) => head.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{path}", path.len());
        let _ = stream.write_all(answer.as_bytes());
    })
}

#[test]
fn curl_by_name_and_by_address() {
    let (mut world, sim, web, echo) = (World::new(), named(sim()), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let curl = |kind: &str, url: &str| {
        let mut command = world.command(required("/usr/bin/curl"));
        command.args(["-sS", "--max-time", "30", kind, &format!("127.0.0.1:{}", proxy.port), url]);
        let finished = run(&mut command);
        finished.assert_ok();
        finished.text()
    };
    let port = web.port();
    assert_eq!(curl("--socks5-hostname", &format!("http://web.internal:{port}/by-name")), "/by-name");
    assert_eq!(curl("--socks5", &format!("http://127.0.0.1:{port}/by-address")), "/by-address");
    assert_eq!(curl("--socks5-hostname", &format!("http://web.internal:{port}/again")), "/again");
    assert_eq!(sim.requests().start, 3, "argv's, the name's, the address's");
    proxy.end();
    assert_all_ended(&sim);
}

#[test]
fn a_thousand_short_requests_share_a_session() {
    let (mut world, sim, web, echo) = (World::new(), named(unpaced_sim()), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let threads: Vec<_> = (0..10)
        .map(|thread| {
            let (proxy, web) = (proxy.port, web.port());
            std::thread::spawn(move || {
                for number in 0..100 {
                    let mut stream = connect(proxy);
                    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
                    let path = format!("/{thread}/{number}");
                    let request = [
                        &[5, 1, 0, 5, 1, 0, 3, 12][..],
                        b"web.internal",
                        &web.to_be_bytes(),
                        format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes(),
                    ]
                    .concat();
                    stream.write_all(&request).expect("write");
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).expect("read");
                    assert_eq!(answer[..4], [5, 0, 5, 0]);
                    assert!(answer.ends_with(path.as_bytes()), "{}", String::from_utf8_lossy(&answer));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client");
    }
    assert_eq!(sim.requests().start, 2);
    proxy.end();
    assert_all_ended(&sim);
}

/// A client of the proxy reaches everything that the instance reaches.
#[test]
fn on_loopback_only_whatever_the_port_listens_on() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    world.set("SSM_PLUGIN_LOCAL_HOST", "0.0.0.0");
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    assert!(TcpStream::connect(("127.0.0.2", proxy.port)).is_err(), "listens on more than 127.0.0.1");
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port))).expect("::1");
    }
    proxy.end();
}

#[test]
fn the_reply_names_the_cause() {
    for (kind, reply) in [("AccessDeniedException", 2), ("ExpiredTokenException", 2), ("InvalidDocument", 1)]
    {
        let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
        let proxy = Proxy::start(&mut world, &sim, echo.port());
        sim.refuse_starts(Some(kind));
        for _ in 0..3 {
            let (code, mut stream) = proxy.connect("db.internal", echo.port());
            assert_eq!(code, reply, "{kind}");
            assert_eq!(uninterrupted(|| stream.read(&mut [0])).expect("the end"), 0);
        }
        sim.refuse_starts(None);
        let errors = proxy.end();
        let name = format!("cannot start a session to db.internal:{}: ", echo.port());
        assert_eq!(errors.matches(&name).count(), 1, "{errors}");
    }
}

/// The agent tells of a refusal as soon as it has tried, so the reply can, too. The session has looked for it: another
/// attempt does not need another one.
#[test]
fn a_missing_destination_is_named_in_the_reply_and_costs_few_sessions() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let unused =
        std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    for (name, port) in [("nowhere.invalid", 80), ("db.internal", unused)] {
        let (starts, begin) = (sim.requests().start, Instant::now());
        let mut named = 0;
        for _ in 0..10 {
            let asked = Instant::now();
            let (code, mut stream) = proxy.connect(name, port);
            // On a busy machine the refusal may come after the second that the reply waits for it.
            let is_late = code == 0 && asked.elapsed() >= Duration::from_secs(1);
            assert!(code == 4 || is_late, "{name}: {code} after {:?}", asked.elapsed());
            named += u32::from(code == 4);
            assert_eq!(uninterrupted(|| stream.read(&mut [0])).expect("the end"), 0);
        }
        assert!(named > 0, "{name} is never named");
        let most = 1 + begin.elapsed().as_secs() / 3;
        let asked = sim.requests().start - starts;
        assert!((1..=most).contains(&asked), "{asked} sessions in {:?}", begin.elapsed());
    }
    // One that says nothing is there all the same, and so is one that hangs up.
    let (silent, short) = (Server::start(|mut stream| _ = stream.read(&mut [0])), Server::start(drop));
    assert_eq!(proxy.connect("db.internal", silent.port()).0, 0);
    let (code, mut stream) = proxy.connect("db.internal", short.port());
    assert_eq!(code, 0);
    assert_eq!(uninterrupted(|| stream.read(&mut [0])).expect("the end"), 0);
    proxy.end();
    assert_all_ended(&sim);
}

/// A client that is less patient than StartSession finds its session when it comes again.
#[test]
fn a_client_that_goes_away_costs_one_session() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    for _ in 0..3 {
        let mut stream = connect(proxy.port);
        let request = [&[5, 1, 0, 5, 1, 0, 3, 11][..], b"db.internal", &echo.port().to_be_bytes()].concat();
        stream.write_all(&request).expect("write");
        stream.read_exact(&mut [0; 2]).expect("the greeting's answer");
    }
    eventually("a session", || sim.requests().start == 2);
    // Long enough for several.
    await_pings(&sim, &sim.sessions()[0].id, 2);
    assert_eq!(proxy.connect("db.internal", echo.port()).0, 0);
    assert_eq!(sim.requests().start, 2);
    proxy.end();
    assert_all_ended(&sim);
}

/// Agents since 3.3.4851 end a session for what they may not forward to; a session for each attempt would change nothing.
#[test]
fn a_destination_that_the_agent_may_not_forward_to_costs_few_sessions() {
    let (mut world, sim, echo) = (World::new(), sim_that_forbids_loopback(), Server::echo());
    sim.set_host("itself.internal", "127.0.0.1");
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let begin = Instant::now();
    for _ in 0..50 {
        assert_ne!(proxy.connect("itself.internal", echo.port()).0, 0);
    }
    let most = 5 + begin.elapsed().as_secs() / 2;
    let asked = sim.requests().start - 1;
    assert!((1..=most).contains(&asked), "{asked} sessions in {:?}", begin.elapsed());
    proxy.end();
    assert_all_ended(&sim);
}

#[test]
fn what_is_no_connect_is_refused() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    for (command, address, port, reply) in [
        (2, &[1, 10, 0, 0, 1][..], 80, 7),
        (3, &[1, 10, 0, 0, 1], 80, 7),
        (1, &[1, 10, 0, 0, 1], 0, 1),
        (1, &[3, 4, b'a', b'"', b'b', b'c'], 80, 4),
    ] {
        let (code, mut stream) = proxy.request(command, address, port);
        assert_eq!(code, reply);
        assert_eq!(uninterrupted(|| stream.read(&mut [0])).expect("the end"), 0);
    }
    let mut stream = connect(proxy.port);
    stream.write_all(&[5, 1, 2]).expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    assert_eq!(answer, [5, 0xff], "a password is not asked for");
    assert_eq!(sim.requests().start, 1, "nothing was started for them");
    proxy.end();
}

/// While all 32 are used, the clients of another destination wait; one that has been idle for five seconds makes room.
#[test]
fn at_most_32_destinations() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let name = |number: usize| format!("db{number}.internal");
    (0..33).for_each(|number| sim.set_host(&name(number), "127.0.0.1"));
    let mut open: Vec<_> = (0..32)
        .map(|number| {
            let (code, stream) = proxy.connect(&name(number), echo.port());
            assert_eq!(code, 0, "{number}");
            stream
        })
        .collect();
    let ended = || sim.sessions().iter().filter(|session| session.state == SessionState::Ended).count();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| proxy.connect(&name(32), echo.port()).0);
        drop(open.remove(0));
        assert_eq!(late.join().expect("the late client"), 0);
    });
    eventually("the idle session is ended", || ended() == 1);
    assert_eq!(sim.requests().start, 1 + 33);
    for stream in &mut open {
        stream.write_all(b"x").expect("write");
        stream.read_exact(&mut [0]).expect("the others live");
    }
    proxy.end();
    assert_all_ended(&sim);
}

/// The oldest make room for new clients before their time is over.
#[test]
fn silent_clients_do_not_keep_others_out() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let begin = Instant::now();
    let mut silent: Vec<_> = (0..300).map(|_| connect(proxy.port)).collect();
    assert_eq!(proxy.connect("db.internal", echo.port()).0, 0);
    assert_eq!(uninterrupted(|| silent[0].read(&mut [0])).unwrap_or_default(), 0);
    assert!(begin.elapsed() < Duration::from_secs(9), "they had their time: {:?}", begin.elapsed());
    proxy.end();
    assert_all_ended(&sim);
}

/// Garbage, silence, one byte at a time, ten thousand connections: bounded time, bounded memory, and others are served.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc")]
fn hostile_clients() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    for seed in 0..50 {
        let mut stream = connect(proxy.port);
        let _ = stream.write_all(&crate::harness::net::random_bytes(seed, 2000));
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let silent: Vec<_> = (0..100).map(|_| connect(proxy.port)).collect();
    let slow = connect(proxy.port);
    let slow = std::thread::spawn(move || {
        let (mut slow, begin) = (slow, Instant::now());
        for byte in [5, 255].into_iter().chain(std::iter::repeat_n(1, 255)) {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        begin.elapsed()
    });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port));
    for number in 0..10_000 {
        // In a full queue a connection may be refused; that is fine.
        drop(TcpStream::connect_timeout(&address, Duration::from_millis(200)));
        if number % 1000 == 0 {
            let (code, mut stream) = proxy.connect("db.internal", echo.port());
            assert_eq!(code, 0, "others are served");
            stream.write_all(b"x").expect("write");
            stream.read_exact(&mut [0]).expect("read");
        }
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.plugin.pid().as_raw_nonzero()));
    let descriptors = descriptors.expect("descriptors").count();
    assert!(descriptors < 400, "{descriptors} descriptors");
    assert_eq!(sim.requests().start, 2, "nothing was started for the others");
    let mut silent = silent;
    let begin = Instant::now();
    assert_eq!(uninterrupted(|| silent[99].read(&mut [0])).unwrap_or_default(), 0);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(slow.join().expect("the slow one") < Duration::from_secs(40));
    let kib = resident_kib(&proxy.plugin);
    assert!(kib < 60_000, "{kib} KiB");
    proxy.end();
    assert_all_ended(&sim);
}

fn resident_kib(plugin: &Running) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", plugin.pid().as_raw_nonzero())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[test]
fn the_port_of_argv_works_as_well() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    world.set("SSM_PLUGIN_SOCKS", "0");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = opened_port(&plugin.stdout);
    assert_eq!(echo_through(port, b"beside"), b"beside");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}
