//! Ending a session at the service.

use std::time::{Duration, Instant};

use serde_json::json;
use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, DEFAULT_TARGET};

use super::{Call, Forward, strict, strict_sim, world_without_credentials};
use crate::harness::World;
use crate::harness::net::{Server, echo_through};
use crate::harness::process::{Running, Signal};
use crate::harness::pty::Pty;
use crate::harness::sim::{assert_all_ended, sim, start};

const TASK: &str = "ecs:MyCluster_0123456789abcdef_0123456789abcdef-2531612879";

/// A plain shell has no handshake, so what its agent understands is not known.
#[test]
fn plain_shell_is_ended_by_the_api() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (world, sim) = (World::new(), strict_sim());
        let call = Call::shell(&sim);
        let plugin = Running::spawn(&mut call.plugin(&world));
        sim.wait_for(crate::harness::PATIENCE, |sessions| sessions[0].agent.messages_down > 0);
        plugin.signal(signal);
        let begin = Instant::now();
        plugin.finish().assert_ok();
        assert!(begin.elapsed() < Duration::from_secs(4), "took {:?}", begin.elapsed());
        assert!(sim.terminated(call.id()), "{signal:?}");
        assert_all_ended(&sim);
    }
}

#[test]
fn escape_ends_a_plain_shell_by_the_api() {
    let (world, sim) = (World::new(), sim());
    let call = Call::shell(&sim);
    let mut pty = Pty::spawn(&call.plugin(&world));
    pty.wait_for("Starting session");
    sim.wait_for(crate::harness::PATIENCE, |sessions| sessions[0].agent.messages_down > 0);
    pty.send("\r~.");
    pty.finish();
    assert!(sim.terminated(call.id()));
}

#[test]
fn agent_that_understands_the_flag_gets_it() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    forward.plugin.signal(Signal::TERM);
    forward.plugin.finish().assert_ok();
    assert_all_ended(&sim);
    assert_eq!(sim.requests().terminate, 0);
}

#[test]
fn old_agent_is_ended_by_the_api() {
    let (world, echo) = (World::new(), Server::echo());
    let agent = AgentOptions { generation: Generation::V2_3, ..AgentOptions::default() };
    let sim = start(Config { agent, ..strict() });
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    forward.plugin.signal(Signal::TERM);
    forward.plugin.finish().assert_ok();
    assert!(sim.terminated(&forward.id));
}

#[test]
fn service_that_does_not_answer_holds_the_end_up_for_two_seconds() {
    let (world, sim) = (World::new(), sim());
    let call = Call { endpoint: silent_endpoint(), ..Call::shell(&sim) };
    let plugin = Running::spawn(&mut call.plugin(&world));
    sim.wait_for(crate::harness::PATIENCE, |sessions| sessions[0].agent.messages_down > 0);
    let begin = Instant::now();
    plugin.signal(Signal::TERM);
    plugin.finish().assert_ok();
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
}

/// Takes connections and says nothing; lives as long as the tests.
fn silent_endpoint() -> String {
    let server = Server::start(|stream| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let endpoint = format!("http://127.0.0.1:{}", server.port());
    std::mem::forget(server);
    endpoint
}

/// `aws ecs execute-command` hands over the endpoint of ECS, which knows neither Resume- nor TerminateSession.
#[test]
fn task_is_resumed_and_ended_at_the_endpoint_of_ssm() {
    let mut world = World::new();
    let sim = start(Config { targets: vec![DEFAULT_TARGET.to_owned(), TASK.to_owned()], ..strict() });
    world.set("AWS_ENDPOINT_URL_SSM", &sim.endpoint());
    let ecs = "https://ecs.us-east-1.amazonaws.com".to_owned();
    let call = Call { endpoint: ecs, ..Call::new(&sim, json!({ "Target": TASK })) };
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    sim.wait_for(crate::harness::PATIENCE, |sessions| sessions[0].agent.messages_down > 0);
    sim.cut(call.id());
    plugin.send("echo a$((40+2))z\n");
    plugin.stdout.wait_for("a42z");
    assert_eq!(sim.requests().resume, 1);
    plugin.signal(Signal::TERM);
    plugin.finish().assert_ok();
    assert!(sim.terminated(call.id()));
}

#[test]
fn without_credentials_the_end_is_not_held_up() {
    let (world, sim, echo) = (world_without_credentials(), sim(), Server::echo());
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(echo_through(forward.port, b"x"), b"x");
    let begin = Instant::now();
    forward.plugin.signal(Signal::TERM);
    forward.plugin.finish().assert_ok();
    assert!(begin.elapsed() < Duration::from_secs(4), "took {:?}", begin.elapsed());
}
