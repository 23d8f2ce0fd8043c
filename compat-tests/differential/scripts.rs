//! Scripts that both plugins run. Each returns a transcript: what the plugin printed, how it ended, what it
//! sent, with the ports named after their order of appearance.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, SESSION, Socket, TOKEN};
use crate::harness::net::{connect, opened_port};
use crate::harness::process::{Outcome, Running, describe};
use crate::harness::wire::{self, Frame};
use crate::harness::{REGION, World};

/// Puts one plugin through it and answers the transcript.
pub type Script = fn(&Path) -> String;

/// All scripts by name.
pub const ALL: &[(&str, Script)] = &[
    ("argv-none", |plugin| words(plugin, &[])),
    ("argv-version", |plugin| words(plugin, &["--version"])),
    ("argv-unknown-word", |plugin| words(plugin, &["foo", "bar"])),
    ("argv-help", |plugin| words(plugin, &["--help"])),
    ("argv-other-operation", |plugin| words(plugin, &["{}", REGION, "StopSession"])),
    ("argv-bad-json", |plugin| words(plugin, &["{", REGION, "StartSession"])),
    ("argv-missing-field", |plugin| words(plugin, &["{\"SessionId\":\"x\"}", REGION, "StartSession"])),
    ("argv-no-target", argv_no_target),
    ("open-request", open_request),
    ("shell-greeting", |plugin| shell(plugin, "")),
    ("shell-ended-with-reason", |plugin| shell(plugin, "because")),
    ("shell-input", |plugin| shell_input(plugin, b"ls -l\xc3\xa4\n")),
    ("shell-enter", |plugin| shell_input(plugin, b"\n")),
    ("shell-stdin-eof", shell_stdin_eof),
    ("shell-customer-message", shell_customer_message),
    ("command-streams-and-exit-code", command),
    ("handshake-answer", |plugin| handshake(plugin, &[session_type("Standard_Stream", &Value::Null)])),
    ("handshake-unknown-action", handshake_unknown_action),
    ("port-multiplexed", |plugin| port(plugin, "3.3.0.0")),
    ("port-basic", |plugin| port(plugin, "3.0.196.0")),
    ("port-ended-with-reason", port_ended_with_reason),
    ("port-interrupted", |plugin| port_interrupted(plugin, "3.3.0.0")),
    ("port-interrupted-old-agent", |plugin| port_interrupted(plugin, "2.3.700.0")),
    ("port-in-use", port_in_use),
    ("port-refused-destination", port_refused_destination),
    ("ssh-bytes", |plugin| ssh(plugin, b"SSH-2.0-test\r\n\xff\x00\x0d\x03")),
    ("ssh-newline", |plugin| ssh(plugin, b"\n")),
    ("ssh-stdin-eof", ssh_stdin_eof),
];

/// Time after which a plugin counts as hanging in a script. The official one does hang in some.
const HANGING: Duration = Duration::from_secs(20);

/// The script of this name.
#[track_caller]
pub fn named(name: &str) -> Script {
    ALL.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no script is called {name}")).1
}

/// Lines about what the client sent, filled by a gateway's script.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("notes lock").push(line.into());
    }

    fn input(&self, frame: &Frame) {
        self.add(format!("sent type {}: {}", frame.payload_type, frame.payload.escape_ascii()));
    }
}

fn transcript(finished: &Outcome, notes: &Notes, gateway: Option<&Gateway>) -> String {
    // A Go program that panics prints addresses: the fact is enough.
    let panicked = finished.errors().starts_with("panic: ");
    let end = match &finished.status {
        Some(status) => describe(*status),
        None => "hangs".to_owned(),
    };
    let mut out = format!("{end}{}\n", if panicked { ", panic" } else { "" });
    for line in finished.stdout.split_inclusive(|byte| *byte == b'\n') {
        out += &format!("stdout: {}\n", line.escape_ascii());
    }
    for line in notes.0.lock().expect("notes lock").iter() {
        out += &format!("{line}\n");
    }
    for call in gateway.iter().flat_map(|gateway| gateway.calls()) {
        out += &format!("called {call}\n");
    }
    out
}

