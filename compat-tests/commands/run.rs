//! `run`.

use std::process::Stdio;

use ssm_sim::Config;
use ssm_sim::agent::AgentOptions;

use super::{plugin, world};
use crate::harness::TARGET;
use crate::harness::net::eventually;
use crate::harness::process::{Finished, Running, Signal, run, run_with_input};
use crate::harness::sim::{assert_all_ended, sim, start, unpaced_sim};

fn on_target(words: &[&str]) -> Finished {
    let sim = unpaced_sim();
    let all = [&["run", TARGET, "--"][..], words].concat();
    run(&mut plugin(&world(&sim), &all))
}

#[test]
fn statuses_are_the_command_s() {
    for (words, status) in [(&["true"][..], 0), (&["sh", "-c", "exit 3"], 3), (&["no-such-program"], 127)] {
        let finished = on_target(words);
        assert_eq!(finished.status.code(), Some(status), "{words:?}: {}", finished.errors());
        assert_eq!(finished.text(), "", "{words:?}");
    }
}

/// The agent reports that some signal has ended it, which could otherwise be taken for a failure of the plugin.
#[test]
fn a_command_that_a_signal_has_ended_is_reported() {
    let line = "session-manager-plugin: run: the remote command was ended by a signal\n";
    for (script, text) in [("kill -9 $$", ""), ("echo out; kill -TERM $$", "out\n")] {
        let finished = on_target(&["sh", "-c", script]);
        assert_eq!((finished.text().as_str(), finished.errors().as_str()), (text, line), "{script}");
        assert_eq!(finished.status.code(), Some(255), "{script}");
    }
    assert_eq!(on_target(&["sh", "-c", "exit 255"]).errors(), "");
}

#[test]
fn streams_stay_separate_and_clean() {
    let finished = on_target(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("out\n", "err\n"));
    assert_eq!(finished.status.code(), Some(7));
}

#[test]
fn arguments_arrive_exactly_as_given() {
    let words = ["a b", "$c", "it's", "", "\"q\"", "*", "back\\slash", "new\nline", "~", "#x", "ä"];
    let finished = on_target(&[&["printf", "%s|"][..], &words].concat());
    finished.assert_ok();
    assert_eq!(finished.text(), words.map(|word| format!("{word}|")).concat());
}

/// 5 MB on each stream, none lost, none mixed up.
#[test]
fn five_megabytes_on_both_streams() {
    let script = "i=0; while [ $i -lt 50 ]; do head -c 100000 /dev/zero | tr '\\0' o; \
                  head -c 100000 /dev/zero | tr '\\0' e >&2; i=$((i+1)); done; exit 5";
    let finished = on_target(&["sh", "-c", script]);
    assert_eq!(finished.status.code(), Some(5));
    assert!(finished.stdout.len() == 5_000_000 && finished.stdout.iter().all(|byte| *byte == b'o'));
    assert!(finished.stderr.len() == 5_000_000 && finished.stderr.iter().all(|byte| *byte == b'e'));
}

/// Agents before 3.1.1511.0 put both streams into one file, and report no status.
#[test]
fn an_agent_without_separate_output_still_has_a_status() {
    let agent = AgentOptions { version: Some("3.0.1390.0".to_owned()), ..AgentOptions::default() };
    let sim = start(Config { agent, ..Config::default() });
    for (words, text, status) in [
        (&["sh", "-c", "echo out; echo err >&2; exit 3"][..], "out\nerr\n", 3),
        (&["true"], "", 0),
        (&["printf", "%s|", "a b", "$c"], "a b|$c|", 0),
    ] {
        let finished = run(&mut plugin(&world(&sim), &[&["run", TARGET, "--"][..], words].concat()));
        assert_eq!((finished.text().as_str(), finished.status.code()), (text, Some(status)), "{words:?}");
        assert_eq!(finished.errors(), "", "{words:?}");
    }
    let finished = run(&mut plugin(&world(&sim), &["run", TARGET, "--", "no-such-program"]));
    assert_eq!(finished.status.code(), Some(127), "{}", finished.text());
    assert_all_ended(&sim);
}

/// A region without the document: a shell, with our own marks around the command's output.
#[test]
fn a_region_without_the_document_runs_the_command_in_a_shell() {
    let missing_documents = vec!["AWS-StartNonInteractiveCommand".to_owned()];
    let sim = start(Config { missing_documents, ..Config::default() });
    for (words, text, status) in [
        (&["sh", "-c", "echo out; printf 'err\\n' >&2; exit 3"][..], "out\nerr\n", 3),
        (&["printf", "%s|", "a b", "$c", "it's", "*", "ä", ""], "a b|$c|it's|*|ä||", 0),
        (&["seq", "20000"], &(1..=20_000).map(|number| format!("{number}\n")).collect::<String>(), 0),
        (&["cat"], "", 0),
    ] {
        let finished = run(&mut plugin(&world(&sim), &[&["run", TARGET, "--"][..], words].concat()));
        assert!(finished.text() == text, "{words:?}: {:?} {}", finished.text(), finished.errors());
        assert_eq!(finished.status.code(), Some(status), "{words:?}");
        assert_eq!(finished.errors().matches("using a shell").count(), 1, "{}", finished.errors());
    }
    let finished = run(&mut plugin(&world(&sim), &["run", "-q", TARGET, "--", "no-such-program"]));
    assert_eq!((finished.status.code(), finished.errors().as_str()), (Some(127), ""));
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let words = ["run", "-q", TARGET, "--", "sh", "-c", script];
    let running = Running::spawn_without_stdin(&mut plugin(&world(&sim), &words));
    running.stdout.wait_for("ready");
    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(9), "ready\ncaught\n"));
    let long = "x".repeat(2000);
    let finished = run(&mut plugin(&world(&sim), &["run", TARGET, "--", "echo", &long]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("too long for a shell session: "), "{}", finished.errors());
    assert_all_ended(&sim);
}

