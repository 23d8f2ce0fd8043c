//! `shell` and `start-session`.

use std::time::{Duration, Instant};

use super::{plugin, world};
use crate::harness::TARGET;
use crate::harness::net::{Server, echo_through, opened_port};
use crate::harness::process::{Running, Signal, run, run_with_input};
use crate::harness::pty::Pty;
use crate::harness::sim::{assert_all_ended, sim};

#[test]
fn a_shell_on_a_terminal_with_escapes() {
    let sim = sim();
    let mut pty = Pty::spawn(&plugin(&world(&sim), &["shell", TARGET]));
    pty.wait_for("Starting session with SessionId: ");
    pty.send("echo $((40 + 2))\r");
    pty.wait_for("\r\n42");
    pty.send("\r~?");
    pty.wait_for("Supported escape sequence commands");
    pty.send("exit\r");
    assert_eq!(pty.finish().exit_code(), 0);
    assert_all_ended(&sim);
}

/// The same words as after `aws ssm start-session`.
#[test]
fn start_session_prints_what_the_official_plugin_prints() {
    let (sim, echo) = (sim(), Server::echo());
    let parameters = format!("portNumber={},localPortNumber=0", echo.port());
    let words = [
        "start-session",
        "--target",
        TARGET,
        "--document-name",
        "AWS-StartPortForwardingSession",
        "--parameters",
        &parameters,
        "--reason",
        "CHG-1",
    ];
    let running = Running::spawn_without_stdin(&mut plugin(&world(&sim), &words));
    let port = opened_port(&running.stdout);
    assert_eq!(echo_through(port, b"hello"), b"hello");
    running.signal(Signal::INT);
    let finished = running.finish();
    finished.assert_ok();
    let id = &sim.sessions()[0].id;
    assert_eq!(
        finished.text(),
        format!(
            "\nStarting session with SessionId: {id}\nPort {port} opened for sessionId {id}.\nWaiting for connections...\n\n\
             Connection accepted for session [{id}]\nTerminate signal received, exiting.\n\n\nExiting session with sessionId: \
             {id}.\n\n"
        )
    );
    assert_all_ended(&sim);
}

#[test]
fn a_document_with_parameters() {
    let sim = sim();
    let words = ["shell", TARGET, "--document-name", "AWS-StartInteractiveCommand", "--parameters"];
    let world = world(&sim);
    let mut command = plugin(&world, &words);
    let finished = run_with_input(command.arg("command=\"echo a,b=c\""), b"");
    finished.assert_ok();
    assert!(finished.text().contains("a,b=c"), "{}", finished.text());
}

/// In AWS's words, with the next step.
#[test]
fn what_aws_refuses_is_one_line_with_the_next_step() {
    for (kind, words, step) in [
        ("AccessDeniedException", "AccessDeniedException: ", "allow ssm:StartSession"),
        ("ExpiredTokenException", "ExpiredTokenException: ", "sign in again"),
        ("TargetNotConnected", "TargetNotConnected: ", "--wait"),
    ] {
        let sim = sim();
        sim.refuse_starts(Some(kind));
        let finished = run(&mut plugin(&world(&sim), &["shell", TARGET]));
        let errors = finished.errors();
        assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), ""), "{errors}");
        assert!(errors.starts_with("session-manager-plugin: shell: ssm:StartSession failed: "), "{errors}");
        assert!(errors.contains(words) && errors.contains(step), "{errors}");
    }
}

#[test]
fn without_credentials_the_next_step_is_to_sign_in() {
    let sim = sim();
    let mut world = world(&sim);
    world.unset(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    let finished = run(&mut plugin(&world, &["shell", TARGET]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("sign in"), "{}", finished.errors());
    assert_eq!(finished.errors().matches('\n').count(), 1, "{}", finished.errors());
}

/// Profiles, regions and endpoints by the rules of the AWS CLI.
#[test]
fn a_profile_brings_keys_and_region() {
    let sim = sim();
    let mut world = world(&sim);
    world.unset(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"]);
    std::fs::create_dir(world.home().join(".aws")).expect("folder");
    let text =
        "[profile work]\nregion = eu-west-3\naws_access_key_id = AKIDWORK\naws_secret_access_key = s\n";
    std::fs::write(world.home().join(".aws/config"), text).expect("config");
    let endpoint = sim.endpoint();
    let words = ["shell", TARGET, "--profile", "work", "--endpoint-url", &endpoint];
    run_with_input(&mut plugin(&world, &words), b"exit\n").assert_ok();
    let open = sim.sessions()[0].opens[0].clone();
    let signature = format!("{:?}", open.signature);
    assert!(signature.contains("AKIDWORK") && signature.contains("eu-west-3"), "{signature}");
}

#[test]
fn verbose_logs_each_step_and_json_each_event() {
    let sim = sim();
    let finished = run_with_input(&mut plugin(&world(&sim), &["shell", TARGET, "-v"]), b"exit\n");
    finished.assert_ok();
    assert!(finished.errors().contains("ssm:StartSession"), "{}", finished.errors());
    let finished = run_with_input(&mut plugin(&world(&sim), &["shell", TARGET, "--json", "-v"]), b"exit\n");
    let errors = finished.errors();
    assert!(errors.contains(r#""event":"log","text":"#) && errors.contains("ssm:StartSession"), "{errors}");
    for line in errors.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(errors.contains(r#""event":"ready""#) && errors.contains(r#""event":"end""#), "{errors}");
    for secret in sim.secrets() {
        let secret = String::from_utf8_lossy(&secret).into_owned();
        assert!(!finished.errors().contains(&secret), "a secret is shown");
    }
}

/// `--wait` tries again until the agent is there.
#[test]
fn wait_outlasts_a_target_that_connects_later() {
    let sim = sim();
    sim.refuse_starts(Some("TargetNotConnected"));
    let mut running = Running::spawn(&mut plugin(&world(&sim), &["shell", "--wait", "60", TARGET]));
    crate::harness::net::eventually("a second attempt", || sim.requests().start >= 2);
    sim.refuse_starts(None);
    running.send("exit\n");
    running.finish().assert_ok();
}

/// The last attempt is made at the end of the wait, not before: the pauses alone would be over after one second.
#[test]
fn wait_lasts_as_long_as_requested() {
    let sim = sim();
    sim.refuse_starts(Some("TargetNotConnected"));
    let begin = Instant::now();
    let finished = run(&mut plugin(&world(&sim), &["shell", "--wait=2", TARGET]));
    let errors = finished.errors();
    assert_eq!(finished.status.code(), Some(255), "{errors}");
    assert!(errors.contains("--wait ended after 2 s"), "{errors}");
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn a_signal_before_the_session_ends_it() {
    let sim = sim();
    sim.refuse_starts(Some("TargetNotConnected"));
    let running = Running::spawn_without_stdin(&mut plugin(&world(&sim), &["shell", "--wait", TARGET]));
    crate::harness::net::eventually("an attempt", || sim.requests().start >= 1);
    running.signal(Signal::TERM);
    assert_eq!(running.finish().status.code(), Some(143));
}
