//! Malformed input from the network: one clear line or a logged drop; no panic, no hang, no lost session.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, SESSION, Socket, TOKEN};
use crate::harness::net::{connect, opened_port};
use crate::harness::process::{Finished, Running};
use crate::harness::wire::{self, Frame};

/// Runs the plugin against `gateway` to its end and checks what holds for every input.
#[track_caller]
fn finish(gateway: &Gateway) -> Finished {
    let mut world = World::new();
    // How long a first connection is tried: half a minute by default, too long for each of these tests.
    world.set("SSM_PLUGIN_OPEN_TIMEOUT", "5");
    let mut running = Running::spawn(&mut Started::of(gateway).command(&world));
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    let errors = finished.errors();
    assert!(errors.lines().count() <= 3, "not a clear line:\n{errors}");
    assert!(!finished.text().contains(TOKEN) && !errors.contains(TOKEN), "the token is shown");
    finished
}

/// A shell session with something malformed in the middle must continue and end as if nothing had come.
#[track_caller]
fn dropped(malformed: impl Fn(&mut Socket) + Send + Sync + 'static) {
    let gateway = Gateway::scripted(move |socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "before\r\n");
        socket.acknowledged(number);
        malformed(socket);
        let number = socket.data(wire::PAYLOAD_OUTPUT, "after\r\n");
        socket.acknowledged(number);
        socket.close("done");
    });
    let text = finish(&gateway).text();
    let expected = format!(
        "\nStarting session with SessionId: {SESSION}\nbefore\r\nafter\r\n\n\nSessionId: {SESSION} : done\n\n"
    );
    assert_eq!(text, expected);
    assert_eq!(gateway.opens(), 1, "a malformed frame is no reason to connect again");
}

/// The bytes of a good data message, to be spoilt.
fn good(socket: &Socket) -> Vec<u8> {
    Frame::output(socket.next_number(), wire::PAYLOAD_OUTPUT, "spoilt").encode()
}

/// `value` over the bytes at `at`.
fn patched(socket: &Socket, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = good(socket);
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn frame_that_is_empty() {
    dropped(|socket| socket.send_bytes(Vec::new()));
}

#[test]
fn frame_shorter_than_the_header() {
    dropped(|socket| {
        for length in [1, 4, 35, 36, 79, 119] {
            let mut bytes = good(socket);
            bytes.truncate(length);
            socket.send_bytes(bytes);
        }
    });
}

#[test]
fn frame_with_a_wrong_header_length() {
    dropped(|socket| {
        for length in [0u32, 1, 115, 117, 4096, i32::MAX as u32, u32::MAX - 3, u32::MAX] {
            let bytes = patched(socket, 0, &length.to_be_bytes());
            socket.send_bytes(bytes);
        }
    });
}

#[test]
fn frame_with_a_wrong_payload_length() {
    dropped(|socket| {
        for length in [7u32, 1 << 20, i32::MAX as u32, u32::MAX] {
            let bytes = patched(socket, 116, &length.to_be_bytes());
            socket.send_bytes(bytes);
        }
    });
}

#[test]
fn frame_with_a_wrong_digest() {
    dropped(|socket| {
        let bytes = patched(socket, 80, &[0; 32]);
        socket.send_bytes(bytes);
    });
}

#[test]
fn frame_of_an_unknown_message_type() {
    dropped(|socket| {
        socket.send(&Frame::control("what_is_this", "x"));
        socket.send(&Frame::control("", "x"));
        let bytes = patched(socket, 4, &[0xff; 32]);
        socket.send_bytes(bytes);
    });
}

#[test]
fn frame_with_a_negative_number() {
    dropped(|socket| {
        for number in [-1, i64::MIN] {
            socket.send(&Frame::output(number, wire::PAYLOAD_OUTPUT, "spoilt"));
        }
    });
}

#[test]
fn frame_with_a_number_far_ahead() {
    dropped(|socket| {
        for number in [i64::MAX, 1 << 40] {
            socket.send(&Frame::output(number, wire::PAYLOAD_OUTPUT, "spoilt"));
        }
    });
}

#[test]
fn frame_of_random_bytes() {
    dropped(|socket| {
        for seed in 0..50 {
            let length = usize::try_from(seed * 7).unwrap_or_default();
            socket.send_bytes(crate::harness::net::random_bytes(seed, length));
        }
    });
}

#[test]
fn frame_of_text() {
    dropped(|socket| {
        for text in ["", "hello", "{}", "{\"MessageSchemaVersion\":\"1.0\"}"] {
            socket.send_text(text);
        }
    });
}

#[test]
fn data_of_an_unknown_payload_type() {
    dropped(|socket| {
        for payload_type in [0, 4, 99, u32::MAX] {
            let number = socket.data(payload_type, "spoilt");
            socket.acknowledged(number);
        }
    });
}

#[test]
fn acknowledgement_that_is_no_json() {
    dropped(|socket| {
        for payload in ["", "{", "[]", "null", "{}", "\u{0}"] {
            socket.send(&Frame::control(wire::ACKNOWLEDGE, payload));
        }
    });
}

#[test]
fn acknowledgement_of_what_was_never_sent() {
    dropped(|socket| {
        for number in [
            json!(-1),
            json!(1_000_000),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1.5),
            json!("0"),
            Value::Null,
        ] {
            let payload = json!({"AcknowledgedMessageType": wire::INPUT, "AcknowledgedMessageId": "no uuid",
                "AcknowledgedMessageSequenceNumber": number, "IsSequentialMessage": true});
            socket.send(&Frame::control(wire::ACKNOWLEDGE, payload.to_string()));
        }
    });
}

