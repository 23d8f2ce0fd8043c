//! Sessions encrypted with a key of KMS.

use serde_json::json;
use ssm_sim::{Config, KmsOptions, Sim};

use super::{Call, known, strict, world_without_credentials};
use crate::harness::World;
use crate::harness::process::{Finished, Running};
use crate::harness::pty::Pty;
use crate::harness::sim::start;

fn encrypting(kms: KmsOptions) -> Sim {
    start(Config { kms: KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), ..kms }, ..strict() })
}

/// A world whose KMS is the simulator's.
fn world_for(sim: &Sim) -> World {
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL_KMS", &sim.endpoint());
    world
}

fn challenges() -> [KmsOptions; 3] {
    [(false, false), (true, false), (true, true)].map(|(challenge, require_challenge)| KmsOptions {
        challenge,
        require_challenge,
        ..KmsOptions::default()
    })
}

#[test]
fn shell_is_encrypted_with_and_without_challenge() {
    for kms in challenges() {
        let sim = encrypting(kms);
        let world = world_for(&sim);
        let call = Call::shell(&sim);
        let mut pty = Pty::spawn(&call.plugin(&world));
        pty.wait_for("This session is encrypted using AWS KMS.");
        pty.send("echo a$((40+2))z\r");
        pty.wait_for("a42z");
        pty.send("exit\r");
        pty.finish();
        assert_eq!(sim.requests().generate_data_key, 1);
    }
}

#[test]
fn command_is_encrypted_with_and_without_challenge() {
    for kms in challenges() {
        let sim = encrypting(kms);
        let world = world_for(&sim);
        let call = Call::command(&sim, "sh -c 'echo out; echo err >&2; exit 7'");
        let finished = call.spawn(&world).finish();
        finished.assert_ok();
        let text = finished.text();
        assert!(text.contains("out\n") && text.contains("err\n") && text.contains("EXIT_CODE: 7"), "{text}");
    }
}

#[test]
fn encryption_survives_new_connections() {
    let sim = encrypting(KmsOptions::default());
    let world = world_for(&sim);
    let call = Call::shell(&sim);
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    plugin.stdout.wait_for("This session is encrypted");
    for round in 0..5 {
        sim.cut(call.id());
        plugin.send(format!("echo a$(({round}+40))z\n"));
        plugin.stdout.wait_for(&format!("a{}z", round + 40));
    }
    assert_eq!(sim.requests().generate_data_key, 1);
}

#[test]
fn task_has_its_own_context() {
    const TASK: &str = "ecs:MyCluster_0123456789abcdef_0123456789abcdef-2531612879";
    let kms = KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), ..KmsOptions::default() };
    let sim = start(Config { kms, targets: vec![TASK.to_owned()], ..strict() });
    let world = world_for(&sim);
    let mut plugin = Running::spawn(&mut Call::new(&sim, json!({ "Target": TASK })).plugin(&world));
    plugin.stdout.wait_for("This session is encrypted");
    plugin.send("echo a$((40+2))z\n");
    plugin.stdout.wait_for("a42z");
}

#[track_caller]
fn failure(sim: &Sim, world: &World, call: &Call) -> Finished {
    let finished = call.spawn(world).finish();
    finished.assert_ok();
    assert!(!finished.text().contains("encrypted using"), "{}", finished.text());
    assert!(sim.sessions().iter().all(|s| s.agent.bytes_down < 10_000));
    finished
}

#[track_caller]
fn assert_reason(finished: &Finished, reason: &str) {
    let (text, errors) = (finished.text(), finished.errors());
    let said = format!("session-manager-plugin: cannot encrypt the session: {reason}");
    assert!(errors.contains(&said), "stderr: {errors}\nstdout: {text}");
    // The agent has it from our answer, and closes the session with it.
    assert!(text.contains(reason), "stdout: {text}");
}

#[test]
fn denied_key_is_reported_to_agent_and_user() {
    let sim = encrypting(KmsOptions { deny: true, ..KmsOptions::default() });
    let finished = failure(&sim, &world_for(&sim), &Call::shell(&sim));
    assert_reason(&finished, "kms:GenerateDataKey failed: AccessDeniedException: User: ");
}

#[test]
fn missing_credentials_are_reported_to_agent_and_user() {
    let kms = KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), ..KmsOptions::default() };
    let sim = start(Config { kms, ..Config::default() });
    let mut world = world_without_credentials();
    world.set("AWS_ENDPOINT_URL_KMS", &sim.endpoint());
    let finished = failure(&sim, &world, &Call::shell(&sim));
    assert_reason(&finished, "kms:GenerateDataKey failed: no AWS credentials were found");
}

/// The official plugin skips the look-up before the first opening, and nothing else.
#[test]
fn skipped_configuration_still_encrypts() {
    let sim = start(Config {
        kms: KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), ..KmsOptions::default() },
        credentials: Some(known()),
        ..Config::default()
    });
    let mut world = world_for(&sim);
    world.set("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "true");
    let call = Call::shell(&sim);
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    plugin.stdout.wait_for("This session is encrypted");
    plugin.send("echo a$((40+2))z\n");
    plugin.stdout.wait_for("a42z");
    let opens = sim.session(call.id()).expect("the session").opens;
    assert!(opens[0].signature.is_none(), "{opens:?}");
}

#[test]
fn caller_that_names_another_target_gets_a_key_that_the_agent_cannot_open() {
    let sim = encrypting(KmsOptions::default());
    let mut call = Call::shell(&sim);
    call.request = json!({ "Target": "i-another" });
    let finished = failure(&sim, &world_for(&sim), &call);
    assert!(finished.text().contains("InvalidCiphertextException"), "{}", finished.text());
}

#[test]
fn missing_target_is_reported_to_the_caller() {
    let sim = encrypting(KmsOptions::default());
    let mut call = Call::shell(&sim);
    call.request = json!({});
    let finished = failure(&sim, &world_for(&sim), &call);
    assert_reason(&finished, "kms:GenerateDataKey failed: the caller did not name the session's target");
}

#[test]
fn caller_too_old_to_name_a_profile_is_advised_to_upgrade() {
    let sim = encrypting(KmsOptions::default());
    let (world, call) = (world_for(&sim), Call::shell(&sim));
    let mut command = world.plugin();
    command.args([&call.response.to_string(), "us-east-1", "StartSession"]);
    let finished = Running::spawn_without_stdin(&mut command).finish();
    assert_reason(&finished, "Installed version of CLI does not support Session Manager encryption feature.");
}
