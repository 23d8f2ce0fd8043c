//! Text that a peer chooses never controls the terminal and never looks like a line of this program.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, SESSION, Socket};
use crate::harness::http::read_operation;
use crate::harness::net::Server;
use crate::harness::process::{Finished, Running, Signal, run as run_command};
use crate::harness::{TARGET, World, read, wire};

/// Sets the title, rings, clears the screen (once without ESC), and begins two lines in the plugin's name.
pub(super) const ATTACK: &str = "\x1b]0;title\x07\x1b[2J\u{9b}2J\r\nsession-manager-plugin: connection resumed\n\
    2026-01-01T00:00:00.000000Z forged";

/// Printed form of [`ATTACK`].
const SHOWN: &str = r"\x1b]0;title\x07\x1b[2J\x9b2J\x0d\x0asession-manager-plugin: connection resumed\x0a2026-01-01T00:00:00.000000Z forged";

/// A world with every status line and a log; and the log's path.
fn world() -> (World, PathBuf) {
    let mut world = World::new();
    let log = world.path("log");
    for (name, value) in [("STATUS", "always"), ("LOG", "trace"), ("LOG_FILE", &log.display().to_string())] {
        world.set(&format!("SSM_PLUGIN_{name}"), value);
    }
    (world, log)
}

#[track_caller]
fn run(started: &Started, world: &World) -> Finished {
    let mut running = Running::spawn(&mut started.command(world));
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    finished
}

/// Asserts that the log holds `shown`, and that each of its lines is one of ours.
#[track_caller]
fn assert_logged(log: &Path, shown: &str) {
    let text = read(log);
    assert!(text.contains(shown), "{text:?}");
    for line in text.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.starts_with("20") && line.contains(&format!("Z {SESSION} ")), "{line:?}");
    }
}

/// Asserts that no line of stderr holds a control character or lacks the program's name.
#[track_caller]
fn assert_printable(errors: &str) {
    for line in errors.split('\n').filter(|line| !line.is_empty()) {
        let is_ours = line.starts_with("session-manager-plugin: ");
        assert!(is_ours && !line.contains(char::is_control), "{line:?} in {errors:?}");
    }
}

#[test]
fn a_websocket_s_close_reason_is_shown_on_one_line() {
    // A websocket's reason has 123 bytes at most.
    let reason: &'static str = ATTACK.split(" forged").next().unwrap_or_default();
    let gateway = Gateway::scripted(move |socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        socket.close_websocket(reason);
    });
    let (mut world, log) = world();
    world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "1");
    let started = Started { endpoint: "http://127.0.0.1:1".to_owned(), ..Started::of(&gateway) };
    let mut running = Running::spawn(&mut started.command(&world));
    let _stdin = running.take_stdin();
    running.stderr.wait_for("connection lost");
    running.signal(Signal::TERM);
    let finished = running.finish();
    let errors = finished.errors();
    let shown = SHOWN.split(" forged").next().unwrap_or_default();
    assert!(
        errors.contains(&format!("connection lost (closed by the service: {shown}), reconnecting\n")),
        "{errors:?}"
    );
    assert_printable(&errors);
    assert_logged(&log, shown);
}

/// An endpoint that refuses each call with this message.
fn refusing_api(message: &str) -> Server {
    answering_api("400 Bad Request", &json!({"__type": "AccessDeniedException", "message": message}))
}

/// An endpoint with one answer to all calls.
fn answering_api(status: &'static str, answer: &Value) -> Server {
    let body = answer.to_string();
    Server::start(move |mut stream| {
        let _ = read_operation(&mut stream);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    })
}

/// A gateway that greets, closes the first websocket for this reason, and the session on the second.
fn gateway_that_cuts_once(reason: &'static str) -> Gateway {
    let cut = AtomicBool::new(false);
    Gateway::scripted(move |socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        if cut.swap(true, Ordering::SeqCst) {
            socket.close("");
        } else {
            socket.close_websocket(reason);
        }
    })
}

#[test]
fn an_error_message_of_aws_is_shown_on_one_line() {
    let gateway = gateway_that_cuts_once("");
    let api = refusing_api(&ATTACK.replace(['\r', '\n'], "\u{85}"));
    let (world, log) = world();
    let endpoint = format!("http://127.0.0.1:{}", api.port());
    let finished = run(&Started { endpoint, ..Started::of(&gateway) }, &world);
    let errors = finished.errors();
    let shown = SHOWN.replace(r"\x0d", r"\x85").replace(r"\x0a", r"\x85");
    assert!(
        errors.contains(&format!("ssm:ResumeSession failed: AccessDeniedException: {shown}")),
        "{errors:?}"
    );
    assert_printable(&errors);
    assert_logged(&log, &shown);
}

