//! State of the console.

use super::*;

#[test]
#[ignore = "run by scripts/windows"]
fn the_remote_ends() {
    let mut session = Session::start("--console");
    assert_ne!(session.ask("modes"), session.before, "it is in raw mode");
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
    // Wine does not pass Ctrl-Break on.
    if cfg!(windows) {
        session.tell("break");
        session.remote.wait_for(&[3, 3]);
    }
    session.type_text("\r~.");
    session.assert_ends_and_restores();
}

/// Stdin stayed raw.
#[test]
#[ignore = "run by scripts/windows"]
fn a_console_that_refuses_one_mode_keeps_the_other() {
    let mut session = Session::start_until("--stdout=read-only", "cannot switch the terminal to raw mode");
    assert_eq!(session.ask("modes"), session.before, "nothing is changed");
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
