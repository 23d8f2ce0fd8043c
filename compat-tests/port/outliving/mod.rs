//! A forwarded port that outlives its session (`SSM_PLUGIN_RESTART`).

mod cut_off;
mod starts;

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};
use ssm_sim::{ResumePolicy, SessionReport, SessionState, Sim};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{Server, connect, echo_through, eventually, opened_port};
use crate::harness::process::{Running, has_usr1};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{assert_all_ended, sim, sim_with_agent};

/// A port that outlives its sessions.
struct Port {
    plugin: Running,
    port: u16,
    first: String,
}

impl Port {
    #[track_caller]
    fn start(world: &mut World, started: &Started) -> Port {
        world.set("SSM_PLUGIN_RESTART", "1");
        world.set("SSM_PLUGIN_STATUS", "always");
        world.set("SSM_PLUGIN_PING_INTERVAL", "1");
        let plugin = Running::spawn_without_stdin(&mut started.command(world));
        let port = opened_port(&plugin.stdout);
        Port { plugin, port, first: started.id().to_owned() }
    }

    /// A port whose destination is this server.
    #[track_caller]
    fn to(server: &Server, world: &mut World, sim: &Sim) -> Port {
        Port::start(world, &Started::port(&sim.endpoint(), server.port(), 0))
    }

    /// Ends the first session at the service, and waits until that is reported.
    #[track_caller]
    fn end_session(&self, sim: &Sim) {
        sim.close_session(&self.first, "");
        self.plugin.stderr.wait_for(" ended (");
    }

    /// Ends the port; its stdout and stderr.
    #[track_caller]
    fn end(self) -> (String, String) {
        self.plugin.signal(Signal::INT);
        let finished = self.plugin.finish();
        finished.assert_ok();
        (finished.text(), finished.errors())
    }
}

/// The session that is not over, other than the first.
#[track_caller]
fn living(sim: &Sim, first: &str) -> String {
    let is_living = |session: &SessionReport| session.state != SessionState::Ended && session.id != first;
    let living: Vec<_> = sim.sessions().into_iter().filter(is_living).collect();
    match living.as_slice() {
        [one] => one.id.clone(),
        other => panic!("not one session: {other:#?}"),
    }
}

/// Closed without an answer.
#[track_caller]
fn assert_closed(stream: &mut TcpStream) {
    let answer = uninterrupted(|| stream.read(&mut [0; 1]));
    assert!(
        matches!(&answer, Ok(0))
            || answer.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{answer:?}"
    );
}

fn three_ends(sessions: usize) {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_SESSIONS", &sessions.to_string());
    let port = Port::to(&echo, &mut world, &sim);
    assert_eq!(echo_through(port.port, b"first"), b"first");
    let mut starts = sim.requests().start;
    // Idle; terminated from outside; the agent gone, and back after a while.
    for (round, output) in ["idle", "terminated", "agent"].into_iter().enumerate() {
        let mut open = connect(port.port);
        open.write_all(b"x").expect("write");
        open.read_exact(&mut [0; 1]).expect("read");
        // Additional sessions are started as connections need them, not before.
        let second = (sessions > 1).then(|| {
            let mut second = connect(port.port);
            // It has a session then; one that was still to be accepted would need another after the end of all.
            second.write_all(b"y").expect("write");
            second.read_exact(&mut [0; 1]).expect("read");
            eventually("another session for another connection", || sim.requests().start > starts);
            second
        });
        if output == "agent" {
            sim.refuse_starts(Some("TargetNotConnected"));
        }
        for session in sim.sessions() {
            if session.state != SessionState::Ended {
                sim.close_session(&session.id, output);
            }
        }
        port.plugin.stderr.wait_for(" ended (");
        assert_closed(&mut open);
        if let Some(mut second) = second {
            assert_closed(&mut second);
        }
        starts = sim.requests().start;
        if output == "agent" {
            let mut waiting = connect(port.port);
            waiting.write_all(b"waits").expect("write");
            port.plugin
                .stderr
                .wait_for("cannot start a session: ssm:StartSession failed: TargetNotConnected");
            eventually("it is tried again", || sim.requests().start >= starts + 3);
            sim.refuse_starts(None);
            let mut answer = [0; 5];
            waiting.read_exact(&mut answer).expect("the connection gets its session");
            assert_eq!(&answer, b"waits");
            // The whole of it: half-close, the answer, the end.
            drop(waiting);
        }
        let text = format!("round {round}");
        assert_eq!(echo_through(port.port, text.as_bytes()), text.as_bytes());
        if output != "agent" && sessions == 1 {
            assert_eq!(sim.requests().start, starts + 1);
        }
        starts = sim.requests().start;
    }
    let first = port.first.clone();
    let (text, errors) = port.end();
    assert_eq!(text.matches("Starting session with SessionId").count(), 1, "{text}");
    assert_eq!(text.matches(" opened for sessionId").count(), 1, "{text}");
    assert_eq!(text.matches("Connection accepted for session").count(), 1, "{text}");
    let last =
        format!("Terminate signal received, exiting.\n\n\nExiting session with sessionId: {first}.\n\n");
    assert!(text.ends_with(&last), "{text}");
    assert!(errors.matches(" ended (").count() >= 3, "{errors}");
    assert_all_ended(&sim);
}

