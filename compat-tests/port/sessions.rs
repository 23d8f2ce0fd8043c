//! Several sessions behind one forwarded port (`SSM_PLUGIN_SESSIONS`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, SessionReport, SessionState, Sim};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{Server, connect, echo_through, eventually, opened_port, random_bytes};
use crate::harness::process::{Running, Signal};
use crate::harness::sim::{assert_all_ended, sim, start};
use crate::harness::{PATIENCE, World};

/// A forwarded port that asks for so many sessions.
struct Forward {
    plugin: Running,
    port: u16,
    first: String,
}

impl Forward {
    #[track_caller]
    fn start(world: &mut World, sim: &Sim, port: u16, sessions: usize) -> Forward {
        world.set("SSM_PLUGIN_SESSIONS", &sessions.to_string());
        world.set("SSM_PLUGIN_STATUS", "always");
        let started = Started::port(&sim.endpoint(), port, 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(world));
        let port = opened_port(&plugin.stdout);
        Forward { plugin, port, first: started.id().to_owned() }
    }

    #[track_caller]
    fn end(self) -> String {
        self.plugin.signal(Signal::INT);
        let finished = self.plugin.finish();
        finished.assert_ok();
        finished.errors()
    }
}

/// Waits until so many sessions are connected and their handshakes over.
#[track_caller]
fn assert_up(sim: &Sim, count: usize) {
    let is_up = |session: &&SessionReport| {
        // The handshake's answer, and the agent's end of it.
        session.state == SessionState::Connected && session.up.messages > 0 && session.down.messages > 1
    };
    let up = sim.wait_for(PATIENCE, |sessions| sessions.iter().filter(is_up).count() == count);
    assert!(up, "not {count} sessions: {:#?}", sim.sessions());
}

/// Connections that stay open, each proved by an echo.
#[track_caller]
fn connections(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|number| {
            let mut stream = connect(port);
            let sent = random_bytes(number as u64, 3000);
            stream.write_all(&sent).expect("write");
            let mut answer = vec![0; sent.len()];
            stream.read_exact(&mut answer).expect("read");
            assert!(answer == sent, "connection {number} got other bytes");
            stream
        })
        .collect()
}

#[test]
fn one_session_by_default() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = opened_port(&plugin.stdout);
    drop(connections(port, 3));
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_eq!(sim.requests().start, 1);
}

#[test]
fn connections_are_spread_over_the_sessions_and_all_end_together() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&mut world, &sim, echo.port(), 4);
    assert_up(&sim, 4);
    assert_eq!(
        sim.requests().start,
        4,
        "each is a StartSession in the audit log, and no more than asked for"
    );
    let before: Vec<u64> = sim.sessions().iter().map(|session| session.up.bytes).collect();
    let open = connections(forward.port, 8);
    for (session, before) in sim.sessions().iter().zip(before) {
        let moved = session.up.bytes - before;
        assert!((6000..9000).contains(&moved), "not two of eight connections: {moved} bytes, {session:#?}");
        assert_eq!(session.document, "AWS-StartPortForwardingSession", "started like the first");
    }
    drop(open);
    assert_eq!(forward.end(), "session-manager-plugin: 4 sessions share the port\n");
    assert_all_ended(&sim);
}

/// The point of it: each session has the service's limit for itself.
#[test]
fn four_sessions_move_more_than_one_may() {
    const SIZE: usize = 3_000_000;
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&mut world, &sim, echo.port(), 4);
    assert_up(&sim, 4);
    let port = forward.port;
    let transfers: Vec<_> = (0..4)
        .map(|seed| {
            let bytes = random_bytes(seed, SIZE / 4);
            std::thread::spawn(move || assert!(echo_through(port, &bytes) == bytes, "transfer {seed}"))
        })
        .collect();
    for transfer in transfers {
        transfer.join().expect("a transfer");
    }
    let sessions = sim.sessions();
    let messages: u64 = sessions.iter().map(|session| session.up.messages).sum();
    for session in &sessions {
        assert!(!session.limit_exceeded && session.up.peak_2s < 2000, "{session:#?}");
        assert!(session.up.messages < messages / 2, "one session carries more than half: {sessions:#?}");
    }
    forward.end();
    assert_all_ended(&sim);
}

#[test]
fn one_that_dies_is_reported_once_and_replaced() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&mut world, &sim, echo.port(), 2);
    assert_up(&sim, 2);
    let second = sim.sessions().into_iter().find(|session| session.id != forward.first).expect("a second");
    sim.close_session(&second.id, "ended by the administrator");
    forward.plugin.stderr.wait_for("continuing with 1 of 2 sessions: ");
    assert!(echo_through(forward.port, b"with one session") == b"with one session");
    assert_up(&sim, 2);
    assert_eq!(sim.sessions().len(), 3, "a third takes its place");
    drop(connections(forward.port, 4));
    let errors = forward.end();
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "session-manager-plugin: 2 sessions share the port"), "{errors}");
    assert_all_ended(&sim);
}

/// StartSession is refused (the user may start one session and no more): reported once, and the first continues.
#[test]
fn one_that_cannot_be_started_is_done_without() {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        socket.port_session("3.3.0.0");
        while socket.input().is_some() {}
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_SESSIONS", "3");
    world.set("SSM_PLUGIN_STATUS", "always");
    // Its API answers StartSession without a token or a URL.
    let plugin = Running::spawn_without_stdin(&mut Started::of(&gateway).command(&world));
    let port = opened_port(&plugin.stdout);
    let line = plugin.stderr.wait_for("\n");
    assert!(line.contains("continuing with 1 of 3 sessions: "), "{line}");
    drop(connect(port));
    plugin.stdout.wait_for("Connection accepted for session [");
    eventually("each has been tried", || {
        gateway.calls().iter().filter(|call| call.ends_with(".StartSession")).count() >= 2
    });
    assert_eq!(gateway.opens(), 1);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}

