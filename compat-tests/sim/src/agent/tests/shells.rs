//! Shells and commands.

use super::super::Document;
use super::client::{Client, spec};

fn command(command: &str, separate_output_stream: bool) -> Client {
    let command = command.to_owned();
    Client::start(spec(Document::NonInteractiveCommand { command, separate_output_stream }))
}

#[tokio::test]
async fn a_shell_starts_without_a_handshake_and_ends_with_exit() {
    let mut client = Client::start(spec(Document::Shell));
    let prompt = client.message().await.unwrap();
    assert_eq!(prompt.0, 1);
    client.send(3, br#"{"cols":91,"rows":37}"#).await;
    client.send(1, b"PS1=; stty -echo\r").await;
    client.send(1, b"stty size; echo $TERM; echo end\r").await;
    let output = client.output_until("xterm-256color\r\nend\r\n").await;
    assert!(output.contains("37 91\r\n"), "{output:?}");
    client.send(1, b"printf 'n\xc3\xb6\xff....'; exit 3\r").await;
    let (rest, end) = client.rest().await;
    let rest: Vec<u8> = rest.into_iter().flat_map(|(_, payload)| payload).collect();
    assert_eq!(rest, b"n\xc3\xb6\xff....");
    assert_eq!(end.output, "");
}

/// A real agent's shells know nothing about the user who starts sessions.
#[tokio::test]
async fn programs_do_not_inherit_the_simulators_environment() {
    // What starts this test has set it, and it is not for the instance.
    let outside = "CARGO_MANIFEST_DIR";
    assert!(std::env::var_os(outside).is_some());
    for document in [
        Document::InteractiveCommand { command: "env".to_owned() },
        Document::NonInteractiveCommand { command: "env".to_owned(), separate_output_stream: true },
    ] {
        let handshake = matches!(document, Document::NonInteractiveCommand { .. });
        let mut client = Client::start(spec(document));
        if handshake {
            client.handshake("1.2.896.0").await;
        }
        let (rest, _) = client.rest().await;
        let rest: Vec<u8> = rest.into_iter().flat_map(|(_, payload)| payload).collect();
        let text = String::from_utf8(rest).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        for name in ["PATH", "TERM", "LANG"] {
            assert!(names.contains(&name), "{name} is not in {text}");
        }
        let is_known = |name: &&str| {
            [
                "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TERM", "LANG", "PWD", "OLDPWD",
                "SHLVL", "_",
            ]
            .contains(name)
        };
        assert!(names.iter().all(is_known), "{text}");
    }
}

#[tokio::test]
async fn an_interrupt_reaches_the_shells_job() {
    let mut client = Client::start(spec(Document::InteractiveCommand {
        command: "trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.05; done".to_owned(),
    }));
    client.output_until("ready\r\n").await;
    client.send(1, b"\x03").await;
    let (rest, _) = client.rest().await;
    let rest: Vec<u8> = rest.into_iter().flat_map(|(_, payload)| payload).collect();
    assert_eq!(String::from_utf8(rest).unwrap(), "^Cinterrupted\r\n");
}

#[tokio::test]
async fn output_larger_than_a_message_comes_whole() {
    let mut client = Client::start(spec(Document::InteractiveCommand { command: "seq 20000".to_owned() }));
    let (rest, _) = client.rest().await;
    assert!(rest.iter().all(|(payload_type, payload)| *payload_type == 1 && payload.len() <= 1024 + 3));
    let output: Vec<u8> = rest.into_iter().flat_map(|(_, payload)| payload).collect();
    let expected: String = (1..=20000).map(|n| format!("{n}\r\n")).collect();
    assert!(output == expected.as_bytes());
}

#[tokio::test]
async fn a_dropped_session_leaves_no_process() {
    let mut client = Client::start(spec(Document::Shell));
    client
        .send(1, b"PS1=; stty -echo; set -m; sleep 1000 & printf 'p%s %s %s %s\\n' ids $$ $! e''nd\n")
        .await;
    let mut output = String::new();
    while !output.contains(" end\r\n") {
        output.push_str(&String::from_utf8_lossy(&client.message().await.unwrap().1));
    }
    let pids = output.rsplit_once("pids ").unwrap().1;
    let pids: Vec<u32> = pids.split_whitespace().take(2).map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| alive(*pid)), "{output:?}");
    client.agent.abort();
    while pids.iter().any(|pid| alive(*pid)) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Returns whether the process runs; one that only waits to be collected does not.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test]
async fn separate_streams_and_the_exit_code() {
    let mut client = command("sh -c 'echo out; echo err >&2; exit 7'", true);
    client.handshake("1.2.896.0").await;
    client.send(3, br#"{"cols":300,"rows":100}"#).await;
    client.send(1, b"ignored").await;
    let (mut rest, end) = client.rest().await;
    assert_eq!(rest.pop().unwrap(), (12, b"EXIT_CODE: 7".to_vec()));
    rest.sort();
    assert_eq!(rest, [(1, b"out\n".to_vec()), (11, b"err\n".to_vec())]);
    assert_eq!(end.output, "");
}

#[tokio::test]
async fn combined_streams() {
    let mut client = command("sh -c 'echo out; echo err >&2; exit 7'", false);
    client.handshake("1.2.896.0").await;
    let (rest, _) = client.rest().await;
    assert_eq!(rest, [(1, b"out\nerr\n".to_vec())]);
}

#[tokio::test]
async fn an_interrupt_is_a_signal_to_the_program() {
    let mut client = command("sh -c 'sleep 1000 & echo ready; wait'", true);
    client.handshake("1.2.896.0").await;
    assert_eq!(client.output_until("ready\n").await, "ready\n");
    client.send(1, b"\x03").await;
    // The job holds the pipes; the agent waits for that too, so it has to be ended with the session.
    let pending = tokio::time::timeout(std::time::Duration::from_millis(300), client.message()).await;
    assert!(pending.is_err());

    let mut client = command("sleep 1000", true);
    client.handshake("1.2.896.0").await;
    client.send(1, b"\x03").await;
    assert_eq!(client.rest().await.0, [(12, b"EXIT_CODE: -1".to_vec())]);
}

#[tokio::test]
async fn programs_that_cannot_be_started() {
    let mut client = command("/nonexistent-x a", true);
    client.handshake("1.2.896.0").await;
    let (rest, _) = client.rest().await;
    let reason = b"fork/exec /nonexistent-x: no such file or directory".to_vec();
    assert_eq!(rest, [(12, b"EXIT_CODE: 1".to_vec()), (11, reason)]);

    let mut client = command("  ", true);
    client.handshake("1.2.896.0").await;
    let (_, end) = client.rest().await;
    assert_eq!(end.output, "Commands cannot be empty for session type NonInteractiveCommands");
}