/// A connection that has its session.
#[track_caller]
fn echoed(port: u16) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(b"x").expect("write");
    stream.read_exact(&mut [0; 1]).expect("read");
    stream
}

#[test]
fn three_ends_of_a_session() {
    three_ends(1);
}

#[test]
fn three_ends_of_several_sessions() {
    three_ends(4);
}

/// smp#135, smp#136: the service has ended the session while we were away.
#[test]
fn a_session_that_cannot_be_resumed() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    let port = Port::to(&echo, &mut world, &sim);
    assert_eq!(echo_through(port.port, b"before"), b"before");
    sim.set_resume(ResumePolicy::TimedOut);
    sim.cut(&port.first);
    port.plugin.stderr.wait_for(" ended (the session has timed out); the next connection starts a new one\n");
    assert_eq!(echo_through(port.port, b"after"), b"after");
    let living = living(&sim, &port.first);
    if has_usr1() {
        port.plugin.signal(Signal::USR1);
        port.plugin.stderr.wait_for(&format!("session {living}: connected"));
    }
    port.end();
}

/// The same request as argv's, and none that the first session would have printed again.
#[test]
fn the_request_of_argv_is_repeated() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    sim.set_host("db.internal", "127.0.0.1");
    let parameters =
        json!({"host": ["db.internal"], "portNumber": [echo.port().to_string()], "localPortNumber": ["0"]});
    let document = "AWS-StartPortForwardingSessionToRemoteHost";
    let started = Started::at(&sim.endpoint(), Some(document), parameters);
    let port = Port::start(&mut world, &started);
    port.end_session(&sim);
    assert_eq!(echo_through(port.port, b"again"), b"again");
    let last = sim.sessions().pop().expect("a session");
    assert_eq!(last.document, document);
    port.end();
    assert_all_ended(&sim);
}

/// agent#261: the agent resolves the destination once for each session.
#[test]
#[cfg_attr(target_os = "macos", ignore = "of 127.0.0.0/8 only 127.0.0.1 is an address there")]
fn a_database_that_has_moved_is_found_again() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    // There is no listener: the old address.
    sim.set_host("db.internal", "127.0.0.9");
    let parameters =
        json!({"host": ["db.internal"], "portNumber": [echo.port().to_string()], "localPortNumber": ["0"]});
    let document = "AWS-StartPortForwardingSessionToRemoteHost";
    let started = Started::at(&sim.endpoint(), Some(document), parameters);
    let port = Port::start(&mut world, &started);
    let mut refused = connect(port.port);
    refused.write_all(b"x").expect("write");
    assert_closed(&mut refused);
    drop(refused);
    port.plugin.stdout.wait_for("Connection to destination port failed, check SSM Agent logs.\n");
    sim.set_host("db.internal", "127.0.0.1");
    eventually("the next connection finds it", || {
        let mut stream = connect(port.port);
        stream.write_all(b"y").is_ok() && matches!(uninterrupted(|| stream.read(&mut [0; 1])), Ok(1))
    });
    assert!(sim.requests().start <= 3, "{} sessions", sim.requests().start);
    port.end();
    assert_all_ended(&sim);
}

#[test]
fn without_it_the_end_of_the_session_is_the_end() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = opened_port(&plugin.stdout);
    assert_eq!(echo_through(port, b"x"), b"x");
    sim.close_session(started.id(), "idle");
    let finished = plugin.finish();
    finished.assert_ok();
    assert!(finished.text().ends_with(&format!("\n\nSessionId: {} : idle\n\n", started.id())));
    assert_eq!(sim.requests().start, 1);
}

/// Callers that pass no request, and agents that carry one connection at a time: the port works, and one line says it.
#[test]
fn where_it_cannot_be() {
    let (mut world, echo) = (World::new(), Server::echo());
    let old = sim_with_agent(ssm_sim::agent::Generation::V3_0);
    let port = Port::start(&mut world, &Started::port(&old.endpoint(), echo.port(), 0));
    port.plugin.stderr.wait_for("require SSM Agent newer than 3.0.196.0\n");
    assert_eq!(echo_through(port.port, b"old"), b"old");
    port.end();

    let sim = sim();
    let mut started = Started::port(&sim.endpoint(), echo.port(), 0);
    started.request = Value::Null;
    world.set("SSM_PLUGIN_RESTART", "1");
    let mut command = world.plugin();
    command.args([&started.response.to_string(), crate::harness::REGION, "StartSession"]);
    let plugin = Running::spawn_without_stdin(&mut command);
    let port = opened_port(&plugin.stdout);
    plugin.stderr.wait_for("SSM_PLUGIN_RESTART has no effect");
    assert_eq!(echo_through(port, b"legacy"), b"legacy");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}
