//! `doctor`, with each thing that goes wrong provoked.

mod account;
mod local;
mod network;

use serde_json::Value;
use ssm_sim::Sim;

use crate::harness::process::{Finished, Running, run};
use crate::harness::pty::Pty;
use crate::harness::sim::sim;
use crate::harness::{TARGET, World, named_pipe};

/// A world where all is well: the simulator is AWS.
fn world(sim: &Sim) -> World {
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    let script = "#!/bin/sh\necho aws-cli/2.31.0 Python/3.13.7\n";
    install(&world, "aws", script);
    world
}

fn install(world: &World, name: &str, script: &str) {
    let path = world.path(&format!("bin/{name}"));
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, script).expect("write a program");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("make it executable");
}

fn channel(sim: &Sim) -> String {
    format!("ws://127.0.0.1:{}/v1/data-channel/doctor?role=publish_subscribe", sim.port())
}

fn doctor(world: &World, words: &[&str]) -> (Finished, Value) {
    let finished = run(world.plugin().args(["doctor", "--json"]).args(words));
    let report = serde_json::from_slice(&finished.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}{}", finished.text(), finished.errors()));
    (finished, report)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().expect("checks").iter();
    checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// The check has ended so, and says these words.
#[track_caller]
fn assert_check(report: &Value, name: &str, status: &str, words: &str) {
    let check = check(report, name);
    assert_eq!(check["status"], status, "{check:#}");
    let text = format!(
        "{} {}",
        check["found"].as_str().unwrap_or_default(),
        check["advice"].as_str().unwrap_or_default()
    );
    assert!(text.contains(words), "{words:?} is not in {text:?}");
    assert_eq!(check["advice"].is_string(), matches!(status, "warning" | "failure"), "what to do: {check:#}");
}

#[test]
fn all_is_well() {
    let sim = sim();
    let world = world(&sim);
    let (finished, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_eq!(finished.status.code(), Some(0), "{report:#}");
    assert_eq!((&report["failures"], &report["warnings"]), (&0.into(), &0.into()), "{report:#}");
    assert_check(&report, "plugin", "ok", "this program");
    assert_check(&report, "aws-cli", "ok", "aws-cli/2.31.0");
    assert_check(&report, "region", "ok", "us-east-1, from AWS_DEFAULT_REGION");
    assert_check(
        &report,
        "credentials",
        "ok",
        "AWS_ACCESS_KEY_ID in the environment; long-lived access key AKIA...MPLE; arn:aws:iam::123456789012:user/sim",
    );
    assert_check(&report, "clock", "ok", "");
    assert_check(&report, "websocket", "ok", "127.0.0.1");
    assert_check(&report, "terminal", "skipped", "");
    assert!(!finished.text().contains("wJalrXUtnFEMI"), "the secret is shown");
    assert_eq!(finished.errors(), "");

    let text = run(world.plugin().args(["doctor", "--url", &channel(&sim)])).text();
    assert!(text.contains("\nok       region       us-east-1"), "{text}");
    assert!(text.ends_with("\nno problems found (0 failures, 0 warnings)\n"), "{text}");
    assert!(sim.sessions().is_empty(), "it starts no session");
}

/// A check that takes long does not hold back the others.
#[test]
fn each_line_is_printed_as_its_check_ends() {
    let sim = sim();
    let world = world(&sim);
    let gate = world.path("gate");
    named_pipe(&gate);
    install(&world, "aws", &format!("#!/bin/sh\nread line < '{}'\necho aws-cli/2.31.0\n", gate.display()));
    let running = Running::spawn_without_stdin(world.plugin().args(["doctor", "--url", &channel(&sim)]));
    let before = running.stdout.wait_for("websocket    ");
    assert!(!before.contains("aws-cli"), "{before}");
    std::fs::write(&gate, "go\n").expect("let it go");
    let text = running.finish().text();
    assert!(text.contains("ok       aws-cli      "), "{text}");
}

/// The same machine gives the same lines of JSON, but for times.
#[test]
fn json_is_stable() {
    let sim = sim();
    let (world, url) = (world(&sim), channel(&sim));
    let names = || -> Vec<String> {
        let text = doctor(&world, &["--url", &url, "--target", TARGET]).0.text();
        let keys = text.lines().filter_map(|line| line.trim().split_once(':'));
        keys.map(|(key, value)| if key == "\"name\"" { value.to_owned() } else { key.to_owned() }).collect()
    };
    assert_eq!(names(), names());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_eq!(report["time"].as_str().map(str::len), Some("2026-12-31T23:59:59Z".len()), "{report:#}");
}

/// JSON has in fields the values that the text shows.
#[test]
fn each_check_has_fields() {
    let sim = sim();
    let (mut world, url) = (world(&sim), channel(&sim));
    world.set("SSM_PLUGIN_STATUS", "always");
    let (_, report) = doctor(&world, &["--url", &url]);
    let field = |name: &str, field: &str| check(&report, name)["fields"][field].clone();
    assert_eq!(field("settings", "environment"), serde_json::json!(["SSM_PLUGIN_STATUS"]));
    assert_eq!(field("dns", "addresses"), serde_json::json!({"127.0.0.1": ["127.0.0.1"]}));
    assert_eq!(field("log", "filter"), Value::Null);
    assert!(field("log", "path").as_str().is_some_and(|path| path.ends_with("session-manager-plugin")));
    assert!(field("settings", "path").as_str().is_some_and(|path| path.ends_with("/config.toml")));
}

#[test]
fn on_a_terminal() {
    let sim = sim();
    let mut world = world(&sim);
    let url = channel(&sim);
    world.set("NO_COLOR", "1");
    let look = |world: &World| {
        let mut command = world.plugin();
        command.args(["doctor", "--url", &url]);
        let mut pty = Pty::spawn(&command);
        pty.finish();
        String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned()
    };
    let screen = look(&world);
    assert!(screen.contains("\u{2713} ok       terminal     80 by 24, raw mode, TERM=xterm"), "{screen}");
    assert!(!screen.contains("\u{1b}[3"), "NO_COLOR is set: {screen}");
    world.unset(&["NO_COLOR"]);
    let screen = look(&world);
    assert!(screen.contains("\u{1b}[32m\u{2713} ok     \u{1b}[0m  terminal     80 by 24"), "{screen}");
    world.set("TERM", "dumb");
    let screen = look(&world);
    assert!(screen.contains("warning  terminal     80 by 24, TERM is \"dumb\""), "{screen}");
}

#[test]
fn its_help() {
    let world = World::new();
    for words in [["doctor", "--help"], ["doctor", "-h"]] {
        let finished = run(world.plugin().args(words));
        finished.assert_ok();
        let text = finished.text();
        assert!(text.contains("--profile <PROFILE>") && text.contains("Exit status:"), "{text}");
        assert!(!text.contains("SSM_PLUGIN_RESTART"), "it is about doctor alone: {text}");
    }
}

#[test]
fn words_it_does_not_know() {
    let finished = run(World::new().plugin().args(["doctor", "--fix"]));
    assert_eq!(finished.status.code(), Some(2));
    assert_eq!(
        finished.errors(),
        "session-manager-plugin doctor: unexpected argument '--fix' found; \
         usage: session-manager-plugin doctor [OPTION]...\n"
    );
    assert_eq!(finished.text(), "");
}
