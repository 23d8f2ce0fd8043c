//! Sessions whose connection is stdin and stdout (`AWS-StartSSHSession`): 8-bit clean, and what their end means.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use ssm_sim::Sim;

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::net::{FreePort, Server, random_bytes};
use crate::harness::process::Running;
use crate::harness::sim::{assert_all_ended, sim};

/// Half a million bytes.
const MANY: usize = 500_000;

#[track_caller]
fn connection(world: &World, sim: &Sim, port: u16) -> (Running, String) {
    let parameters = json!({"portNumber": [port.to_string()]});
    let started = Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
    let running = Running::spawn(&mut started.command(world));
    (running, format!("\nStarting session with SessionId: {}\n", started.id()))
}

#[test]
fn half_a_million_random_bytes_both_ways() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let (mut running, banner) = connection(&world, &sim, echo.port());
    let bytes = random_bytes(1, MANY);
    let mut stdin = running.take_stdin();
    let sent = bytes.clone();
    let feeder = std::thread::spawn(move || {
        stdin.write_all(&sent).expect("write");
        stdin
    });
    running.stdout.wait_until("all bytes back", |out| out.len() >= banner.len() + MANY);
    drop(feeder.join().expect("feeder"));
    let finished = running.finish();
    finished.assert_ok();
    assert!(finished.stdout.starts_with(banner.as_bytes()), "the banner comes first");
    let echoed = &finished.stdout[banner.len()..banner.len() + MANY];
    assert!(echoed == bytes, "the bytes differ");
    assert_all_ended(&sim);
}

#[test]
fn every_byte_alone() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let (mut running, banner) = connection(&world, &sim, echo.port());
    // One at a time, so that each travels in a message of its own: a single newline must stay one.
    for byte in 0..=255u8 {
        running.send([byte]);
        let length = banner.len() + usize::from(byte) + 1;
        running.stdout.wait_until("the byte back", |out| out.len() >= length);
        assert_eq!(running.stdout.bytes()[length - 1], byte);
    }
    running.close_stdin();
    running.finish().assert_ok();
}

#[test]
fn bytes_before_the_session_is_up_are_kept() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let (mut running, banner) = connection(&world, &sim, echo.port());
    // Written at once, long before the handshake is over.
    let bytes = random_bytes(2, 20_000);
    running.send(&bytes);
    running.stdout.wait_until("all bytes back", |out| out.len() >= banner.len() + bytes.len());
    assert!(running.stdout.bytes()[banner.len()..] == bytes, "the bytes differ");
}

#[test]
fn end_of_input_does_not_lose_the_answer() {
    let (world, sim, server) = (World::new(), sim(), Server::late_answer());
    let (mut running, _) = connection(&world, &sim, server.port());
    running.send("request");
    running.close_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert!(finished.text().contains("the answer"), "{:?}", finished.text());
    assert_all_ended(&sim);
}

#[test]
fn end_of_input_with_a_silent_remote_ends_in_the_end() {
    // A remote that neither answers nor closes must not keep us waiting forever.
    let server = Server::start(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (world, sim) = (World::new(), sim());
    let (mut running, _) = connection(&world, &sim, server.port());
    running.send("nothing comes of this");
    running.close_stdin();
    running.finish_within(Duration::from_secs(90)).assert_ok();
    assert_all_ended(&sim);
}

#[test]
fn end_of_the_remote_ends_the_session() {
    let (world, sim, greeting) = (World::new(), sim(), Server::greeting("SSH-2.0-and-gone\r\n"));
    let (mut running, banner) = connection(&world, &sim, greeting.port());
    running
        .stdout
        .wait_until("the greeting", |out| out.ends_with(b"gone\r\n") || out.len() > banner.len() + 18);
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert!(finished.text().starts_with(&format!("{banner}SSH-2.0-and-gone\r\n")), "{:?}", finished.text());
    assert_all_ended(&sim);
}

#[test]
fn refused_destination_ends_the_session() {
    let (world, sim) = (World::new(), sim());
    let closed = FreePort::new();
    let (mut running, banner) = connection(&world, &sim, closed.number());
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert_eq!(finished.text(), banner);
    let port = closed.number();
    assert_eq!(
        finished.errors(),
        format!(
            "session-manager-plugin: the session ended: Unable to connect to specified port: \
             dial tcp 127.0.0.1:{port}: connect: connection refused\n"
        )
    );
    assert_all_ended(&sim);
}

#[test]
fn a_remote_that_closes_without_a_word_is_reported() {
    let (world, sim, server) = (World::new(), sim(), Server::start(drop));
    let (mut running, banner) = connection(&world, &sim, server.port());
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert_eq!(finished.text(), banner);
    assert_eq!(
        finished.errors(),
        "session-manager-plugin: the session ended before the remote sent anything; \
         check that an SSH server listens on that port\n"
    );
    assert_all_ended(&sim);
}
