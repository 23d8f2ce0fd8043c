//! Agents that carry one connection at a time: websockets that are lost between one client and the next.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{connect, opened_port};
use crate::harness::process::{Running, Signal};
use crate::harness::wire::{self, Frame};
use crate::harness::{PATIENCE, World};

/// Loss of the first client's last output, so long after the acknowledgement of its flag. It is sent again afterwards.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The websocket breaks.
    Cut(Duration),
    /// The websocket becomes silent.
    Silence,
    /// The agent's own websocket breaks.
    Pause(Duration),
}

/// The agent's end of the session, over all websockets.
#[derive(Default)]
struct Agent {
    /// Number of the next message; 0 before the first websocket.
    next: AtomicI64,
}

impl Agent {
    fn run(&self, socket: &mut Socket, loss: Loss) {
        if self.next.load(Ordering::SeqCst) > 0 {
            (0..self.next.load(Ordering::SeqCst)).for_each(|_| socket.skip());
            self.next.fetch_add(1, Ordering::SeqCst);
            socket.data(wire::PAYLOAD_OUTPUT, LATE);
            return self.answer(socket);
        }
        let properties = json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "0"});
        socket.handshake("3.0.100.0", "Port", &properties);
        if socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
            return;
        }
        let number = socket.data(wire::PAYLOAD_OUTPUT, "answer of A");
        socket.acknowledged(number);
        if socket.input_of(wire::PAYLOAD_FLAG).is_none() {
            return;
        }
        self.next.store(socket.next_number(), Ordering::SeqCst);
        match loss {
            Loss::Cut(after) => {
                std::thread::sleep(after);
                socket.hang_up();
            }
            Loss::Silence => {
                let (lost, start) = (socket.next_number(), Instant::now());
                while self.next.load(Ordering::SeqCst) == lost && start.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Loss::Pause(after) => {
                std::thread::sleep(after);
                socket.send(&Frame::control(wire::PAUSE_PUBLICATION, ""));
                std::thread::sleep(Duration::from_millis(300));
                socket.send(&Frame::control(wire::START_PUBLICATION, ""));
                socket.data(wire::PAYLOAD_OUTPUT, LATE);
                self.answer(socket);
            }
        }
    }

    /// Answers each request. The flags between them are acknowledged.
    fn answer(&self, socket: &mut Socket) {
        while let Some(request) = socket.input_of(wire::PAYLOAD_OUTPUT) {
            let text = String::from_utf8(request.payload).expect("a request");
            self.next.fetch_add(1, Ordering::SeqCst);
            socket.data(wire::PAYLOAD_OUTPUT, text.replace("request", "answer"));
        }
    }
}

/// Sends a request and returns what comes, up to the length of an answer or to the end of the connection.
#[track_caller]
fn ask(port: u16, name: &str) -> String {
    let mut stream = connect(port);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(format!("request of {name}").as_bytes()).expect("write");
    let mut answer = Vec::new();
    let mut buffer = [0; 100];
    while answer.len() < "answer of A".len()
        && let Ok(count @ 1..) = stream.read(&mut buffer)
    {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(answer).expect("text")
}

/// A client reads its own answer or, if its request was on its way when the loss was noticed, nothing.
#[track_caller]
fn assert_own_answers(loss: Loss) {
    let agent = Agent::default();
    let gateway = Gateway::scripted(move |socket: &mut Socket| agent.run(socket, loss));
    gateway.start_sessions_after(Duration::from_millis(300));
    let plugin = Running::spawn_without_stdin(&mut Started::of(&gateway).command(&World::new()));
    let port = opened_port(&plugin.stdout);
    assert_eq!(ask(port, "A"), "answer of A", "{loss:?}");
    let second = ask(port, "B");
    assert!(["", "answer of B"].contains(&second.as_str()), "{loss:?}: the second client got {second:?}");
    assert_eq!(ask(port, "C"), "answer of C", "{loss:?}");
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
}

#[test]
fn output_lost_with_the_websocket_is_not_the_next_clients() {
    [0, 4, 15, 30].into_iter().for_each(|ms| assert_own_answers(Loss::Cut(Duration::from_millis(ms))));
}

#[test]
fn output_lost_on_a_silent_websocket_is_not_the_next_clients() {
    assert_own_answers(Loss::Silence);
}

#[test]
fn output_lost_with_the_agents_websocket_is_not_the_next_clients() {
    [0, 10, 30].into_iter().for_each(|ms| assert_own_answers(Loss::Pause(Duration::from_millis(ms))));
}

/// The output that the agent read before it closed the first client's connection.
const LATE: &str = "late output of A";
