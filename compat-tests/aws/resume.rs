//! A lost websocket: a new token, a new URL, and what happens without.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ssm_sim::agent::AgentOptions;
use ssm_sim::{Config, Cut, Faults, ResumePolicy, Way};

use super::{Call, Forward, known, strict, strict_sim, world_without_credentials, write};
use crate::harness::World;
use crate::harness::net::{Server, connect, echo_through, eventually, random_bytes};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{sim, start};

/// Twenty megabytes up and down at once while the service closes the websocket every second.
#[test]
fn transfer_does_not_notice_that_the_service_closes_the_websocket() {
    const SIZE: usize = 20 << 20;
    let mut world = World::new();
    world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
    let sim = start(Config {
        // Not faster than it can repeat what a cut has lost: it resends ten messages a second.
        agent: AgentOptions { payload: 4096, ..AgentOptions::default() },
        message_limit: None,
        faults: Faults { cut_every: Some(Duration::from_secs(1)), ..Faults::default() },
        ..strict()
    });
    // Digests what comes, and sends as much of its own.
    let (digest, digests) = std::sync::mpsc::channel();
    let down = random_bytes(2, SIZE);
    let expected_down = Sha256::digest(&down);
    let server = Server::start(move |stream| {
        let mut writer = stream.try_clone().expect("clone");
        let down = down.clone();
        let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &down));
        let _ = digest.send(digest_of(stream, SIZE));
        let _ = feeder.join();
    });
    let forward = Forward::start(&world, &Call::port(&sim, server.port()));
    let local = connect(forward.port);
    let up = random_bytes(1, SIZE);
    let expected_up = Sha256::digest(&up);
    let mut writer = local.try_clone().expect("clone");
    let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &up));
    let got_down = digest_of(local, SIZE);
    let got_up = digests.recv_timeout(crate::harness::PATIENCE).expect("the server's digest");
    feeder.join().expect("feeder").expect("write");
    assert_eq!(got_down[..], expected_down[..], "down");
    assert_eq!(got_up[..], expected_up[..], "up");
    let report = sim.session(&forward.id).expect("the session");
    assert!(report.opens.len() > 1 && report.resumes > 0, "never cut: {} opens", report.opens.len());
    assert!(report.opens.iter().all(|o| o.accepted && o.signature.as_ref().is_some_and(|s| s.verified)));
}

fn digest_of(mut stream: std::net::TcpStream, size: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut left = size;
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("timeout");
    while left > 0 {
        let n = uninterrupted(|| std::io::Read::read(&mut stream, &mut buffer)).expect("read");
        assert!(n > 0, "the connection ended {left} bytes early");
        hash.update(&buffer[..n]);
        left -= n;
    }
    hash.finalize().to_vec()
}

#[test]
fn reset_and_outage_are_survived() {
    let (mut world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(echo_through(forward.port, b"before"), b"before");
    sim.cut_with(&forward.id, Cut::Reset);
    assert_eq!(echo_through(forward.port, b"reset"), b"reset");
    sim.outage(Duration::from_secs(2));
    assert_eq!(echo_through(forward.port, b"outage"), b"outage");
    forward.plugin.stderr.wait_for("connection lost");
    forward.plugin.stderr.wait_for("connection resumed");
}

#[test]
fn half_open_socket_is_found_by_its_silence() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(echo_through(forward.port, b"before"), b"before");
    sim.stall(&forward.id, Way::Both, Duration::from_secs(600));
    eventually("a second websocket", || sim.requests().resume > 0);
}

/// Keys that have been renewed in the profile, as `aws sso login` or a rotation does it.
#[test]
fn credentials_are_read_again() {
    let (world, sim, echo) = (world_without_credentials(), strict_sim(), Server::echo());
    let known = known();
    let keys = |id: &str, secret: &str| {
        format!("[work]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    write(&world, ".aws/credentials", &keys(&known.access_key, &known.secret_key));
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()).profile("work"));
    let other = sim.add_credentials("AKIAOTHER", "other-secret");
    write(&world, ".aws/credentials", &keys(&other.access_key, &other.secret_key));
    sim.revoke(&known.access_key);
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"renewed"), b"renewed");
    let opens = sim.session(&forward.id).expect("the session").opens;
    let last = opens.last().and_then(|open| open.signature.clone()).expect("a signature");
    assert_eq!(last.access_key, "AKIAOTHER");
}

#[test]
fn denied_resume_keeps_the_old_token_and_names_the_permission() {
    let (mut world, echo) = (World::new(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let sim = start(Config { resume: ResumePolicy::Deny, ..strict() });
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"still here"), b"still here");
    forward.plugin.stderr.wait_for(
        "cannot get a new token for the session, retrying with the current one: ssm:ResumeSession failed: \
         AccessDeniedException: User: ",
    );
}

#[test]
fn expired_credentials_are_named() {
    let (mut world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "2");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    sim.revoke(&known().access_key);
    sim.cut(&forward.id);
    let finished = forward.plugin.finish();
    finished.assert_ok();
    let errors = finished.errors();
    assert!(errors.contains("no connection for 2 s (last error: "), "{errors}");
    assert!(
        errors.contains("ExpiredTokenException: The security token included in the request is expired"),
        "{errors}"
    );
}

#[test]
fn session_that_has_timed_out_ends_with_its_words() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    sim.set_resume(ResumePolicy::TimedOut);
    sim.cut(&forward.id);
    let finished = forward.plugin.finish();
    finished.assert_ok();
    let expected = format!("Session: {} timed out.\n", forward.id);
    assert!(finished.text().ends_with(&expected), "{:?}", finished.text());
}

/// The official plugin asks for a new token a thousand times a second then.
#[test]
fn connection_that_is_closed_at_once_is_not_opened_again_at_once() {
    let (mut world, echo) = (World::new(), Server::echo());
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "60");
    let sim = sim();
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    sim.set_faults(Faults { cut_every: Some(Duration::from_millis(1)), ..Faults::default() });
    let begin = Instant::now();
    eventually("some attempts", || sim.requests().resume >= 6);
    // A lower bound, which a busy machine does not break.
    assert!(begin.elapsed() > Duration::from_secs(1), "6 calls in {:?}", begin.elapsed());
    sim.set_faults(Faults::default());
    assert_eq!(echo_through(forward.port, b"in the end"), b"in the end");
}

/// Each websocket works, and is closed after 0.6 s: each recovery is a call that counts against the account's quota.
#[test]
fn websockets_that_die_again_and_again_spend_few_calls() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    sim.set_faults(Faults { cut_every: Some(Duration::from_millis(600)), ..Faults::default() });
    sim.cut(&forward.id);
    let begin = Instant::now();
    eventually("some attempts", || begin.elapsed() > Duration::from_secs(20) && sim.requests().resume > 1);
    // Twelve at once, and one each five seconds.
    let most = 12 + begin.elapsed().as_secs() / 5 + 1;
    assert!(sim.requests().resume <= most, "{} calls, not {most}", sim.requests().resume);
    sim.set_faults(Faults::default());
    assert_eq!(echo_through(forward.port, b"in the end"), b"in the end");
}

#[test]
fn new_stream_url_is_checked_like_the_first() {
    let (mut world, echo) = (World::new(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "2");
    for host in ["evil.example", "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"] {
        let sim = start(Config { resume_url: Some(format!("wss://{host}/x")), ..Config::default() });
        let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
        sim.cut(&forward.id);
        let line = format!(
            "cannot resume the session at the URL that the service returned: the stream URL has the host {host}"
        );
        forward.plugin.stderr.wait_for(&line);
    }
}