/// Runs the plugin against a gateway with a stdin that stays open.
fn against(plugin: &Path, gateway: &Gateway, notes: &Notes, input: &[u8]) -> String {
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(gateway).command(&world));
    running.send(input);
    let _stdin = running.take_stdin();
    transcript(&running.finish_or_give_up(HANGING), notes, Some(gateway))
}

fn words(plugin: &Path, words: &[&str]) -> String {
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(world.plugin().args(words));
    let _stdin = running.take_stdin();
    let home = world.home().display().to_string();
    transcript(&running.finish_or_give_up(HANGING), &Notes::default(), None).replace(&home, "<home>")
}

fn argv_no_target(plugin: &Path) -> String {
    let response =
        json!({"SessionId": SESSION, "TokenValue": TOKEN, "StreamUrl": "ws://127.0.0.1:1/"}).to_string();
    words(plugin, &[&response, REGION, "NoOperation", "", "{}", ""])
}

/// The first frame, its random ids replaced.
fn open_request(plugin: &Path) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        let mut open = socket.open.clone();
        for id in ["RequestId", "ClientId"] {
            let well_formed = open[id].as_str().is_some_and(|id| uuid::Uuid::try_parse(id).is_ok());
            open[id] = json!(if well_formed { "<uuid>" } else { "not a uuid" });
        }
        seen.add(format!("opened with {open}"));
        greet(socket, "");
    });
    against(plugin, &gateway, &notes, b"")
}

fn greet(socket: &mut Socket, output: &str) {
    let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
    socket.acknowledged(number);
    socket.close(output);
}

fn shell(plugin: &Path, output: &'static str) -> String {
    let gateway = Gateway::scripted(move |socket| greet(socket, output));
    against(plugin, &gateway, &Notes::default(), b"")
}

/// A shell that notes the size and the input it gets.
fn shell_input(plugin: &Path, input: &'static [u8]) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        socket.data(wire::PAYLOAD_OUTPUT, "$ ");
        let mut lines = Vec::new();
        let mut typed = Vec::new();
        while typed.len() < input.len() || lines.is_empty() {
            let Some(frame) = socket.input() else { break };
            match frame.payload_type {
                wire::PAYLOAD_SIZE => lines.push(frame),
                wire::PAYLOAD_OUTPUT => typed.extend(frame.payload),
                _ => lines.push(frame),
            }
        }
        lines.dedup_by(|a, b| a.payload == b.payload);
        lines.iter().for_each(|frame| seen.input(frame));
        seen.add(format!("typed: {}", typed.escape_ascii()));
        socket.close("");
    });
    against(plugin, &gateway, &notes, input)
}

/// Input ends at once; the remote answers half a second's work later.
fn shell_stdin_eof(plugin: &Path) -> String {
    let gateway = Gateway::scripted(|socket| {
        socket.data(wire::PAYLOAD_OUTPUT, "$ ");
        let _ = socket.input_of(wire::PAYLOAD_OUTPUT);
        // The other end must be gone, or wait: nothing else comes from it.
        let number = socket.data(wire::PAYLOAD_OUTPUT, "the answer\r\n");
        socket.acknowledged(number);
        socket.close("");
    });
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    running.stdout.wait_for("$ ");
    running.send("date\n");
    running.close_stdin();
    transcript(&running.finish_or_give_up(HANGING), &Notes::default(), None)
}

fn session_type(name: &str, properties: &Value) -> Value {
    json!({"ActionType": "SessionType", "ActionParameters": {"SessionType": name, "Properties": properties}})
}

/// A shell behind a handshake with these actions; the answer is noted.
fn handshake(plugin: &Path, actions: &[Value]) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions}).to_string();
    let gateway = Gateway::scripted(move |socket| {
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, &request);
        let Some(frame) = socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE) else { return };
        let answer: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        seen.add(format!("answered {answer}"));
        socket.handshake_complete(&json!({"HandshakeTimeToComplete": 1, "CustomerMessage": ""}));
        greet(socket, "");
    });
    against(plugin, &gateway, &notes, b"")
}

