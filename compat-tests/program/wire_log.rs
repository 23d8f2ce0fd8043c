//! Recording a session and playing it again.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use ssm_sim::Replay;

use crate::harness::api::Started;
use crate::harness::process::{Finished, Running};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::{TARGET, World};

/// Long enough for a message to come on a loaded machine; nothing that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the recording");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A shell in which one line is typed, recorded.
fn recorded(world: &World) -> (Started, Finished) {
    let sim = sim();
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let mut running = Running::spawn(&mut started.command(world));
    running.send("echo the-answer-is-$((40+2)); exit\n");
    let finished = running.finish();
    finished.assert_ok();
    assert_all_ended(&sim);
    (started, finished)
}

fn replayed(recording: &Path) -> Finished {
    let replay = Replay::start(recording, 0, PATIENCE).expect("replay");
    let started = Started {
        response: replay.response(),
        request: json!({"Target": TARGET}),
        endpoint: replay.endpoint(),
    };
    let mut running = Running::spawn(&mut started.command(&World::new()));
    running.send("echo the-answer-is-$((40+2)); exit\n");
    let finished = running.finish();
    finished.assert_ok();
    finished
}

/// Without the first and the last words, which name the session.
fn session_bytes(finished: &Finished) -> String {
    let text = finished.text();
    let text = text.trim_start_matches('\n');
    let (_, text) = text.split_once('\n').expect("a first line");
    text.split("\n\nExiting session").next().unwrap_or_default().to_owned()
}

#[test]
fn a_recording_has_the_events_but_not_the_contents() {
    let mut world = World::new();
    let path = world.path("wire.jsonl");
    world.set("SSM_PLUGIN_WIRE_LOG", &path.display().to_string());
    let (started, finished) = recorded(&world);
    assert!(finished.text().contains("the-answer-is-42"));
    let lines = lines(&path);
    assert_eq!(lines[0]["recording"], 1);
    assert_eq!(lines[0]["payloads"], false);
    assert_eq!(lines[1]["text"]["TokenValue"], "[redacted]");
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    for kind in ["input_stream_data", "output_stream_data", "acknowledge", "channel_closed"] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    let text = std::fs::read_to_string(&path).expect("the recording");
    let token = started.response["TokenValue"].as_str().expect("token");
    for secret in [token, &hex::encode(token), "answer", &hex::encode("answer")] {
        assert!(!text.contains(secret), "{secret}");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("metadata").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_recording_in_full_plays_again() {
    let mut world = World::new();
    let path = world.path("wire.jsonl");
    world.set("SSM_PLUGIN_WIRE_LOG", &path.display().to_string());
    world.set("SSM_PLUGIN_WIRE_LOG_PAYLOADS", "1");
    let (_, finished) = recorded(&world);
    let again = replayed(&path);
    assert!(session_bytes(&finished).contains("the-answer-is-42"));
    assert_eq!(session_bytes(&again), session_bytes(&finished));
}

#[test]
fn a_recording_without_payloads_plays_with_dots() {
    let mut world = World::new();
    let path = world.path("wire.jsonl");
    world.set("SSM_PLUGIN_WIRE_LOG", &path.display().to_string());
    let (_, finished) = recorded(&world);
    let (again, before) = (session_bytes(&replayed(&path)), session_bytes(&finished));
    assert_eq!(again.len(), before.len());
    assert!(again.bytes().all(|byte| byte == b'.'), "{again:?}");
}

#[test]
fn a_recorded_session_of_the_official_plugin_plays() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/vectors/shell.json");
    let replay = Replay::start(&path, 0, PATIENCE).expect("replay");
    let started = Started {
        response: replay.response(),
        request: json!({"Target": TARGET}),
        endpoint: replay.endpoint(),
    };
    let mut running = Running::spawn(&mut started.command(&World::new()));
    running.stdout.wait_for("$ ");
    running.send("echo hi\n");
    running.stdout.wait_for("hi\r\n$ ");
    running.send("exit\n");
    let finished = running.finish();
    finished.assert_ok();
    assert_eq!(session_bytes(&finished), "$ echo hi\r\nhi\r\n$ exit\r\n");
}

#[test]
fn a_place_that_cannot_be_written_costs_one_line() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_WIRE_LOG", "/dev/null/wire");
    let (_, finished) = recorded(&world);
    let errors = finished.errors();
    assert!(errors.contains("the wire log is disabled: cannot write to /dev/null/wire"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
