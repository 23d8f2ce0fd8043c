//! The local side: addresses, ports that are taken, names.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ssm_sim::{Config, CustomDocument};

use super::Forward;
use crate::harness::api::Started;
use crate::harness::net::{Server, echo_through, opened_port};
use crate::harness::process::{Running, port_in_use};
use crate::harness::sim::{assert_all_ended, sim, start};
use crate::harness::{PATIENCE, World};

/// A document of one's own may leave it out.
#[test]
fn without_a_local_port_any_free_one_is_taken() {
    let (world, echo) = (World::new(), Server::echo());
    for local in [None, Some("")] {
        let mut properties = json!({"type": "LocalPortForwarding", "portNumber": echo.port().to_string()});
        if let Some(local) = local {
            properties["localPortNumber"] = json!(local);
        }
        let Value::Object(properties) = properties else { unreachable!("an object") };
        let documents = [("Own".to_owned(), CustomDocument::Port { properties })].into();
        let sim = start(Config { documents, ..Config::default() });
        let started = Started::at(&sim.endpoint(), Some("Own"), json!({}));
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let port = opened_port(&plugin.stdout);
        assert_ne!(port, 0);
        assert_eq!(echo_through(port, b"any"), b"any");
    }
}

#[test]
fn port_in_use_fails_at_once_and_ends_the_session() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let started = Started::port(&sim.endpoint(), echo.port(), port);
    let begin = Instant::now();
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    finished.assert_ok();
    let in_use = port_in_use();
    let line = format!("Cannot perform start session: listen tcp 127.0.0.1:{port}: bind: {in_use}\n");
    assert!(finished.text().contains(&line), "{:?}", finished.text());
    assert_eq!(finished.errors(), "", "the owner is for people");
    // A second on an idle machine; the tests share theirs.
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
    assert_all_ended(&sim);
}

/// Linux reports the process that has the port.
#[cfg(target_os = "linux")]
#[test]
fn the_owner_of_a_taken_port_is_named() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let started = Started::port(&sim.endpoint(), echo.port(), port);
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    let errors = finished.errors();
    assert!(errors.contains(&format!("port {port} is in use by ")), "{errors}");
    assert!(errors.contains(&format!("(process {})", std::process::id())), "{errors}");
}

#[test]
fn localhost_is_both_addresses() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_through(forward.port, b"over IPv4"), b"over IPv4");
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, forward.port));
    let mut names = ("localhost", forward.port).to_socket_addrs().expect("localhost");
    if !names.any(|name| name == address) || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // Here `localhost` is 127.0.0.1 alone, and so must the listener be.
        assert!(TcpStream::connect(address).is_err(), "listens on ::1, which is not localhost here");
        return;
    }
    assert_eq!(echo_over(address), *b"over IPv6");
}

fn echo_over(address: impl std::net::ToSocketAddrs) -> [u8; 9] {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"over IPv6").expect("write");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).expect("read");
    answer
}

/// smp#14, smp#133.
#[test]
#[cfg_attr(target_os = "macos", ignore = "of 127.0.0.0/8 only 127.0.0.1 is an address there")]
fn local_host_setting_names_the_address() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_LOCAL_HOST", "127.0.0.2");
    let forward = Forward::to(&world, &sim, echo.port());
    let mut stream = TcpStream::connect(("127.0.0.2", forward.port)).expect("connect to 127.0.0.2");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"elsewhere").expect("write");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"elsewhere");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, forward.port)).is_err(), "127.0.0.1 listens, too");
}

/// An IPv6 address as URLs have it.
#[test]
fn local_host_setting_may_have_brackets() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_LOCAL_HOST", "[::1]");
    let forward = Forward::to(&world, &sim, echo.port());
    assert_eq!(echo_over(("::1", forward.port)), *b"over IPv6");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, forward.port)).is_err(), "127.0.0.1 listens, too");
}