/// Plays a port session with these properties, to its refusal.
#[track_caller]
fn refused_port(properties: Value) -> String {
    let gateway = Gateway::scripted(move |socket: &mut Socket| {
        socket.handshake("3.3.1000.0", "Port", &properties);
    });
    let (world, log) = world();
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = running.take_stdin();
    running.stdout.wait_for("Cannot perform start session: ");
    running.stdout.wait_for("\n");
    let finished = running.finish();
    finished.assert_ok();
    // Debug output of structures, which escapes in its own way.
    assert_logged(&log, r"connection resumed\n2026");
    let text = finished.text();
    let text = text.trim_start_matches('\n');
    text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
}

#[test]
fn a_local_port_of_the_agent_is_shown_on_one_line() {
    let text =
        refused_port(json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": ATTACK}));
    assert!(text.contains(SHOWN) && text.lines().count() == 1, "{text:?}");
}

#[test]
fn a_socket_path_of_the_agent_is_shown_on_one_line() {
    let path = format!("/proc/nowhere/{ATTACK}");
    let properties = json!({"type": "LocalPortForwarding", "portNumber": "80", "localConnectionType": "unix",
        "localUnixSocket": path});
    let text = refused_port(properties);
    assert!(text.contains(SHOWN) && text.lines().count() == 1, "{text:?}");
}

/// The id stands in lines that callers parse, `Port N opened for sessionId …` among them.
#[test]
fn a_session_id_with_control_characters_is_refused() {
    let gateway = Gateway::scripted(|socket: &mut Socket| socket.close(""));
    gateway.start_sessions_after(Duration::ZERO);
    let (mut world, _) = world();
    let mut started = Started::of(&gateway);
    for id in [ATTACK, "s\nPort 22 opened for sessionId s.", "s\u{202e}"] {
        started.response["SessionId"] = id.into();
        let finished = run(&started, &world);
        let reason = "the field SessionId of the StartSession response contains control characters";
        assert_eq!(finished.text(), format!("Cannot perform start session: {reason}\n"));
        assert_eq!(finished.errors(), "");
    }
    // A session that a command has started itself.
    let answer =
        json!({"SessionId": ATTACK, "StreamUrl": gateway.response()["StreamUrl"], "TokenValue": "t"});
    let api = answering_api("200 OK", &answer);
    world.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", api.port()));
    let finished = run_command(world.plugin().args(["start-session", "--target", TARGET]));
    let reason = "ssm:StartSession failed: the session's id contains control characters";
    assert_eq!(finished.errors(), format!("session-manager-plugin: start-session: {reason}\n"));
    assert_eq!((finished.text().as_str(), gateway.opens()), ("", 0));
}

/// The log of `-v` is on the terminal itself.
#[test]
fn a_log_on_the_terminal_stays_on_its_lines() {
    let gateway = gateway_that_cuts_once(ATTACK.split(" forged").next().unwrap_or_default());
    gateway.start_sessions_after(Duration::ZERO);
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &gateway.endpoint());
    let mut running = Running::spawn(world.plugin().args(["start-session", "-vvv", "--target", TARGET]));
    let _stdin = running.take_stdin();
    let errors = running.finish().errors();
    let shown = SHOWN.split(" forged").next().unwrap_or_default();
    assert!(
        errors.contains(&format!("lost the websocket reason=closed by the service: {shown}\n")),
        "{errors:?}"
    );
    // The session is resumed, too, and lines of today follow the true one.
    assert!(
        errors.contains("2026-01-01T00:00:00") && !errors.contains("\n2026-01-01T00:00:00"),
        "{errors:?}"
    );
    assert!(errors.lines().all(|line| !line.contains(char::is_control)), "{errors:?}");
}

/// Names that the owner of an instance chooses.
#[test]
fn names_of_instances_are_shown_on_their_line() {
    let names = json!({"InstanceInformationList": [
        {"InstanceId": "i-1", "ComputerName": ATTACK, "PingStatus": "Online"},
        {"InstanceId": "i-2", "ComputerName": "web\u{202e}bew", "PingStatus": "Online"},
    ]});
    let api = answering_api("200 OK", &names);
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", api.port()));
    let errors = run_command(world.plugin().args(["start-session", "--target", "nobody"])).errors();
    assert!(errors.contains(SHOWN) && errors.contains(r"web\u{202e}bew"), "{errors:?}");
    assert!(errors.lines().count() == 3 && !errors.contains(['\x1b', '\u{9b}', '\u{202e}']), "{errors:?}");
}