fn handshake_unknown_action(plugin: &Path) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let actions = [
        session_type("Standard_Stream", &Value::Null),
        json!({"ActionType": "Levitate", "ActionParameters": {}}),
    ];
    let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions}).to_string();
    let gateway = Gateway::scripted(move |socket| {
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, &request);
        let Some(frame) = socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE) else { return };
        let answer: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        for action in answer["ProcessedClientActions"].as_array().into_iter().flatten() {
            seen.add(format!("answered {} with status {}", action["ActionType"], action["ActionStatus"]));
        }
        // What the agent does when not all has gone well.
        socket.close("handshake failed");
    });
    against(plugin, &gateway, &notes, b"")
}

fn shell_customer_message(plugin: &Path) -> String {
    let gateway = Gateway::scripted(|socket| {
        let actions = [session_type("Standard_Stream", &Value::Null)];
        let request = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions});
        socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        let _ = socket.input_of(wire::PAYLOAD_HANDSHAKE_RESPONSE);
        let complete = json!({"HandshakeTimeToComplete": 1, "CustomerMessage": "You are being recorded."});
        socket.handshake_complete(&complete);
        greet(socket, "");
    });
    against(plugin, &gateway, &Notes::default(), b"")
}

fn command(plugin: &Path) -> String {
    let gateway = Gateway::scripted(|socket| {
        let properties = json!({"command": "x", "runAsElevated": false, "separateOutputStream": "true"});
        socket.handshake("3.3.0.0", "NonInteractiveCommands", &properties);
        socket.data(wire::PAYLOAD_OUTPUT, "to stdout\n");
        socket.data(wire::PAYLOAD_STDERR, "to stderr\n");
        let number = socket.data(wire::PAYLOAD_EXIT_CODE, "EXIT_CODE: 3");
        socket.acknowledged(number);
        socket.close("");
    });
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = running.take_stdin();
    let finished = running.finish_or_give_up(HANGING);
    let notes = Notes::default();
    for line in finished.errors().lines() {
        notes.add(format!("stderr: {line}"));
    }
    transcript(&finished, &notes, Some(&gateway))
}

/// One local connection that says hello, is answered, and closes.
fn port(plugin: &Path, agent: &'static str) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let multiplexed = agent.starts_with("3.3");
    let gateway = Gateway::scripted(move |socket| {
        socket.port_session(agent);
        let mut up = Vec::new();
        let hello = loop {
            let Some(frame) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            up.extend(frame.payload);
            let taken = if multiplexed { wire::smux_taken(&up) } else { up.clone() };
            if taken.ends_with(b"hello") {
                break taken;
            }
        };
        seen.add(format!("sent {}", hello.escape_ascii()));
        let answer = if multiplexed { wire::smux(1, 2, 3, b"welcome") } else { b"welcome".to_vec() };
        socket.data(wire::PAYLOAD_OUTPUT, answer);
        while let Some(frame) =
            socket.input_of(if multiplexed { wire::PAYLOAD_OUTPUT } else { wire::PAYLOAD_FLAG })
        {
            if !multiplexed {
                seen.input(&frame);
                break;
            }
            up.extend(&frame.payload);
            let payload = wire::smux_taken(&up)[hello.len()..].to_vec();
            if !payload.is_empty() {
                seen.input(&Frame { payload, ..frame });
                break;
            }
        }
        socket.close("");
    });
    port_client(plugin, &gateway, &notes, |local| {
        local.write_all(b"hello").expect("write");
        let mut answer = [0; 7];
        local.read_exact(&mut answer).expect("read");
        format!("local side got {}", answer.escape_ascii())
    })
}

fn port_ended_with_reason(plugin: &Path) -> String {
    let gateway = Gateway::scripted(|socket| {
        socket.port_session("3.3.0.0");
        let _ = socket.input_of(wire::PAYLOAD_OUTPUT);
        socket.close("the instance went away");
    });
    port_client(plugin, &gateway, &Notes::default(), |local| {
        local.write_all(b"hello").expect("write");
        let end = local.read_to_end(&mut Vec::new());
        format!("local side ended: {}", end.is_ok_and(|n| n == 0))
    })
}

