//! Simulators as the tests want them.

use std::time::Duration;

use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, SessionState, Sim};

use super::PATIENCE;
use super::net::eventually;

/// With the real agent's pacing and the service's message limit.
pub fn sim() -> Sim {
    start(Config::default())
}

/// An agent that ignores input for a time after the handshake, as a real one may on a busy machine.
pub fn sim_that_listens_after(deaf_after_handshake: Duration) -> Sim {
    start(Config {
        agent: AgentOptions { deaf_after_handshake, ..AgentOptions::default() },
        ..Config::default()
    })
}

/// An older agent.
pub fn sim_with_agent(generation: Generation) -> Sim {
    start(Config { agent: AgentOptions { generation, ..AgentOptions::default() }, ..Config::default() })
}

/// With the agent of July 2026, which forwards to itself only where the document names no host.
pub fn sim_that_forbids_loopback() -> Sim {
    let agent = AgentOptions { version: Some("3.3.4851.0".to_owned()), ..AgentOptions::default() };
    start(Config { agent, ..Config::default() })
}

/// Neither pacing nor limit: as fast as it goes.
pub fn unpaced_sim() -> Sim {
    let agent = AgentOptions { pacing: false, ..AgentOptions::default() };
    start(Config { agent, message_limit: None, ..Config::default() })
}

/// A simulator of this kind.
#[track_caller]
pub fn start(config: Config) -> Sim {
    Sim::start(config).expect("start the simulator")
}

/// Waits until the plugin has sent this many more pings on a session that is at rest. With `SSM_PLUGIN_PING_INTERVAL=1` they
/// are seconds of its own time, so whatever it would do at rest within that time has happened.
#[track_caller]
pub fn await_pings(sim: &Sim, session: &str, count: u64) {
    let pings = || sim.session(session).expect("the session").pings;
    let enough = pings() + count;
    eventually("pings", || pings() >= enough);
}

/// Waits until every session is over at the service: none may be left open at AWS.
#[track_caller]
pub fn assert_all_ended(sim: &Sim) {
    let ended = sim.wait_for(PATIENCE, |sessions| {
        !sessions.is_empty() && sessions.iter().all(|session| session.state == SessionState::Ended)
    });
    assert!(ended, "a session is still open: {:#?}", sim.sessions());
}
