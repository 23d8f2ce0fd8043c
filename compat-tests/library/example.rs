//! The example that forwards a port, which takes everything from the environment.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::net::{Server, echo_through, eventually};
use crate::harness::process::{Running, Signal, run};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::{TARGET, World};

fn example(world: &World, port: u16) -> Command {
    let test = std::env::current_exe().expect("this program");
    let folder = test.parent().and_then(|deps| deps.parent()).map(PathBuf::from).expect("its folder");
    let program = folder.join("examples/forward");
    assert!(program.exists(), "{} is missing: run cargo build --example forward", program.display());
    let mut command = world.command(program);
    command.args([TARGET, &port.to_string(), "0"]);
    command
}

#[test]
fn it_forwards_connections_and_the_library_prints_nothing() {
    let (sim, echo) = (sim(), Server::echo());
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    let running = Running::spawn_without_stdin(&mut example(&world, echo.port()));
    let line = running.stdout.wait_for(" goes to port ");
    let port = line.split(' ').next().and_then(|at| at.rsplit(':').next()?.parse().ok()).expect("a port");
    assert_eq!(echo_through(port, b"one"), b"one");
    let id = sim.sessions()[0].id.clone();
    sim.cut(&id);
    eventually("the session is resumed", || sim.requests().resume == 1);
    sim.close_session(&id, "idle");
    eventually("the next session carries a connection", || {
        let Ok(mut client) = TcpStream::connect(("127.0.0.1", port)) else { return false };
        client.write_all(b"two").is_ok() && client.read_exact(&mut [0; 3]).is_ok()
    });
    running.signal(Signal::INT);
    let finished = running.finish();
    finished.assert_ok();
    assert_eq!((finished.text().matches('\n').count(), finished.errors().as_str()), (1, ""));
    assert_all_ended(&sim);
    sim.refuse_starts(Some("AccessDeniedException"));
    let errors = run(&mut example(&world, echo.port())).errors();
    assert!(errors.starts_with("Error: AccessDenied(") && errors.matches('\n').count() == 1, "{errors}");
}
