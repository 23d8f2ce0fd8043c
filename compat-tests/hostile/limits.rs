//! Limits of the system on what a process may do: files, threads, descriptors.

use std::process::Command;

use serde_json::json;

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{Server, echo_through, eventually, opened_port};
use crate::harness::process::{Finished, Running, Signal};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::wire;

/// `plugin` as the shell starts it after `line`.
fn after(line: &str, world: &World, plugin: &Command) -> Command {
    let mut command = world.shell(&format!("{line}; exec \"$0\" \"$@\""));
    command.arg(plugin.get_program()).args(plugin.get_args());
    command.envs(plugin.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// One run with at most `limit` open files.
#[track_caller]
fn run_with_descriptors(limit: usize) -> Finished {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        socket.close("");
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    let plugin = Started::of(&gateway).command(&world);
    Running::spawn_without_stdin(&mut after(&format!("ulimit -n {limit}"), &world, &plugin)).finish()
}

#[test]
fn too_few_descriptors_are_reported_in_one_line() {
    for limit in 4..=22 {
        let finished = run_with_descriptors(limit);
        finished.assert_ok();
        let (text, errors) = (finished.text(), finished.errors());
        assert_eq!(errors, "", "{limit}");
        let failures = text.lines().filter(|line| line.starts_with("Cannot perform start session: "));
        let failures: Vec<&str> = failures.collect();
        let is_understood = match failures.as_slice() {
            [] => text.contains("hello\r\n"),
            [line] => line.contains("Too many open files"),
            _ => false,
        };
        assert!(is_understood, "{limit}: {text:?}");
    }
}

/// The system's answer to a write beyond the limit is a signal that ends a process (SIGXFSZ).
#[test]
fn a_limit_on_the_size_of_files_ends_the_logs_and_not_the_session() {
    let sim = sim();
    let echo = Server::echo();
    let mut world = World::new();
    world.set("SSM_PLUGIN_WIRE_LOG", &world.path("wire").display().to_string());
    world.set("SSM_PLUGIN_LOG", "trace");
    world.set("SSM_PLUGIN_LOG_FILE", &world.path("log").display().to_string());
    let plugin = Started::port(&sim.endpoint(), echo.port(), 0).command(&world);
    let plugin = Running::spawn_without_stdin(&mut after("ulimit -f 1", &world, &plugin));
    let port = opened_port(&plugin.stdout);
    for _ in 0..20 {
        assert!(echo_through(port, b"still there") == b"still there");
    }
    for line in ["the log is incomplete: File too large", "the wire log is incomplete: File too large"] {
        eventually(line, || plugin.stderr.text().matches(line).count() == 1);
    }
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}

/// A stdout that takes no more ends the session, with the reason, at the service too.
#[test]
fn an_stdout_that_takes_no_more_ends_the_session() {
    let sim = sim();
    let world = World::new();
    let plugin = Started::at(&sim.endpoint(), None, json!({})).command(&world);
    let file = world.path("stdout");
    let line = format!("ulimit -f 1; exec >'{}'", file.display());
    let mut running = Running::spawn(&mut after(&line, &world, &plugin));
    running.send("seq 100000\n");
    let finished = running.finish();
    assert!(finished.status.code().is_some(), "{:?}", finished.status);
    assert!(finished.errors().contains("File too large"), "{}", finished.errors());
    assert_all_ended(&sim);
}

/// No thread can have a stack of this size, so the system refuses every one.
const UNBOUNDED_STACK: &str = "1125899906842624";

/// As where a user's limit of processes has been reached (`ulimit -u`).
#[test]
fn without_threads_a_port_works_and_a_name_is_not_resolved() {
    let sim = sim();
    let echo = Server::echo();
    let mut world = World::new();
    world.set("RUST_MIN_STACK", UNBOUNDED_STACK);
    let plugin =
        Running::spawn_without_stdin(&mut Started::port(&sim.endpoint(), echo.port(), 0).command(&world));
    let port = opened_port(&plugin.stdout);
    assert!(echo_through(port, b"echo") == b"echo");
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    assert!(!finished.errors().contains("internal error"), "{}", finished.errors());
    assert_all_ended(&sim);

    sim.set_stream_base(&format!("ws://localhost:{}", sim.port()));
    world.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let finished = Running::spawn_without_stdin(&mut started.command(&world)).finish();
    let (text, errors) = (finished.text(), finished.errors());
    let line = "cannot resolve localhost: cannot start a thread: ";
    assert!(text.contains(line) && !errors.contains("internal error"), "{text} {errors}");
    assert_all_ended(&sim);
}
