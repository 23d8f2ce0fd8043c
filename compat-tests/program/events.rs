//! JSON on stderr for tools (`SSM_PLUGIN_STATUS=json`).

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::Gateway;
use crate::harness::net::{Server, connect, echo_through, opened_port};
use crate::harness::process::{Finished, Running, has_usr1};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::wire::{self, Frame};

/// All lines of stderr, each of which must be an object with a time.
#[track_caller]
fn events(finished: &Finished) -> Vec<Value> {
    let events = finished.errors();
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for event in &events {
        let time = event["time"].as_str().unwrap_or_default();
        assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "of fixed width: {event}");
    }
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect()
}

/// A shell that exits: its agent disconnects shortly before the service closes the channel.
#[test]
fn a_pause_right_before_the_end_is_not_reported() {
    let gateway = Gateway::scripted(|socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "$ ");
        socket.acknowledged(number);
        socket.send(&Frame::control("pause_publication", ""));
        std::thread::sleep(Duration::from_millis(50));
        socket.close("");
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = plugin.take_stdin();
    let events = events(&plugin.finish());
    assert_eq!(names(&events), ["opening", "ready", "end"]);
}

#[test]
fn the_life_of_a_port() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_RESTART", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = opened_port(&plugin.stdout);
    let mut stream = connect(port);
    let from = stream.local_addr().expect("address").to_string();
    stream.write_all(b"hello").expect("write");
    stream.read_exact(&mut [0; 5]).expect("read");
    sim.cut(started.id());
    plugin.stderr.wait_for("\"resumed\"");
    stream.write_all(b"again").expect("write");
    stream.read_exact(&mut [0; 5]).expect("read");
    drop(stream);
    plugin.stderr.wait_for("\"connection_closed\"");
    sim.close_session(started.id(), "idle");
    plugin.stderr.wait_for("\"session_ended\"");
    assert_eq!(echo_through(port, b"new"), b"new");
    plugin.stderr.wait_for("\"connection_closed\"");
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    let events = events(&finished);
    let expected = [
        "opening",
        "ready",
        "connection_opened",
        "lost",
        "resumed",
        "connection_closed",
        "session_ended",
        "connection_opened",
        "session_started",
        "connection_closed",
        "end",
    ];
    assert_eq!(names(&events), expected);
    let id = started.id();
    assert_eq!((&events[0]["session"], &events[1]["session"]), (&id.into(), &id.into()));
    assert_eq!((&events[1]["kind"], &events[1]["port"]), (&"port".into(), &port.into()));
    assert_eq!((&events[2]["connection"], &events[2]["from"]), (&1.into(), &from.into()));
    assert!(events[3]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let closed = &events[5];
    assert_eq!(
        (&closed["connection"], &closed["sent"], &closed["received"]),
        (&1.into(), &10.into(), &10.into())
    );
    assert!(closed["seconds"].is_f64());
    assert_eq!((&events[6]["session"], &events[6]["reason"]), (&id.into(), &"idle".into()));
    assert!(events[8]["session"].as_str().is_some_and(|other| other != id));
    assert_eq!((&events[10]["cause"], &events[10]["reason"]), (&"interrupted".into(), &"".into()));
    assert!(!finished.text().contains("\"event\""), "on stdout: {}", finished.text());
    let secrets = sim.secrets();
    let errors = finished.errors();
    let is_secret =
        |secret: &Vec<u8>| std::str::from_utf8(secret).is_ok_and(|secret| errors.contains(secret));
    assert!(!secrets.iter().any(is_secret), "a secret: {errors}");
    assert_all_ended(&sim);
}