/// An agent that carries one connection at a time has no use for them.
#[test]
fn an_old_agent_gets_no_additional_sessions() {
    let agent = AgentOptions { generation: Generation::V3_0, ..AgentOptions::default() };
    let (sim, echo) = (start(Config { agent, ..Config::default() }), Server::echo());
    let forward = Forward::start(&mut World::new(), &sim, echo.port(), 4);
    assert!(echo_through(forward.port, b"alone") == b"alone");
    forward.end();
    assert_eq!(sim.requests().start, 1);
    assert_all_ended(&sim);
}

/// Lines begin with the first session's id, as all of a process's do; those of an additional one name it as well.
#[test]
fn the_log_distinguishes_the_sessions() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let log = world.path("log");
    world.set("SSM_PLUGIN_LOG", "info");
    world.set("SSM_PLUGIN_LOG_FILE", &log.display().to_string());
    let forward = Forward::start(&mut world, &sim, echo.port(), 2);
    assert_up(&sim, 2);
    let first = forward.first.clone();
    let second = sim.sessions().into_iter().find(|session| session.id != first).expect("a second").id;
    let lost = |id: &str| {
        sim.session(id).is_some_and(|session| {
            session.opens.len() > 1 && session.state == SessionState::Connected && session.resumes > 0
        })
    };
    sim.cut(&first);
    eventually("the first is back", || lost(&first));
    sim.cut(&second);
    eventually("the second is back", || lost(&second));
    forward.end();
    let text = std::fs::read_to_string(&log).expect("the log");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("lost the websocket")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|line| line.contains(&first)), "{lines:#?}");
    assert!(!lines[0].contains(&second) && lines[1].contains(&second), "{lines:#?}");
}

fn count(gateway: &Gateway, operation: &str) -> usize {
    gateway.calls().iter().filter(|call| call.ends_with(operation)).count()
}

/// A gateway whose first websocket is a port session; the others get what `script` says.
fn first_is_fine(script: impl Fn(&mut Socket) + Send + Sync + 'static) -> Gateway {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    Gateway::scripted(move |socket: &mut Socket| {
        if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            socket.port_session("3.3.0.0");
            while socket.input().is_some() {}
        } else {
            script(socket);
        }
    })
}

/// StartSession was sent, so there will be a session, even if no one waits for it any more.
#[test]
fn one_that_is_being_started_at_the_end_is_ended_too() {
    let gateway = first_is_fine(|_| {});
    gateway.start_sessions_after(Duration::from_millis(700));
    let mut world = World::new();
    world.set("SSM_PLUGIN_SESSIONS", "3");
    let plugin = Running::spawn_without_stdin(&mut Started::of(&gateway).command(&world));
    opened_port(&plugin.stdout);
    eventually("both are being started", || count(&gateway, ".StartSession") == 2);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_eq!(count(&gateway, ".TerminateSession"), 2, "{:?}", gateway.calls());
}

#[test]
fn one_that_was_started_and_cannot_be_opened_is_ended() {
    let gateway = first_is_fine(|socket| while socket.input().is_some() {});
    gateway.start_sessions_after(Duration::ZERO);
    let mut world = World::new();
    world.set("SSM_PLUGIN_SESSIONS", "2");
    world.set("SSM_PLUGIN_STATUS", "always");
    world.set("SSM_PLUGIN_HANDSHAKE_TIMEOUT", "1");
    let plugin = Running::spawn_without_stdin(&mut Started::of(&gateway).command(&world));
    opened_port(&plugin.stdout);
    plugin.stderr.wait_for("continuing with 1 of 2 sessions: ");
    eventually("it is ended", || count(&gateway, ".TerminateSession") == 1);
}

/// One session waits for the reader, the others do not.
#[test]
fn a_reader_that_stalls_holds_up_its_own_session_only() {
    const FLOOD: usize = 24 << 20;
    let server = Server::start(|mut stream| {
        let mut first = [0; 1];
        if stream.read_exact(&mut first).is_err() {
            return;
        }
        if first == *b"F" {
            let _ = stream.write_all(&vec![7; FLOOD]);
        } else {
            let _ = std::io::copy(&mut stream.try_clone().expect("clone"), &mut stream);
        }
    });
    let agent = AgentOptions { pacing: false, payload: 16 << 10, ..AgentOptions::default() };
    let config = Config { agent, message_limit: None, ..Config::default() };
    let (mut world, sim) = (World::new(), start(config));
    world.set("SSM_PLUGIN_BUFFER", &(8 << 20).to_string());
    let forward = Forward::start(&mut world, &sim, server.port(), 2);
    assert_up(&sim, 2);
    let mut stalled = connect(forward.port);
    stalled.write_all(b"F").expect("write");
    forward.plugin.stderr.wait_for("a local client is not reading");
    for round in 0..10u64 {
        let mut stream = connect(forward.port);
        let sent = random_bytes(round, 5000);
        stream.write_all(b"E").expect("write");
        stream.write_all(&sent).expect("write");
        let mut answer = vec![0; sent.len()];
        stream.read_exact(&mut answer).expect("an answer beside the stalled reader");
        assert!(answer == sent, "round {round}");
    }
    let mut flood = vec![0; FLOOD];
    stalled.read_exact(&mut flood).expect("the rest of the flood");
    assert!(flood.iter().all(|byte| *byte == 7));
    forward.end();
    assert_all_ended(&sim);
}
