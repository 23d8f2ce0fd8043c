//! Runs a session's agent, and carries its frames to whichever client is connected.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use crate::agent::{self, AgentEnd, AgentSpec, FromGateway};
use crate::config::{Faults, Way};
use crate::frame::Kind;
use crate::session::Session;
use crate::shaper::Shaper;

/// Runs the session to its end.
pub(crate) async fn run(
    session: Arc<Session>,
    spec: AgentSpec,
    inbound: mpsc::Receiver<FromGateway>,
    faults: watch::Receiver<Faults>,
) {
    let mut over = session.over.subscribe();
    let output = tokio::select! {
        output = carry(&session, spec, inbound, faults) => output,
        _ = over.wait_for(|over| *over) => return,
    };
    session.end(&output, false).await;
}

/// Carries the agent's frames until it has ended and all have gone; returns what it says at its end.
async fn carry(
    session: &Arc<Session>,
    spec: AgentSpec,
    inbound: mpsc::Receiver<FromGateway>,
    faults: watch::Receiver<Faults>,
) -> String {
    let (outbound, mut frames) = mpsc::channel(FROM_AGENT);
    let counters = Arc::clone(&session.counters);
    let mut agent = Agent(tokio::spawn(agent::run(spec, inbound, outbound, counters)));
    let mut link = Shaper::new(faults, false, 0);
    let mut ended = false;
    while !ended || link.next_due().is_some() {
        let now = Instant::now();
        let due = link.next_due();
        tokio::select! {
            frame = frames.recv(), if !ended && link.has_room(now) => match frame {
                Some(frame) => {
                    let (kind, exceeded) = session.record(Way::Down, &frame);
                    if exceeded {
                        session.exceed();
                    }
                    // The service keeps this one for itself.
                    if kind != Some(Kind::AgentSessionState) && !link.push(frame, Instant::now()) {
                        session.lost(Way::Down);
                    }
                }
                None => ended = true,
            },
            () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            () = tokio::time::sleep(LOOK_AGAIN), if !link.has_room(now) => {}
        }
        while let Some(frame) = link.pop(Instant::now()) {
            session.deliver(frame).await;
        }
    }
    match (&mut agent.0).await {
        Ok(AgentEnd { output }) => output,
        Err(error) => {
            tracing::error!(session = session.id, %error, "agent failed");
            "agent failed".to_owned()
        }
    }
}

/// Ends the agent with its session.
struct Agent(JoinHandle<AgentEnd>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Bound of the frames waiting for the gateway.
const FROM_AGENT: usize = 64;

/// A full link is looked at again after this.
pub(crate) const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);
