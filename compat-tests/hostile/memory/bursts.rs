//! Messages that are the worst case of some limit, a few hundred at a time.

use serde_json::json;

use crate::harness::gateway::Flood;
use crate::harness::wire::{self, Frame};

/// Sends some messages of one kind; false when the plugin has gone.
pub(super) type Burst = fn(&mut Flood<'_>) -> bool;

/// Bursts that any session survives, and how many of them are an attack: 100,000 messages or more, where they are small.
pub(super) const CONTROL: &[(&str, Burst, usize)] = &[
    ("refusals", refusals, 400),
    ("exit codes", exit_codes, 100),
    ("pauses", pauses, 400),
    ("empty messages", empty_messages, 200),
    ("repeated messages", repeated_messages, 200),
    ("early messages", early_messages, 200),
    ("acknowledgements of nothing", acknowledgements_of_nothing, 200),
    ("unknown messages", unknown_messages, 200),
    // Last, since a session may end on them.
    ("customer messages", customer_messages, 100),
];

/// Bursts of the session's own bytes.
pub(super) const BYTES: &[(&str, Burst, usize)] = &[
    ("one-byte messages", one_byte_messages, 400),
    ("bytes in nearly empty buffers", bytes_in_nearly_empty_buffers, 200),
    ("the largest messages", largest_messages, 40),
];

pub(super) fn one_byte_frames_in_large_messages(flood: &mut Flood<'_>) -> bool {
    flood.data(wire::PAYLOAD_OUTPUT, &frames(100_000, b"x"))
}

pub(super) fn one_byte_frames(flood: &mut Flood<'_>) -> bool {
    let message = frames(1, b"x");
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, &message))
}

pub(super) fn frames_in_nearly_empty_buffers(flood: &mut Flood<'_>) -> bool {
    let message = frames(1, &[b'x'; 1000]);
    each(50, || flood.data(wire::PAYLOAD_OUTPUT, &message) && ballast(flood))
}

pub(super) fn largest_frames(flood: &mut Flood<'_>) -> bool {
    let message = frames(15, &[b'x'; 65_535]);
    each(4, || flood.data(wire::PAYLOAD_OUTPUT, &message))
}

pub(super) fn empty_frames(flood: &mut Flood<'_>) -> bool {
    // PSH without payload, NOP, and SYN and FIN of streams that do not exist.
    let kinds = [(2, FIRST_STREAM), (3, 0), (0, 77), (1, 99)];
    let frames: Vec<u8> = kinds.iter().flat_map(|&(kind, id)| wire::smux(1, kind, id, b"")).collect();
    flood.data(wire::PAYLOAD_OUTPUT, &frames.repeat(25_000))
}

fn one_byte_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, b"x"))
}

fn bytes_in_nearly_empty_buffers(flood: &mut Flood<'_>) -> bool {
    each(50, || flood.data(wire::PAYLOAD_OUTPUT, b"x") && ballast(flood))
}

fn largest_messages(flood: &mut Flood<'_>) -> bool {
    flood.data(wire::PAYLOAD_OUTPUT, &vec![b'x'; wire::LARGEST_PAYLOAD])
}

pub(super) fn refusals(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_FLAG, &3_u32.to_be_bytes()))
}

fn exit_codes(flood: &mut Flood<'_>) -> bool {
    each(50, || flood.data(wire::PAYLOAD_EXIT_CODE, &[b'7'; 20_000]))
}

fn customer_messages(flood: &mut Flood<'_>) -> bool {
    let text = json!({"HandshakeTimeToComplete": 1, "CustomerMessage": "x".repeat(20_000)}).to_string();
    each(50, || flood.data(wire::PAYLOAD_HANDSHAKE_COMPLETE, text.as_bytes()))
}

fn pauses(flood: &mut Flood<'_>) -> bool {
    let messages = [wire::PAUSE_PUBLICATION, wire::START_PUBLICATION].map(|kind| Frame::control(kind, ""));
    each(250, || messages.iter().all(|message| flood.frame(message)))
}

fn empty_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.data(wire::PAYLOAD_OUTPUT, b""))
}

pub(super) fn repeated_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.frame(&Frame::output(0, wire::PAYLOAD_OUTPUT, b"x")))
}

fn early_messages(flood: &mut Flood<'_>) -> bool {
    // The number in between never comes.
    let first = flood.next_number() + 1;
    (0..500).all(|number| flood.frame(&Frame::output(first + number, wire::PAYLOAD_OUTPUT, b"x")))
}

fn acknowledgements_of_nothing(flood: &mut Flood<'_>) -> bool {
    let body = json!({"AcknowledgedMessageType": "input_stream_data", "AcknowledgedMessageId": "x",
        "AcknowledgedMessageSequenceNumber": 1_i64 << 40, "IsSequentialMessage": true});
    let frame = Frame::control(wire::ACKNOWLEDGE, body.to_string());
    each(500, || flood.frame(&frame))
}

fn unknown_messages(flood: &mut Flood<'_>) -> bool {
    each(500, || flood.frame(&Frame::control("unknown", "")) && flood.data(99, b""))
}

/// Sends `count` messages made by `message`.
pub(super) fn each(count: usize, mut message: impl FnMut() -> bool) -> bool {
    (0..count).all(|_| message())
}

/// smux frames for the first stream, each with `payload`.
fn frames(count: usize, payload: &[u8]) -> Vec<u8> {
    wire::smux(1, 2, FIRST_STREAM, payload).repeat(count)
}

/// A message that is dropped, after which the plugin's read buffer holds little but the message before.
fn ballast(flood: &mut Flood<'_>) -> bool {
    flood.frame(&Frame::control("unknown", [b'x'; 60_000]))
}

/// The first stream that the plugin opens.
pub(super) const FIRST_STREAM: u32 = 3;
