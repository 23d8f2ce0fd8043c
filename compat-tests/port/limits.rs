//! System limits: descriptors, and wake-ups at rest.

use super::*;
use crate::harness::limited;

/// Ticks of 10 ms that a process has used.
#[cfg(target_os = "linux")]
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("stat").1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
}

/// Found as a process that used a whole core: the end of stdout's reader was an event each time it was looked at.
#[cfg(target_os = "linux")]
#[test]
fn a_forward_without_a_reader_of_its_notices_stays_at_rest() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let mut command = started.command(&world);
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("plugin starts");
    let mut text = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    while !text.contains("Waiting for connections...\n") {
        assert!(std::io::BufRead::read_line(&mut stdout, &mut text).expect("read") > 0, "{text:?}");
    }
    drop(stdout);
    let port = text.split_once("Port ").expect("port").1.split(' ').next().expect("port");
    let port = port.parse().expect("number");
    // The notice of the first connection meets the closed pipe.
    assert_eq!(echo_through(port, b"one"), b"one");
    assert_eq!(echo_through(port, b"two"), b"two");
    let before = cpu_ticks(child.id());
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks(child.id()) - before;
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(used < 30, "{used} ticks of 100 while nothing happens");
}

#[test]
fn more_connections_than_the_soft_limit_of_descriptors() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut limited(&started.command(&world), "-S -n 64"));
    let port = opened_port(&plugin.stdout);
    let mut open: Vec<TcpStream> = (0..150).map(|_| connect(port)).collect();
    for stream in &mut open {
        stream.write_all(b"x").expect("write");
        stream.read_exact(&mut [0]).expect("read");
    }
}

#[test]
fn out_of_descriptors_open_connections_continue_and_ended_ones_make_room() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = Running::spawn_without_stdin(&mut limited(&started.command(&world), "-n 40"));
    let port = opened_port(&plugin.stdout);
    let mut first = connect(port);
    first.write_all(b"x").expect("write");
    first.read_exact(&mut [0]).expect("read");
    let mut waiting: Vec<TcpStream> = (0..60).map(|_| connect(port)).collect();
    plugin.stderr.wait_for("cannot accept a connection: ");
    // One after the other: each was a tenth of a second late.
    let begin = Instant::now();
    for _ in 0..100 {
        first.write_all(b"y").expect("write");
        first.read_exact(&mut [0]).expect("read");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let mut last = waiting.pop().expect("the last");
    last.write_all(b"z").expect("write");
    drop(waiting);
    last.read_exact(&mut [0]).expect("it is served as soon as others are gone");
    plugin.signal(Signal::INT);
    let finished = plugin.finish();
    finished.assert_ok();
    assert_eq!(finished.errors().matches("cannot accept").count(), 1, "{}", finished.errors());
}

/// Out of descriptors for a while, an old agent's port is not given up; a new agent's is not either.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_cannot_be_accepted_does_not_end_the_session() {
    use rustix::process::{Resource, Rlimit, prlimit};
    for generation in [Generation::V3_0, Generation::default()] {
        let (mut world, sim, echo) = (World::new(), sim_with_agent(generation), Server::echo());
        world.set("SSM_PLUGIN_STATUS", "always");
        let started = Started::port(&sim.endpoint(), echo.port(), 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let port = opened_port(&plugin.stdout);
        let before = rustix::process::getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(3), maximum: before.maximum };
        prlimit(Some(plugin.pid()), Resource::Nofile, none).expect("take the descriptors away");
        let waiting = connect(port);
        plugin.stderr.wait_for("cannot accept a connection: Too many open files");
        prlimit(Some(plugin.pid()), Resource::Nofile, before).expect("give them back");
        drop(waiting);
        assert_eq!(echo_through(port, b"still here"), b"still here");
        plugin.signal(Signal::INT);
        plugin.finish().assert_ok();
    }
}
