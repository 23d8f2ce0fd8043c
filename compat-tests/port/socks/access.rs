//! Access to the proxy: the same user, by port or by socket file.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;

use rustix::process::Signal;

use super::{Proxy, named};
use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{Server, opened_port};
use crate::harness::process::{Running, run};
use crate::harness::required;
use crate::harness::sim::{assert_all_ended, sim};

#[test]
fn a_socket_file_is_a_proxy_for_this_user() {
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socks");
    world.set("SSM_PLUGIN_SOCKS", &format!("unix:{}", path.display()));
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    opened_port(&plugin.stdout);
    plugin.stderr.wait_for(&format!("SOCKS and HTTP proxy on unix:{}\n", path.display()));
    let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).expect("connect");
    let request = [&[5, 1, 0, 5, 1, 0, 3, 11][..], b"db.internal", &echo.port().to_be_bytes()].concat();
    stream.write_all(&request).expect("write");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    stream.write_all(b"hello").expect("write");
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).expect("the echo");
    assert_eq!(&echoed, b"hello");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert!(!path.exists(), "the file is removed");
    assert_all_ended(&sim);
}

/// It would get the clients that try ::1 first.
#[test]
fn a_port_that_another_process_has_on_the_other_loopback_address_is_an_error() {
    let Ok(taken) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let port = taken.local_addr().expect("address").port();
    world.set("SSM_PLUGIN_SOCKS", &port.to_string());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let line = format!(
        "cannot open the SOCKS and HTTP proxy on port {port}: listen tcp [::1]:{port}: bind: address already in use\n"
    );
    plugin.stderr.wait_for(&line);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "no half of a proxy");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}

/// Only root can start a client as another user; others see that their own clients are served in every other test.
#[test]
fn clients_of_other_users_are_refused_unless_allowed() {
    if !rustix::process::geteuid().is_root() || !cfg!(target_os = "linux") {
        return;
    }
    let connect = |world: &World, port: u16| {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf x >&3; head -c1 <&3");
        let mut bash = world.command(required("/bin/bash"));
        bash.current_dir("/").args(["-c", &script]).uid(STRANGER).gid(STRANGER);
        run(&mut bash).text()
    };
    for is_allowed in [false, true] {
        let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
        world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{}", echo.port()));
        world.set("SSM_PLUGIN_RESTART", "1");
        world.set("SSM_PLUGIN_ANY_USER", if is_allowed { "1" } else { "0" });
        let started = Started::port(&sim.endpoint(), echo.port(), 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let main = opened_port(&plugin.stdout);
        let forward = crate::port::additional::leads_to(&plugin, &format!("db.internal:{}", echo.port()));
        for port in [main, forward] {
            assert_eq!(connect(&world, port), if is_allowed { "x" } else { "" }, "{is_allowed}");
        }
        let starts = sim.requests().start;
        assert_eq!(starts, if is_allowed { 2 } else { 1 }, "a stranger starts nothing");
        plugin.signal(Signal::INT);
        let finished = plugin.finish();
        finished.assert_ok();
        let line =
            format!("refused a client of another user (uid {STRANGER}); SSM_PLUGIN_ANY_USER=1 accepts");
        assert_eq!(
            finished.errors().matches(&line).count(),
            usize::from(!is_allowed),
            "{}",
            finished.errors()
        );
        assert_all_ended(&sim);
    }
    let (mut world, sim, echo) = (World::new(), named(sim()), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    assert_eq!(connect(&world, proxy.port), "");
    proxy.end();
}

/// A user that no one is.
const STRANGER: u32 = 12_345;