/// Starts a port session, does one local connection's work, and answers the transcript with the port named.
fn port_client(
    plugin: &Path,
    gateway: &Gateway,
    notes: &Notes,
    work: impl FnOnce(&mut std::net::TcpStream) -> String,
) -> String {
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(gateway).command(&world));
    let _stdin = running.take_stdin();
    let port = opened_port(&running.stdout);
    let line = {
        let mut local = connect(port);
        work(&mut local)
    };
    let finished = running.finish_or_give_up(HANGING);
    notes.add(line);
    transcript(&finished, notes, Some(gateway)).replace(&format!("Port {port} "), "Port <port> ")
}

/// SIGINT while a port is open: the text, and how the session is ended.
fn port_interrupted(plugin: &Path, agent: &'static str) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        socket.port_session(agent);
        while let Some(frame) = socket.input_of(wire::PAYLOAD_FLAG) {
            seen.input(&frame);
            socket.close("");
        }
    });
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = running.take_stdin();
    let port = opened_port(&running.stdout);
    running.signal(Signal::INT);
    let finished = running.finish_or_give_up(HANGING);
    transcript(&finished, &notes, Some(&gateway)).replace(&format!("Port {port} "), "Port <port> ")
}

fn port_in_use(plugin: &Path) -> String {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        let properties =
            json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": port.to_string()});
        socket.handshake("3.3.0.0", "Port", &properties);
        while let Some(frame) = socket.input_of(wire::PAYLOAD_FLAG) {
            seen.input(&frame);
        }
    });
    against(plugin, &gateway, &notes, b"").replace(&format!(":{port}:"), ":<port>:")
}

/// The agent could not connect: flag 3.
fn port_refused_destination(plugin: &Path) -> String {
    let gateway = Gateway::scripted(|socket| {
        socket.port_session("3.0.196.0");
        let _ = socket.input_of(wire::PAYLOAD_OUTPUT);
        let number = socket.data(wire::PAYLOAD_FLAG, 3u32.to_be_bytes());
        socket.acknowledged(number);
        socket.close("");
    });
    port_client(plugin, &gateway, &Notes::default(), |local| {
        local.write_all(b"hello").expect("write");
        let end = local.read_to_end(&mut Vec::new());
        format!("local side ended: {}", end.is_ok_and(|n| n == 0))
    })
}

/// An SSH document: `input` goes up, some bytes come down.
fn ssh(plugin: &Path, input: &'static [u8]) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        socket.handshake("3.3.0.0", "Port", &json!({"portNumber": "22"}));
        let mut up = Vec::new();
        while up.len() < input.len() {
            let Some(frame) = socket.input_of(wire::PAYLOAD_OUTPUT) else { return };
            up.extend(frame.payload);
        }
        seen.add(format!("sent {}", up.escape_ascii()));
        let number = socket.data(wire::PAYLOAD_OUTPUT, b"SSH-2.0-remote\r\n\xfe\x00\x0a\x0d");
        socket.acknowledged(number);
        socket.close("");
    });
    against(plugin, &gateway, &notes, input)
}

fn ssh_stdin_eof(plugin: &Path) -> String {
    let notes = Notes::default();
    let seen = notes.clone();
    let gateway = Gateway::scripted(move |socket| {
        socket.handshake("3.3.0.0", "Port", &json!({"portNumber": "22"}));
        socket.data(wire::PAYLOAD_OUTPUT, "SSH-2.0-remote\r\n");
        while let Some(frame) = socket.input() {
            seen.input(&frame);
            if frame.payload_type == wire::PAYLOAD_FLAG {
                break;
            }
        }
        socket.close("");
    });
    let world = World::with_plugin(plugin);
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    running.stdout.wait_for("SSH-2.0-remote\r\n");
    running.send("bye");
    running.close_stdin();
    transcript(&running.finish_or_give_up(HANGING), &notes, Some(&gateway))
}
