//! Cost of one message: `cargo bench`. Times are for a message of 1,024 bytes unless the name says otherwise.

use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use session_manager_plugin::protocol::message::{Message, MessageType, PayloadType};
use session_manager_plugin::protocol::{Channel, Config, Input, Transmit};
use session_manager_plugin::smux;
use uuid::Uuid;

fn main() {
    divan::main();
}

#[divan::bench(args = [64, 1024, 16_384])]
fn encode(bencher: Bencher, size: usize) {
    let message = output(0, size);
    bencher.counter(BytesCount::new(size)).bench(|| black_box(&message).encode());
}

#[divan::bench(args = [64, 1024, 16_384])]
fn decode(bencher: Bencher, size: usize) {
    let frame = output(0, size).encode();
    bencher.counter(BytesCount::new(size)).bench(|| Message::decode(black_box(&frame).clone()));
}

/// A thousand messages from the agent, each decoded, acknowledged and delivered.
#[divan::bench(args = [1024, 16_384])]
fn receive_a_thousand(bencher: Bencher, size: usize) {
    let frames: Vec<Bytes> = (0..COUNT).map(|number| output(number, size).encode()).collect();
    let now = Instant::now();
    bencher.counter(BytesCount::new(size * frames.len())).with_inputs(|| channel(now)).bench_values(
        |mut channel| {
            for frame in &frames {
                channel.handle_frame(now, frame.clone());
                while let Some(event) = channel.poll_event() {
                    black_box(event);
                }
                while let Some(ack) = channel.poll_transmit(now) {
                    black_box(ack);
                }
            }
            channel
        },
    );
}

/// A thousand messages to the agent, each cut, encoded, kept, and its acknowledgement taken.
#[divan::bench(args = [1024, 16_384])]
fn send_a_thousand(bencher: Bencher, size: usize) {
    let now = Instant::now();
    let data = Bytes::from(vec![7; size]);
    let acks: Vec<Bytes> = (0..COUNT).map(ack).collect();
    let ready = || {
        let mut channel = Channel::new(Config { max_payload: size, ..config() }, 1);
        channel.handle_open(now, 0, "token");
        channel.handle_frame(now, output(0, 1).encode());
        while channel.poll_transmit(now).is_some() {}
        channel
    };
    bencher.counter(BytesCount::new(size * acks.len())).with_inputs(ready).bench_values(|mut channel| {
        for ack in &acks {
            channel.send(Input::Bytes(data.clone()));
            while let Some(Transmit::Binary(frame)) = channel.poll_transmit(now) {
                black_box(frame);
            }
            channel.handle_frame(now, ack.clone());
        }
        assert!(channel.is_drained());
        channel
    });
}

/// Sixteen streams with full queues, cut into messages.
#[divan::bench]
fn smux_send(bencher: Bencher) {
    let now = Instant::now();
    let full = || {
        let mut session = smux::Session::new(smux::Config::new(smux::Role::Client), now);
        for _ in 0..16 {
            let id = session.open().expect("room for a stream");
            session.send(id, &[7; 32 << 10]).expect("room in its queue");
        }
        session
    };
    bencher.counter(BytesCount::new(16usize * (32 << 10))).with_inputs(full).bench_values(|mut session| {
        while let Some(bytes) = session.poll_transmit(1024) {
            black_box(bytes);
        }
        session
    });
}

/// A thousand messages of one stream's frames, as an agent sends them.
#[divan::bench]
fn smux_receive(bencher: Bencher) {
    let now = Instant::now();
    let mut message = vec![1, 2, 0xf8, 3, 3, 0, 0, 0];
    message.resize(1024, 7);
    let message = Bytes::from(message);
    let open = || {
        let mut session = smux::Session::new(smux::Config::new(smux::Role::Client), now);
        session.open().expect("room for a stream");
        session
    };
    bencher.counter(BytesCount::new(1024 * COUNT as usize)).with_inputs(open).bench_values(|mut session| {
        for _ in 0..COUNT {
            session.handle_bytes(now, message.clone()).expect("good frames");
            while let Some(event) = session.poll_event() {
                black_box(event);
            }
        }
        session
    });
}

fn channel(now: Instant) -> Channel {
    let mut channel = Channel::new(config(), 1);
    channel.handle_open(now, 0, "token");
    while channel.poll_transmit(now).is_some() {}
    channel
}

fn config() -> Config {
    Config {
        client_version: "1.2.896.0".into(),
        message_rate: 0,
        max_payload: 1024,
        max_window: 4 << 20,
        handshake_timeout: Duration::from_secs(60),
        initial_size: session_manager_plugin::protocol::TerminalSize { cols: 80, rows: 24 },
        give_up_after: Duration::from_secs(300),
    }
}

fn output(sequence: i64, size: usize) -> Message {
    Message {
        message_type: MessageType::OutputStreamData,
        created_ms: 1,
        sequence,
        flags: 0,
        id: Uuid::from_u128(sequence as u128 + 1),
        payload_type: PayloadType::Output,
        payload: Bytes::from(vec![7; size]),
    }
}

fn ack(number: i64) -> Bytes {
    let body = format!(
        r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"{}","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#,
        Uuid::from_u128(number as u128)
    );
    let message_type = MessageType::Acknowledge;
    Message { message_type, payload: body.into(), payload_type: PayloadType::Other(0), ..output(0, 0) }
        .encode()
}

const COUNT: i64 = 1000;
