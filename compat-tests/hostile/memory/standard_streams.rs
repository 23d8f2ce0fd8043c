//! Callers that read neither stdout nor stderr.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attack::Attack;
use super::bursts::{BYTES, CONTROL, refusals};
use super::victim::{Progress, Session, Unread, Victim, announce, assert_all, lossy};
use crate::harness::World;
use crate::harness::gateway::{Gateway, SESSION};
use crate::harness::wire;

#[test]
fn stdout_of_a_shell_that_is_not_read() {
    assert_all(BYTES.iter().map(|bursts @ (name, ..)| {
        let (session, unread) = (Session::Shell, Unread::Stdout);
        Attack { session, unread, settings: &[], bursts: &[*bursts], below: 48 }.run(name)
    }));
}

#[test]
fn control_messages_while_stdout_is_not_read() {
    for session in [Session::Multiplexed, Session::Basic, Session::Shell] {
        control_messages(session, Unread::Stdout, &[]);
    }
}

#[test]
fn control_messages_while_json_on_stderr_is_not_read() {
    for session in [Session::Multiplexed, Session::Basic] {
        control_messages(session, Unread::Stderr, &[("SSM_PLUGIN_STATUS", "json")]);
    }
}

#[track_caller]
fn control_messages(session: Session, unread: Unread, settings: &'static [(&'static str, &'static str)]) {
    let attack = Attack { session, unread, settings, bursts: CONTROL, below: 44 };
    assert_all([attack.run(&format!("control messages in a session of the kind {session:?}"))]);
}

/// Both streams are full of what can be repeated. What callers wait for comes through, once each, and so does the end.
#[test]
fn the_lines_that_callers_parse_arrive_when_others_were_dropped() {
    let (progress, resume) = (Arc::new(Progress::default()), Arc::new(AtomicBool::new(false)));
    let (seen, may_go_on) = (Arc::clone(&progress), Arc::clone(&resume));
    let gateway = Gateway::scripted(move |socket| {
        announce(socket, Session::Multiplexed);
        let mut flood = socket.flood();
        for _ in 0..100 {
            let _ = refusals(&mut flood);
            seen.bursts.fetch_add(1, Ordering::SeqCst);
        }
        flood.flush();
        seen.is_done.store(true, Ordering::SeqCst);
        while !may_go_on.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = refusals(&mut flood);
        flood.frame(&wire::closed(SESSION, "because"));
        flood.flush();
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "json");
    let mut victim = Victim::start(world, &gateway, Unread::Both);
    progress.await_end(&victim);
    let (stdout, stderr) = victim.take_unread();
    // What was full has room before more comes.
    stderr.wait_for("\"event\":\"destination_refused\"");
    resume.store(true, Ordering::SeqCst);
    let (text, errors) = (lossy(&stdout.wait_closed()), lossy(&stderr.wait_closed()));
    for line in ["Starting session with SessionId:", "Port ", "Waiting for connections...", " : because"] {
        assert_eq!(text.matches(line).count(), 1, "{line:?} in {} bytes", text.len());
    }
    let refused = text.matches("Connection to destination port failed").count();
    assert!((1..50_000).contains(&refused), "{refused} of 50,000 refusals were printed");
    assert!(text.len() < 2 << 20, "{} bytes", text.len());
    assert!(errors.contains("for stderr were dropped because stderr was not read"), "{} bytes", errors.len());
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.contains("\"event\":\"end\""), "{last}");
    assert!(errors.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "whole lines only");
}
