//! State of the console.

use super::*;
use crate::harness::net::Server;
use crate::harness::sim::{assert_all_ended, sim};

#[test]
#[ignore = "run by scripts/windows"]
fn the_remote_ends() {
    let mut session = Session::start("--console");
    assert_ne!(session.ask("modes"), session.driver.before, "it is in raw mode");
    session.remote.end.send(()).expect("the gateway runs");
    // Its script looks when something has come.
    session.type_text("x");
    session.assert_ends_and_restores();
}

#[test]
#[ignore = "run by scripts/windows"]
fn an_escape_ends_it() {
    let mut session = Session::start("--console");
    session.type_text("\r~.");
    session.assert_ends_and_restores();
}

/// Ctrl-C and Ctrl-Break that other programs send are not keys. Both are ^C for the remote: Go's runtime makes SIGINT of
/// either, so that the official plugin sends it. (^\, as for SIGQUIT, made the remote program dump its core.)
#[test]
#[ignore = "run by scripts/windows"]
fn control_events_reach_the_remote() {
    let mut session = Session::start("--console");
    session.tell("interrupt");
    session.remote.wait_for(&[3]);
    // Wine does not pass Ctrl-Break on: the handlers are called directly.
    session.tell(&format!("event {BREAK}"));
    session.remote.wait_for(&[3, 3]);
    session.type_text("\r~.");
    session.assert_ends_and_restores();
}

/// Stdin stayed raw.
#[test]
#[ignore = "run by scripts/windows"]
fn a_console_that_refuses_one_mode_keeps_the_other() {
    let mut session = Session::start_until("--stdout=read-only", "cannot switch the terminal to raw mode");
    assert_eq!(session.ask("modes"), session.driver.before, "nothing is changed");
}

#[test]
#[ignore = "run by scripts/windows"]
fn its_size_reaches_the_remote() {
    let mut session = Session::start("--console");
    for (columns, rows) in [(100, 40), (60, 20)] {
        session.tell(&format!("resize {columns} {rows}"));
        let expected = json!({"cols": columns, "rows": rows});
        while session.remote.sizes.last() != Some(&expected) {
            session.remote.take();
        }
    }
}

#[test]
#[ignore = "run by scripts/windows"]
fn what_the_remote_writes_is_on_the_screen() {
    let mut session = Session::start("--console");
    let screen = session.wait_for_screen("ready");
    assert!(screen.contains("Starting session with SessionId: "), "{screen}");
}

/// The system ends the program some seconds after these events. Until then the session is ended at AWS, which would keep
/// it open for twenty minutes.
#[test]
#[ignore = "run by scripts/windows"]
fn a_closed_window_a_logoff_and_a_shutdown_end_the_session() {
    for event in [CLOSE, LOGOFF, SHUTDOWN] {
        let (world, sim, echo) = (World::new(), sim(), Server::echo());
        let plugin = Started::port(&sim.endpoint(), echo.port(), 0).command(&world);
        let mut driver = Driver::start(driver(&world, DRIVER, "--console", &plugin));
        driver.wait_for_screen("Waiting for connections");
        driver.tell(&format!("event {event}"));
        driver.assert_ends_and_restores();
        assert_all_ended(&sim);
    }
}

const BREAK: u32 = 1;
const CLOSE: u32 = 2;
const LOGOFF: u32 = 5;
const SHUTDOWN: u32 = 6;
