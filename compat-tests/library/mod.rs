//! The crate as a library, in the process of the tests.

mod command;
mod ends;
mod example;
mod features;
mod port;

use session_manager_plugin::Forward;
use session_manager_plugin::forward::{Credentials, Event, Events, ForwardBuilder};
use ssm_sim::Sim;
use tokio::runtime::Runtime;

use crate::harness::{PATIENCE, REGION, TARGET};

/// A port through the simulator, which knows `localhost` as the test's machine.
fn builder(sim: &Sim, port: u16) -> ForwardBuilder {
    Forward::builder(TARGET)
        .credentials(credentials())
        .region(REGION)
        .endpoint_url(sim.endpoint())
        .to("localhost", port)
}

fn credentials() -> Credentials {
    Credentials::new("AKIAIOSFODNN7EXAMPLE", "secret", None, None, "test")
}

/// Forwards on a free port of loopback for the time of `test`, then shuts down.
#[track_caller]
fn with_port(builder: ForwardBuilder, test: impl FnOnce(&Forward, u16)) {
    let forward = block_on(builder.listen("127.0.0.1:0").start()).expect("a port");
    let port = forward.local_addr().expect("an address").port();
    test(&forward, port);
    block_on(forward.shutdown());
}

/// Runs a future, within the tests' patience.
#[track_caller]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let bounded = async { tokio::time::timeout(PATIENCE, future).await };
    runtime().block_on(bounded).expect("in time")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Waits for an event.
#[track_caller]
fn await_event(events: &mut Events, is_wanted: impl Fn(&Event) -> bool) -> Event {
    block_on(async {
        loop {
            let event = events.next().await.expect("an event before the end");
            if is_wanted(&event) {
                return event;
            }
        }
    })
}
