//! Commands that `forward` runs.

use std::io::Read;

use super::*;
use ssm_sim::Sim;

use crate::harness::TARGET;
use crate::harness::net::Server;
use crate::harness::process::{Signal, run};
use crate::harness::sim::sim;

/// The system ends the command, and those that it has started, with the plugin's last handle on their job.
#[test]
#[ignore = "run by scripts/windows"]
fn when_the_plugin_is_killed_the_command_and_its_own_are_gone() {
    let (world, sim) = world();
    let (report, reports) = mpsc::channel();
    let server = Server::start(move |mut stream| {
        let _ = report.send("connected");
        let _ = stream.read(&mut [0]);
        let _ = report.send("gone");
    });
    let driver = install_driver(&world);
    let stays = format!("--connect={}", server.port());
    let mut plugin = forward(&world, &[&driver, "--no-console", &driver, &stays]);
    let running = Running::spawn_without_stdin(&mut plugin);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok("connected"), "{}", running.stderr.text());
    running.signal(Signal::KILL);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok("gone"));
    drop(sim);
}

/// 256 is no success, although its lowest byte is 0.
#[test]
#[ignore = "run by scripts/windows"]
fn the_status_of_the_command_is_ours() {
    let (world, sim) = world();
    for (status, ours) in [("0", 0), ("7", 7), ("256", 255), ("-1073741510", 0x3a)] {
        let finished = run(&mut forward(&world, &["cmd", "/c", &format!("echo {{port}}&exit {status}")]));
        assert_eq!(finished.status.code(), Some(ours), "{status}: {}", finished.errors());
        let port = finished.text().trim().parse::<u16>();
        assert!(port.is_ok_and(|port| port > 0), "{:?}", finished.text());
    }
    assert!(sim.sessions().is_empty(), "no connection, no session");
}

/// A world in which the simulator is AWS.
fn world() -> (World, Sim) {
    let (mut world, sim) = (World::new(), sim());
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    (world, sim)
}

/// `forward` with a port and this command.
fn forward(world: &World, command: &[&str]) -> Command {
    let mut plugin = world.plugin();
    plugin.args(["forward", "-q", TARGET, "0:db.internal:1", "--"]).args(command);
    plugin
}

/// The driver in the world's folder, as a command on Windows.
fn install_driver(world: &World) -> String {
    let program = world.path(DRIVER);
    std::fs::copy(required(variable("CONSOLE_DRIVER")), &program).expect("copy the driver");
    on_windows(&program)
}
