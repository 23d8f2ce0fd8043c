//! The suspend key while ports are forwarded: with a shell that continues the process, and without one.

use ssm_sim::Sim;

use super::{plugin, world};
use crate::harness::TARGET;
use crate::harness::net::{FreePort, Server, echo_through};
use crate::harness::pty::Pty;
use crate::harness::sim::sim;
#[cfg(target_os = "linux")]
use crate::harness::{
    net::eventually,
    process::{Running, Signal},
};

fn named() -> Sim {
    let sim = sim();
    sim.set_host("db.internal", "127.0.0.1");
    sim
}

/// The process leads the terminal's session, so that no shell would continue it: the kernel stops no other program there.
#[test]
fn the_suspend_key_without_job_control_stops_nothing() {
    let (sim, echo, port) = (named(), Server::echo(), FreePort::new());
    let world = world(&sim);
    let spec = format!("{}:db.internal:{}", port.number(), echo.port());
    for command in [&[][..], &["--", "sleep", "60"]] {
        let words = [&["forward", TARGET, &spec][..], command].concat();
        let mut pty = Pty::spawn(&plugin(&world, &words));
        pty.wait_for("ready");
        for _ in 0..2 {
            pty.send("\x1a");
            pty.wait_for("^Z");
            assert_eq!(echo_through(port.number(), b"x"), b"x", "{command:?}");
        }
        pty.send("\x03");
        assert_eq!(pty.finish().exit_code(), 130, "{command:?}");
    }
}

/// The test's process is in the same session and in another group, as a shell is.
#[cfg(target_os = "linux")]
#[test]
fn under_job_control_it_stops_until_it_is_continued() {
    let (sim, echo, port) = (named(), Server::echo(), FreePort::new());
    let world = world(&sim);
    let spec = format!("{}:db.internal:{}", port.number(), echo.port());
    for command in [&[][..], &["--", "sleep", "60"]] {
        let words = [&["forward", TARGET, &spec][..], command].concat();
        let running = Running::spawn_without_stdin(&mut plugin(&world, &words));
        let output = if command.is_empty() { &running.stdout } else { &running.stderr };
        output.wait_for("ready\n");
        let stat = format!("/proc/{}/stat", running.pid().as_raw_pid());
        let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        for _ in 0..2 {
            running.signal_group(Signal::TSTP);
            eventually("the process stops", is_stopped);
            running.signal_group(Signal::CONT);
            assert_eq!(echo_through(port.number(), b"x"), b"x", "{command:?}");
        }
        running.signal_group(Signal::TERM);
        assert_eq!(running.finish().status.code(), Some(143), "{command:?}");
    }
}