#[test]
fn flags_of_a_wrong_length_or_value() {
    dropped(|socket| {
        for payload in [&b""[..], &[1], &[0, 0, 0], &[0, 0, 0, 99], &[0xff; 4], &[0; 64]] {
            let number = socket.data(wire::PAYLOAD_FLAG, payload);
            socket.acknowledged(number);
        }
    });
}

#[test]
fn closing_that_is_no_json_ends_the_session() {
    for payload in ["", "{", "null", "[1]", "{\"Output\":7}"] {
        let gateway = Gateway::scripted(move |socket| {
            let number = socket.data(wire::PAYLOAD_OUTPUT, "before\r\n");
            socket.acknowledged(number);
            // Either it counts as the end, or it is dropped and the good one ends the session.
            socket.send(&Frame::control(wire::CHANNEL_CLOSED, payload));
            socket.close("");
        });
        let text = finish(&gateway).text();
        assert!(text.contains("before\r\n"), "{text:?}");
        assert!(
            text.ends_with(&format!("Exiting session with sessionId: {SESSION}.\n\n")),
            "{payload}: {text:?}"
        );
    }
}

/// A handshake that cannot succeed: the session says so in one line, or drops it and ends as the gateway says.
#[track_caller]
fn refused_handshake(request: impl Into<String>) {
    let request = request.into();
    let gateway = Gateway::scripted(move |socket| {
        let number = socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, &request);
        socket.acknowledged(number);
        socket.close("gave up on the handshake");
    });
    let text = finish(&gateway).text();
    let clear =
        text.contains("Cannot perform start session: ") || text.contains(" : gave up on the handshake\n");
    assert!(clear, "{text:?}");
    assert!(text.lines().count() <= 8, "{text:?}");
}

#[test]
fn handshake_that_is_no_json() {
    for request in ["", "{", "[]", "null", "7", "\u{0}\u{1}"] {
        refused_handshake(request);
    }
}

#[test]
fn handshake_without_actions() {
    refused_handshake("{}");
    refused_handshake(json!({"AgentVersion": "3.3.0.0"}).to_string());
    refused_handshake(json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": null}).to_string());
    refused_handshake(json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [7]}).to_string());
    refused_handshake(json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": {}}).to_string());
}

#[test]
fn handshake_with_a_spoilt_session_type() {
    for parameters in
        [json!(null), json!("x"), json!({}), json!({"SessionType": 7}), json!({"SessionType": "Novel"})]
    {
        let action = json!({"ActionType": "SessionType", "ActionParameters": parameters});
        refused_handshake(json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": [action]}).to_string());
    }
}

#[test]
fn handshake_with_a_spoilt_agent_version() {
    for version in [json!(null), json!(""), json!("x.y"), json!("99999999999999999999.1"), json!(3)] {
        let parameters =
            json!({"SessionType": "Port", "Properties": {"type": "LocalPortForwarding", "portNumber": "80"}});
        let action = json!({"ActionType": "SessionType", "ActionParameters": parameters});
        let request = json!({"AgentVersion": version, "RequestedClientActions": [action]}).to_string();
        let gateway = Gateway::scripted(move |socket| {
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, &request);
            socket.close("gave up on the handshake");
        });
        finish(&gateway);
    }
}

#[test]
fn handshake_with_spoilt_port_properties() {
    let spoilt = [
        json!(null),
        json!("x"),
        json!({}),
        json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "70000"}),
        json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "-1"}),
        json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "http or so"}),
        json!({"type": "LocalPortForwarding", "portNumber": "80", "localConnectionType": "unix", "localUnixSocket": ""}),
        json!({"type": 7, "portNumber": 80}),
    ];
    for properties in spoilt {
        let gateway = Gateway::scripted(move |socket| {
            socket.handshake("3.3.0.0", "Port", &properties);
            socket.close("gave up on the handshake");
        });
        finish(&gateway);
    }
}

#[test]
fn handshake_with_an_unknown_action_is_answered_as_unsupported() {
    let gateway = Gateway::scripted(|socket| {
        let actions = json!([
            {"ActionType": "Levitate", "ActionParameters": {"Height": 3}},
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream", "Properties": null}},
        ]);
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions});
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        let Some(answer) = socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE) else { return };
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        let statuses: Vec<_> = answer["ProcessedClientActions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|a| &a["ActionStatus"])
            .collect();
        let verdict = if statuses == [&json!(3), &json!(1)] { "as it should" } else { "not as it should" };
        socket.data(
            wire::PAYLOAD_HANDSHAKE_COMPLETE,
            "{\"HandshakeTimeToComplete\":1,\"CustomerMessage\":\"\"}",
        );
        let number = socket.data(wire::PAYLOAD_OUTPUT, format!("answered {verdict}: {answer}\r\n"));
        socket.acknowledged(number);
        socket.close("");
    });
    let text = finish(&gateway).text();
    assert!(text.contains("answered as it should"), "{text}");
}