#[test]
fn windows_is_refused_by_name() {
    let instances = vec!["i-0aaaaaaaaaaaaaaaa,name=win-1,platform=Windows".parse().expect("an instance")];
    let sim = start(Config { instances, ..Config::default() });
    let finished = run(&mut plugin(&world(&sim), &["run", "win-1", "--", "hostname"]));
    assert_eq!(finished.status.code(), Some(255));
    assert!(finished.errors().contains("the target runs Windows"), "{}", finished.errors());
    assert_eq!(sim.requests().start, 0);
}

/// An id is looked up when PowerShell has answered, not before each session.
#[test]
fn windows_is_named_for_an_id_too() {
    let windows = || vec![format!("{TARGET},platform=Windows").parse().expect("an instance")];
    let agent = || AgentOptions { is_windows: true, ..AgentOptions::default() };
    let line = "\nsession-manager-plugin: run: the target runs Windows, which has no POSIX shell; use \
                session-manager-plugin shell, or aws ssm send-command\n";
    let sim = start(Config { instances: windows(), agent: agent(), ..Config::default() });
    let finished = run(&mut plugin(&world(&sim), &["run", TARGET, "--", "hostname"]));
    assert_eq!(finished.status.code(), Some(255), "{}", finished.errors());
    assert!(finished.errors().ends_with(line), "{}", finished.errors());
    assert_all_ended(&sim);

    // In a shell, PowerShell would wait for more input.
    let missing_documents = vec!["AWS-StartNonInteractiveCommand".to_owned()];
    let sim = start(Config { instances: windows(), agent: agent(), missing_documents, ..Config::default() });
    let finished = run(&mut plugin(&world(&sim), &["run", TARGET, "--", "hostname"]));
    assert_eq!(format!("\n{}", finished.errors()), line);
    assert!(sim.sessions().is_empty(), "no shell is opened");

    // Without the permission to look it up, the status is the command's.
    let denied = vec!["ssm:DescribeInstanceInformation".to_owned()];
    let sim = start(Config { instances: windows(), agent: agent(), denied, ..Config::default() });
    let finished = run(&mut plugin(&world(&sim), &["run", TARGET, "--", "hostname"]));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.errors());
    assert!(finished.errors().ends_with("CommandNotFoundException\r\n"), "{}", finished.errors());
}

#[test]
fn an_interrupt_reaches_the_command() {
    let sim = sim();
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let running =
        Running::spawn_without_stdin(&mut plugin(&world(&sim), &["run", TARGET, "--", "sh", "-c", script]));
    running.stdout.wait_for("ready");
    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!(
        (finished.status.code(), finished.text().as_str()),
        (Some(9), "ready\ncaught\n"),
        "{}",
        finished.errors()
    );

    let words = ["run", TARGET, "--", "sh", "-c", "echo ready; exec sleep 60"];
    let running = Running::spawn_without_stdin(&mut plugin(&world(&sim), &words));
    running.stdout.wait_for("ready");
    running.signal(Signal::INT);
    assert_eq!(running.finish().status.code(), Some(130), "128 and the number of SIGINT");
    assert_all_ended(&sim);
}

#[test]
fn a_termination_ends_the_session_and_the_command() {
    let sim = sim();
    let words = ["run", TARGET, "--", "sh", "-c", "echo ready; exec sleep 60"];
    let running = Running::spawn_without_stdin(&mut plugin(&world(&sim), &words));
    running.stdout.wait_for("ready");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().status.code(), Some(143));
    assert_all_ended(&sim);
}

#[test]
fn a_reader_that_has_gone_ends_the_session() {
    let sim = unpaced_sim();
    let world = world(&sim);
    let mut command = world.shell("session-manager-plugin run \"$0\" -- yes | head -n 2");
    let finished = run(command.arg(TARGET));
    assert_eq!(finished.text(), "y\ny\n", "{}", finished.errors());
    assert_all_ended(&sim);
    // A stdout that is closed from the start takes nothing, and costs neither a panic nor the session's end.
    let mut command = world.shell("session-manager-plugin run \"$0\" -- sh -c 'echo out; echo err >&2' >&-");
    let finished = run(command.arg(TARGET));
    assert!(!finished.errors().contains("panicked"), "{}", finished.errors());
    assert_all_ended(&sim);
}

#[test]
fn input_is_not_passed_and_that_is_reported() {
    let sim = sim();
    let finished = run_with_input(&mut plugin(&world(&sim), &["run", TARGET, "--", "cat"]), b"input\n\x03");
    finished.assert_ok();
    assert_eq!(finished.text(), "");
    assert_eq!(finished.errors(), "session-manager-plugin: run: stdin is not passed to the command\n");
    let finished = run_with_input(&mut plugin(&world(&sim), &["run", "-q", TARGET, "--", "cat"]), b"input\n");
    assert_eq!(finished.errors(), "");
}

#[test]
fn a_session_that_ends_early_is_a_failure_of_ours() {
    let sim = sim();
    let words = ["run", TARGET, "--", "sh", "-c", "echo ready; exec sleep 60"];
    let running = Running::spawn(plugin(&world(&sim), &words).stdin(Stdio::piped()));
    running.stdout.wait_for("ready");
    sim.close_session(&sim.sessions()[0].id, "ended by the administrator");
    let finished = running.finish();
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), "ready\n"));
    assert!(finished.errors().contains("ended by the administrator"), "{}", finished.errors());
    eventually("the end", || sim.sessions().iter().all(|s| s.state == ssm_sim::SessionState::Ended));
}