#[test]
fn forwards_proxies_and_mistakes_are_objects_too() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_SOCKS", "0");
    world.set("SSM_PLUGIN_FORWARD", "nonsense 0:db.internal:5432");
    world.set("SSM_PLUGIN_NONSENSE", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    opened_port(&plugin.stdout);
    plugin.stderr.wait_for("\"socks\"");
    if has_usr1() {
        plugin.signal(Signal::USR1);
        plugin.stderr.wait_for("db.internal:5432: no session");
    }
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    let events = events(&finished);
    let failures = |events: &[Value]| events.iter().filter(|event| event["event"] == "failure").count();
    assert!(failures(&events) >= 2, "{events:#?}");
    let ready: Vec<_> = events.iter().filter(|event| event["event"] == "ready").collect();
    let kinds: Vec<_> = ready.iter().map(|event| event["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["port", "forward", "socks"]);
    assert_eq!(ready[1]["destination"], "db.internal:5432");
    assert!(ready.iter().all(|event| event["port"].is_u64()), "{ready:#?}");
}

/// Events of an additional session name it, so that tools can tell whose connections are concerned.
#[test]
fn events_of_an_additional_session_name_it_and_its_destination() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    sim.set_host("db.internal", "127.0.0.1");
    sim.set_host("web.internal", "127.0.0.1");
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_SOCKS", "0");
    world.set("SSM_PLUGIN_FORWARD", &format!("0:db.internal:{}", echo.port()));
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let main = opened_port(&plugin.stdout);
    let mut ports = [0; 2];
    for (kind, port) in ["forward", "socks"].into_iter().zip(&mut ports) {
        plugin.stderr.wait_for(&format!("\"kind\":\"{kind}\",\"port\":"));
        let number = plugin.stderr.wait_for("\n");
        let digits = number.find(|c: char| !c.is_ascii_digit()).expect("an object goes on");
        *port = number[..digits].parse().expect("a port");
    }
    let mut proxied = connect(ports[1]);
    let mut connections = [connect(main), connect(ports[0])];
    for stream in &mut connections {
        stream.write_all(b"x").expect("write");
        stream.read_exact(&mut [0]).expect("read");
    }
    proxied.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x0cweb.internal").expect("write");
    proxied.write_all(&echo.port().to_be_bytes()).expect("write");
    proxied.read_exact(&mut [0; 12]).expect("a reply");
    let sessions = sim.sessions();
    assert_eq!(sessions.len(), 3);
    for (before, session) in sessions.iter().enumerate() {
        let reported = |name: &str| {
            let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches(name).count();
            plugin.stderr.wait_until(name, |bytes| count(bytes) > before);
        };
        sim.cut(&session.id);
        reported("\"resumed\"");
        sim.pause(&session.id, true);
        reported("\"paused\"");
        sim.pause(&session.id, false);
        reported("\"unpaused\"");
    }
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    let events = events(&finished);
    let destinations: [Value; 3] = [
        Value::Null,
        format!("db.internal:{}", echo.port()).into(),
        format!("web.internal:{}", echo.port()).into(),
    ];
    for name in ["lost", "resumed", "paused", "unpaused"] {
        let found: Vec<_> = events.iter().filter(|event| event["event"] == name).collect();
        assert_eq!(found.len(), 3, "{name}: {events:#?}");
        for ((event, session), destination) in found.into_iter().zip(&sessions).zip(&destinations) {
            assert_eq!(
                (&event["session"], &event["destination"]),
                (&session.id.as_str().into(), destination)
            );
        }
    }
    assert_all_ended(&sim);
}

/// One event when the sessions behind a port are complete, however often one of them is replaced.
#[test]
fn sessions_behind_a_port_are_reported_once() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_SESSIONS", "4");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    opened_port(&plugin.stdout);
    plugin.stderr.wait_for("\"sessions_ready\",\"sessions\":4");
    let other = sim.sessions().into_iter().find(|session| session.id != started.id()).expect("another");
    sim.close_session(&other.id, "idle");
    plugin.stderr.wait_until("a fifth", |bytes| {
        String::from_utf8_lossy(bytes).matches("\"session_started\"").count() == 4
    });
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    let events = events(&finished);
    assert_eq!(names(&events).iter().filter(|name| **name == "sessions_ready").count(), 1, "{events:#?}");
    assert_all_ended(&sim);
}

/// Everything that goes wrong before the session: each line is JSON.
#[test]
fn a_log_that_cannot_be_written_and_wrong_settings_are_json() {
    let gateway = Gateway::scripted(|socket| socket.close(""));
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    world.set("SSM_PLUGIN_LOG", "info");
    world.set("SSM_PLUGIN_LOG_FILE", "/proc/nowhere/log");
    world.set("SSM_PLUGIN_WIRE_LOG", "/proc/nowhere/wire");
    world.set("SSM_PLUGIN_WINDOW", "much");
    world.set("SSM_PLUGIN_WIDNOW", "1");
    let finished = Running::spawn_without_stdin(&mut Started::of(&gateway).command(&world)).finish();
    let events = events(&finished);
    let failures = names(&events).iter().filter(|name| **name == "failure").count();
    assert_eq!(failures, 4, "{events:#?}");
}

#[test]
fn a_session_that_does_not_start() {
    let (mut world, sim) = (World::new(), sim());
    world.set("SSM_PLUGIN_STATUS", "json");
    let mut started = Started::port(&sim.endpoint(), 1, 0);
    started.response["StreamUrl"] = "wss://example.com/v1".into();
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    finished.assert_ok();
    let events = events(&finished);
    assert_eq!(names(&events), ["opening", "end"]);
    assert_eq!(events[1]["cause"], "not_started");
    assert!(events[1]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
}
