//! The crate as a library: the example that forwards a port without the program.

use session_manager_plugin::Secret;
use session_manager_plugin::aws::StartSessionOutput;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::harness::api::Started;
use crate::harness::net::{Server, echo_through, random_bytes};
use crate::harness::sim::{assert_all_ended, sim};

#[path = "../examples/forward.rs"]
mod forward;

#[test]
fn the_example_forwards_connections() {
    let (sim, echo) = (sim(), Server::echo());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let field = |name: &str| started.response[name].as_str().expect(name).to_owned();
    let opened = StartSessionOutput {
        session_id: field("SessionId"),
        stream_url: field("StreamUrl"),
        token: Secret::new(field("TokenValue")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (stop, stopped) = oneshot::channel::<()>();
    let forwarding = runtime.spawn(forward::forward(opened, None, listener, async { drop(stopped.await) }));
    let clients: Vec<_> = (0..3)
        .map(|seed| {
            let bytes = random_bytes(seed, 100_000);
            std::thread::spawn(move || assert!(echo_through(port, &bytes) == bytes, "client {seed}"))
        })
        .collect();
    for client in clients {
        client.join().expect("client");
    }
    drop(stop);
    runtime.block_on(forwarding).expect("no panic").expect("no error");
    assert_all_ended(&sim);
}
