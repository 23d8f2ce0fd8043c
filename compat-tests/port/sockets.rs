//! Forwarding to a local UNIX socket.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;
use ssm_sim::{Config, CustomDocument, Sim};

use crate::harness::api::Started;
use crate::harness::net::Server;
use crate::harness::process::Running;
use crate::harness::sim::{assert_all_ended, start};
use crate::harness::{PATIENCE, World};

/// A simulator whose document `Socket` forwards `socket` to `port`.
#[track_caller]
fn sim(socket: &Path, port: u16) -> Sim {
    let properties = json!({"type": "LocalPortForwarding", "portNumber": port.to_string(),
        "localConnectionType": "unix", "localUnixSocket": socket.display().to_string()});
    let serde_json::Value::Object(properties) = properties else { unreachable!("an object") };
    let documents = [("Socket".to_owned(), CustomDocument::Port { properties })].into();
    start(Config { documents, ..Config::default() })
}

/// A plugin that forwards the simulator's socket, and listens.
#[track_caller]
fn forward(world: &World, sim: &Sim) -> (Started, Running) {
    let started = Started::at(&sim.endpoint(), Some("Socket"), json!({}));
    let plugin = Running::spawn_without_stdin(&mut started.command(world));
    plugin.stdout.wait_for("Waiting for connections...\n");
    (started, plugin)
}

#[track_caller]
fn echoes(socket: &Path) {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"through a socket").expect("write");
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"through a socket");
}

#[test]
fn it_is_the_owner_s_and_removed_at_the_end() {
    let (world, echo) = (World::new(), Server::echo());
    let socket = world.path("db.sock");
    let sim = sim(&socket, echo.port());
    let (started, plugin) = forward(&world, &sim);
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may connect: {mode:o}");
    echoes(&socket);
    plugin.stdout.wait_for("Connection accepted");
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    let (id, path) = (started.id(), socket.display());
    let expected = format!(
        "\nStarting session with SessionId: {id}\nUnix socket {path} opened for sessionId {id}.\n\
         Waiting for connections...\n\nConnection accepted for session [{id}]\nTerminate signal received, exiting.\n\
         \n\nExiting session with sessionId: {id}.\n\n"
    );
    assert_eq!(finished.text(), expected);
    assert!(!socket.exists(), "the socket is left behind");
    assert_all_ended(&sim);
}

/// Left behind by a process that was killed.
#[test]
fn one_without_a_listener_is_replaced() {
    let (world, echo) = (World::new(), Server::echo());
    let socket = world.path("db.sock");
    drop(UnixListener::bind(&socket).expect("bind"));
    assert!(socket.exists(), "the standard library leaves it behind");
    let sim = sim(&socket, echo.port());
    let (_, plugin) = forward(&world, &sim);
    echoes(&socket);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert!(!socket.exists(), "the socket is left behind");
}

/// Another program's socket, or something else of this name: not ours to remove.
#[test]
fn what_is_in_use_or_no_socket_stays() {
    let (world, echo) = (World::new(), Server::echo());
    let (used, file) = (world.path("used.sock"), world.path("file"));
    let listener = UnixListener::bind(&used).expect("bind");
    std::fs::write(&file, "precious").expect("write");
    for path in [&used, &file] {
        let sim = sim(path, echo.port());
        let started = Started::at(&sim.endpoint(), Some("Socket"), json!({}));
        let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
        finished.assert_ok();
        let line = format!(
            "Cannot perform start session: listen unix {}: bind: address already in use\n",
            path.display()
        );
        assert!(finished.text().ends_with(&line), "{:?}", finished.text());
        assert_all_ended(&sim);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "precious");
    assert!(std::fs::metadata(&used).expect("the socket").file_type().is_socket());
    UnixStream::connect(&used).expect("its owner still listens");
    drop(listener);
}

/// The system would make an abstract socket of them, which every user can open.
#[test]
fn a_path_that_is_no_file_s_name_is_refused() {
    let (world, echo) = (World::new(), Server::echo());
    for path in ["", "\0abstract", "a\0b"] {
        let sim = sim(Path::new(path), echo.port());
        let started = Started::at(&sim.endpoint(), Some("Socket"), json!({}));
        let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
        finished.assert_ok();
        let line = format!(
            "Cannot perform start session: listen unix {path:?}: the path is empty or contains NUL\n"
        );
        assert!(finished.text().ends_with(&line), "{:?}", finished.text());
        assert_all_ended(&sim);
    }
}

/// Another has been put in its place.
#[test]
fn another_s_socket_of_the_same_name_is_left_at_the_end() {
    let (world, echo) = (World::new(), Server::echo());
    let socket = world.path("db.sock");
    let sim = sim(&socket, echo.port());
    let (_, plugin) = forward(&world, &sim);
    let other = world.path("other.sock");
    let _listener = UnixListener::bind(&other).expect("bind");
    std::fs::rename(&other, &socket).expect("put it there");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert!(socket.exists(), "another's socket was removed");
}
