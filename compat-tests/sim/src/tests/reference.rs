//! The official plugin against the simulator, when the environment variable `REFERENCE_PLUGIN` names it.

use std::io::Write;
use std::process::{Output, Stdio};

use tokio::process::Command;

use super::*;

/// The plugin's run with this session, called as the AWS CLI calls it; `None` without a plugin.
async fn run(sim: &Sim, document: Option<&str>, parameters: Value, input: &str) -> Option<Output> {
    let Some(plugin) = std::env::var_os("REFERENCE_PLUGIN") else {
        // Not by a macro: the test harness would swallow it.
        let _ = std::io::stderr().write_all(b"SKIPPED: REFERENCE_PLUGIN names no plugin\n");
        return None;
    };
    let answer = start_session(sim, document, parameters).await;
    let mut child = Command::new(plugin)
        .args([
            answer.to_string().as_str(),
            "us-east-1",
            "StartSession",
            "",
            r#"{"Target":"i-0123456789abcdef0"}"#,
        ])
        .arg(sim.endpoint())
        .env("AWS_ACCESS_KEY_ID", "sim")
        .env("AWS_SECRET_ACCESS_KEY", "sim")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the plugin starts");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(input.as_bytes()).await.expect("writes");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("ends in time");
    drop(stdin);
    Some(output.expect("ends"))
}

#[tokio::test]
async fn runs_a_shell() {
    let sim = start(Config::default());
    let Some(output) = run(&sim, None, json!({}), "echo a$((40+2))z\nexit\n").await else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a42z") && text.contains("Exiting session with sessionId"), "{text}");
}

#[tokio::test]
async fn runs_commands() {
    let sim = start(Config::default());
    for document in ["AWS-StartInteractiveCommand", "AWS-StartNonInteractiveCommand"] {
        let parameters = json!({ "command": ["echo done"] });
        let Some(output) = run(&sim, Some(document), parameters, "").await else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("done"), "{document} {text}");
    }
}
