//! Two ends and a bad wire in virtual time: a [`Channel`] and a model of the agent, with every loss, repetition,
//! delay, reordering and outage drawn from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::message::{ACK_FLAGS, Message, MessageType, PayloadType};
use super::payload;
use super::recv::{Receiver, Verdict};
use super::{Channel, CloseReason, Config, Event, Input, Transmit};

const MS: Duration = Duration::from_millis(1);

/// What is wrong with the wire, the same each way.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    loss: f64,
    repeat: f64,
    delay: Duration,
    jitter: Duration,
    /// Every so often the socket is gone for so long.
    outage: Option<(Duration, Duration)>,
    /// The agent is paused at each outage and never says that it is back.
    pauses: bool,
}

/// Acknowledges at once, resends only its oldest message, as the agent does.
struct Agent {
    receiver: Receiver,
    received: Vec<u8>,
    unacknowledged: VecDeque<(i64, Bytes, Instant)>,
    next: i64,
    to_send: VecDeque<Bytes>,
    data_messages: Vec<Instant>,
}

impl Agent {
    fn new(output: &[u8]) -> Agent {
        Agent {
            receiver: Receiver::default(),
            received: Vec::new(),
            unacknowledged: VecDeque::new(),
            next: 0,
            to_send: output.chunks(1024).map(Bytes::copy_from_slice).collect(),
            data_messages: Vec::new(),
        }
    }