#[test]
fn handshake_end_without_its_beginning() {
    let gateway = Gateway::scripted(|socket| {
        for payload in ["", "{", "{\"HandshakeTimeToComplete\":\"x\"}"] {
            let number = socket.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, payload);
            socket.acknowledged(number);
        }
        socket.close("gave up on the handshake");
    });
    finish(&gateway);
}

#[test]
fn challenge_without_encryption() {
    dropped(|socket| {
        for payload in ["", "{", "{\"Challenge\":\"AAAA\"}", "{\"Challenge\":7}"] {
            let number = socket.data(8, payload);
            socket.acknowledged(number);
        }
    });
}

/// A multiplexed port session with one local connection open when the agent sends `bytes`: it ends as the
/// gateway says, or with a line of its own, and the listener is gone.
#[track_caller]
fn spoilt_smux(bytes: impl Fn() -> Vec<u8> + Send + Sync + 'static) {
    let gateway = Gateway::scripted(move |socket| {
        socket.port_session("3.3.0.0");
        // The client's SYN and first bytes.
        let _ = socket.input();
        for chunk in bytes().chunks(1024) {
            let number = socket.data(wire::PAYLOAD_OUTPUT, chunk);
            socket.acknowledged(number);
        }
        socket.close("the gateway has had enough");
    });
    let world = World::new();
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = running.take_stdin();
    let port = opened_port(&running.stdout);
    let mut local = connect(port);
    local.write_all(b"some bytes").expect("write");
    let finished = running.finish();
    finished.assert_ok();
    assert!(finished.errors().lines().count() <= 3, "{}", finished.errors());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "still listening");
}

#[test]
fn smux_of_another_version() {
    spoilt_smux(|| wire::smux(2, 2, 3, b"x"));
    spoilt_smux(|| wire::smux(0xff, 2, 3, b"x"));
}

#[test]
fn smux_with_an_unknown_command() {
    spoilt_smux(|| wire::smux(1, 9, 3, b"x"));
    spoilt_smux(|| wire::smux(1, 0xff, 3, b""));
}

#[test]
fn smux_data_for_an_unknown_stream() {
    spoilt_smux(|| wire::smux(1, 2, 4242, b"nobody asked"));
    spoilt_smux(|| wire::smux(1, 2, 0, b"nobody asked"));
}

#[test]
fn smux_stream_opened_by_the_agent() {
    spoilt_smux(|| wire::smux(1, 0, 2, b""));
    spoilt_smux(|| wire::smux(1, 0, 3, b""));
    spoilt_smux(|| wire::smux(1, 0, 3, b"with data"));
}

#[test]
fn smux_end_of_an_unknown_stream_and_twice() {
    spoilt_smux(|| wire::smux(1, 1, 77, b""));
    spoilt_smux(|| {
        [wire::smux(1, 1, 3, b""), wire::smux(1, 1, 3, b""), wire::smux(1, 2, 3, b"late")].concat()
    });
}

#[test]
fn smux_cut_off_in_the_header_and_in_the_payload() {
    spoilt_smux(|| vec![1, 2, 3]);
    spoilt_smux(|| {
        let mut bytes = wire::smux(1, 2, 3, &[7; 1000]);
        bytes.truncate(500);
        bytes
    });
}

#[test]
fn smux_of_the_longest_length() {
    spoilt_smux(|| wire::smux(1, 2, 3, &[7; 65_535]));
}

#[test]
fn smux_of_random_bytes() {
    for seed in 0..8 {
        spoilt_smux(move || crate::harness::net::random_bytes(seed, 5000));
    }
}

/// A gateway that does not speak websocket: one line, within the test's patience.
#[track_caller]
fn no_websocket(answer: &'static [u8]) {
    let gateway = Gateway::raw(move |mut stream| {
        let mut request = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut request);
        let _ = stream.write_all(answer);
    });
    let text = finish(&gateway).text();
    let lines: Vec<_> =
        text.lines().filter(|line| line.starts_with("Cannot perform start session: ")).collect();
    assert_eq!(lines.len(), 1, "{text:?}");
}

#[test]
fn gateway_that_hangs_up() {
    no_websocket(b"");
}

#[test]
fn gateway_that_refuses() {
    no_websocket(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn gateway_that_is_a_web_server() {
    no_websocket(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

#[test]
fn gateway_that_redirects() {
    no_websocket(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn gateway_that_talks_nonsense() {
    no_websocket(&[0xff; 2000]);
    no_websocket(b"SSH-2.0-OpenSSH_9.2\r\n");
}

#[test]
fn gateway_that_does_not_run() {
    let started = {
        let gateway = Gateway::raw(|_| ());
        Started::of(&gateway)
    };
    let world = World::new();
    let mut running = Running::spawn(&mut started.command(&world));
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert!(finished.text().contains("Cannot perform start session: "), "{:?}", finished.text());
}