    fn envelope(&self, message_type: MessageType, payload: Bytes) -> Message {
        Message {
            message_type,
            created_ms: 1,
            sequence: 0,
            flags: 0,
            id: Uuid::from_u128(self.next as u128),
            payload_type: PayloadType::Output,
            payload,
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Bytes) -> Option<Bytes> {
        let message = Message::decode(frame).unwrap();
        match message.message_type {
            MessageType::Acknowledge => {
                let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                let number = body["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
                self.unacknowledged.retain(|(unacknowledged, ..)| *unacknowledged != number);
                None
            }
            MessageType::InputStreamData => {
                self.data_messages.push(now);
                let mut ack = self.envelope(MessageType::Acknowledge, payload::acknowledgement_of(&message));
                ack.flags = ACK_FLAGS;
                match self.receiver.handle(message) {
                    Verdict::Deliver(message) => {
                        self.received.extend_from_slice(&message.payload);
                        while let Some(message) = self.receiver.poll_ready() {
                            self.received.extend_from_slice(&message.payload);
                        }
                    }
                    Verdict::Held | Verdict::Duplicate => {}
                    Verdict::Refused => return None,
                }
                Some(ack.encode())
            }
            other => panic!("a client sent {other:?}"),
        }
    }

    /// One new message and the resend of the oldest, if they are due; called each millisecond.
    fn tick(&mut self, now: Instant) -> Vec<Bytes> {
        let mut out = Vec::new();
        if let Some(payload) = self.to_send.pop_front() {
            let mut message = self.envelope(MessageType::OutputStreamData, payload);
            message.sequence = self.next;
            let frame = message.encode();
            self.unacknowledged.push_back((self.next, frame.clone(), now));
            self.next += 1;
            out.push(frame);
        }
        if let Some((_, frame, sent)) = self.unacknowledged.front_mut()
            && now - *sent > 200 * MS
        {
            *sent = now;
            out.push(frame.clone());
        }
        out
    }
}

struct Outcome {
    took: Duration,
    uploaded: Vec<u8>,
    downloaded: Vec<u8>,
    most_outstanding: usize,
    data_messages: Vec<Instant>,
    closed: Option<CloseReason>,
}

/// Runs until everything has arrived both ways and is acknowledged, or `limit` has passed.
fn run(seed: u64, config: Config, wire: Wire, upload: &[u8], download: &[u8], limit: Duration) -> Outcome {
    let start = Instant::now() + Duration::from_secs(3600);
    let mut now = start;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut channel = Channel::new(config, seed);
    let mut agent = Agent::new(download);
    let mut flights: BTreeMap<(Instant, u64), (bool, Bytes)> = BTreeMap::new();
    let mut count = 0;
    let mut offered = 0;
    let (mut downloaded, mut most_outstanding, mut closed) = (Vec::new(), 0, None);
    let mut is_up = true;
    channel.handle_open(now, 0, "token");

    while closed.is_none() && now - start < limit {
        if let Some((every, length)) = wire.outage {
            let phase = (now - start).as_nanos() % (every + length).as_nanos();
            let should_be_up = phase < every.as_nanos();
            if is_up && !should_be_up {
                if wire.pauses {
                    channel.handle_frame(
                        now,
                        agent.envelope(MessageType::PausePublication, Bytes::new()).encode(),
                    );
                }
                channel.handle_lost();
                flights.clear();
            } else if !is_up && should_be_up {
                channel.handle_open(now, 0, "token");
            }
            is_up = should_be_up;
        }
        let mut fly = |random: &mut fastrand::Rng, is_up_direction, frame: Bytes| {
            let copies = if random.f64() < wire.repeat { 2 } else { 1 };
            for _ in 0..copies {
                if random.f64() >= wire.loss {
                    let at = now + wire.delay + wire.jitter.mul_f64(random.f64());
                    flights.insert((at, count), (is_up_direction, frame.clone()));
                    count += 1;
                }
            }
        };
        while channel.wants_input() && offered < upload.len() {
            let piece = random.usize(1..=1500).min(upload.len() - offered).min(channel.input_room());
            channel.send(Input::Bytes(Bytes::copy_from_slice(&upload[offered..offered + piece])));
            offered += piece;
        }
        while let Some(transmit) = channel.poll_transmit(now) {
            if let Transmit::Binary(frame) = transmit {
                fly(&mut random, true, frame);
            }
        }
        most_outstanding = most_outstanding.max(channel.stats().outstanding_bytes);
        if is_up {
            for frame in agent.tick(now) {
                fly(&mut random, false, frame);
            }
        }
        now += MS;
        while let Some(((at, _), _)) = flights.first_key_value()
            && *at <= now
        {
            let (_, (is_up_direction, frame)) = flights.pop_first().unwrap();
            if is_up_direction {
                if let Some(ack) = agent.handle_frame(now, frame)
                    && random.f64() >= wire.loss
                {
                    let at = now + wire.delay + wire.jitter.mul_f64(random.f64());
                    flights.insert((at, count), (false, ack));
                    count += 1;
                }
            } else {
                channel.handle_frame(now, frame);
            }
        }
        if channel.poll_timeout().is_some_and(|(at, _)| at <= now) {
            channel.handle_timeout(now);
        }
        while let Some(event) = channel.poll_event() {
            match event {
                Event::Output(bytes) => downloaded.extend_from_slice(&bytes),
                Event::Closed(reason) => closed = Some(reason),
                _ => {}
            }
        }
        let is_done = offered == upload.len()
            && channel.is_drained()
            && downloaded.len() == download.len()
            && agent.unacknowledged.is_empty();
        if is_done {
            break;
        }
    }
    Outcome {
        took: now - start,
        uploaded: agent.received,
        downloaded,
        most_outstanding,
        data_messages: agent.data_messages,
        closed,
    }
}

fn config() -> Config {
    Config {
        client_version: "1.2.896.0".into(),
        message_rate: super::pacing::DEFAULT_RATE,
        max_payload: 1024,
        max_window: super::congestion::DEFAULT_MAX_WINDOW,
        handshake_timeout: Duration::from_secs(60),
        give_up_after: Duration::from_secs(300),
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

#[test]
fn all_bytes_once_and_in_order_for_a_thousand_seeds() {
    for seed in 0..1000 {
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let wire = Wire {
            loss: draw.f64() * 0.2,
            repeat: draw.f64() * 0.1,
            delay: MS * draw.u32(0..150),
            jitter: MS * draw.u32(0..60),
            outage: draw.bool().then(|| (MS * draw.u32(300..3000), MS * draw.u32(1..2000))),
            pauses: draw.bool(),
        };
        let mut config = config();
        config.max_payload = [64, 1024, 8192][draw.usize(..3)];
        config.message_rate = [0, 900][draw.usize(..2)];
        let (up, down) = (noise(seed, draw.usize(1..60_000)), noise(!seed, draw.usize(1..20_000)));
        let outcome = run(seed, config, wire, &up, &down, Duration::from_secs(900));
        assert_eq!(outcome.closed, None, "seed {seed}, {wire:?}");
        assert!(outcome.uploaded == up, "seed {seed}, {wire:?}: upload in {:?}", outcome.took);
        assert!(outcome.downloaded == down, "seed {seed}, {wire:?}: download in {:?}", outcome.took);
        assert!(outcome.most_outstanding <= super::congestion::DEFAULT_MAX_WINDOW);
    }
}

#[test]
fn the_default_upload_keeps_to_nine_hundred_messages_a_second_and_fills_them() {
    let up = noise(7, 4_000_000);
    let wire = Wire { delay: 20 * MS, ..Wire::default() };
    let outcome = run(1, config(), wire, &up, b"x", Duration::from_secs(60));
    assert!(outcome.uploaded == up);
    let rate = up.len() as f64 / outcome.took.as_secs_f64();
    assert!(rate > 0.88e6, "{rate} bytes a second");
    for (index, at) in outcome.data_messages.iter().enumerate() {
        let within = outcome.data_messages[index..].iter().take_while(|o| **o - *at < 2000 * MS).count();
        assert!(within < 2000, "{within} messages in two seconds");
    }
}

#[test]
fn a_hundred_kilobytes_go_out_in_one_burst() {
    let up = noise(8, 100 * 1024);
    let wire = Wire { delay: 30 * MS, ..Wire::default() };
    let outcome = run(1, config(), wire, &up, b"x", Duration::from_secs(10));
    assert!(outcome.uploaded == up);
    // Two one-way delays to learn that the session is ready and to be acknowledged, plus one for the data.
    assert!(outcome.took < 110 * MS, "{:?}", outcome.took);
}

#[test]
fn a_fifth_of_everything_lost_costs_seconds_not_minutes() {
    let up = noise(9, 2_000 * 1024);
    for delay in [20, 100] {
        let wire = Wire { loss: 0.2, delay: delay * MS, ..Wire::default() };
        let config = Config { message_rate: 0, max_window: 1 << 20, ..config() };
        let outcome = run(3, config, wire, &up, b"x", Duration::from_secs(300));
        assert!(outcome.uploaded == up);
        assert!(outcome.took < Duration::from_secs(10), "{:?} at {delay} ms", outcome.took);
    }
}

#[test]
fn an_agent_that_says_nothing_is_given_up() {
    let wire = Wire { loss: 1.0, ..Wire::default() };
    let outcome = run(1, config(), wire, b"", b"x", Duration::from_secs(100));
    assert_eq!(outcome.closed, Some(CloseReason::HandshakeTimeout(Duration::from_secs(60))));
}

#[test]
fn an_agent_that_stops_acknowledging_is_given_up_and_not_flooded() {
    let mut channel = Channel::new(config(), 1);
    let start = Instant::now();
    channel.handle_open(start, 0, "token");
    let agent = Agent::new(b"");
    channel.handle_frame(
        start,
        agent.envelope(MessageType::OutputStreamData, Bytes::from_static(b"$ ")).encode(),
    );
    let (mut now, mut sent, mut closed) = (start, 0, None);
    for _ in 0..100_000 {
        channel.send(Input::Bytes(Bytes::from(vec![0; channel.input_room()])));
        while channel.poll_transmit(now).is_some() {
            sent += 1;
        }
        let Some((at, _)) = channel.poll_timeout() else { break };
        now = now.max(at);
        channel.handle_timeout(now);
        while let Some(event) = channel.poll_event() {
            if let Event::Closed(reason) = event {
                closed = Some(reason);
            }
        }
    }
    assert!(matches!(closed, Some(CloseReason::GaveUp(_))), "{closed:?}");
    assert!(now - start < Duration::from_secs(302));
    assert!(sent < 128 + 2 + 200, "{sent} messages into a silent path");
}
