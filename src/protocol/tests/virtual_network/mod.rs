//! Two ends and a bad wire in virtual time: a [`Channel`] and a model of the agent, with every loss, repetition,
//! delay, reordering and outage drawn from a seed.

mod agent;
mod faults;
mod keystrokes;
mod soak;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::agent::Agent;
use super::super::message::MessageType;
use super::super::{Channel, CloseReason, Config, Event, Input, Transmit};

const MS: Duration = Duration::from_millis(1);

/// What is wrong with the wire, the same each way unless said.
#[derive(Clone, Debug, Default)]
struct Wire {
    loss_up: f64,
    loss_down: f64,
    /// Of acknowledgements, on top, both ways.
    loss_acks: f64,
    repeat: f64,
    /// One way.
    delay: Duration,
    /// Added to the delay of each frame by itself: frames overtake each other.
    jitter: Duration,
    bottleneck: Option<Bottleneck>,
    /// When the socket is gone, and for how long.
    outages: Spans,
    /// The agent is paused at each outage and never says that it is back.
    pauses: bool,
    /// The socket is gone for 30 ms once so many frames have begun their way, either way, the last of them cut.
    cut_at: Option<u64>,
    /// When the agent takes nothing, since the destination does not, and for how long. What comes then waits.
    blocked: Spans,
    /// From when on the delay is another one.
    rerouted: Option<(Duration, Duration)>,
    /// When the agent is away (`pause_publication`, and nothing goes either way), and for how long.
    away: Spans,
    /// Data messages a second that the service takes from the client. Two seconds above it: `pause_publication`, and
    /// the socket is gone for [`POLICE_OUTAGE`].
    service_limit: Option<usize>,
}

/// A link that carries so much and has a queue in front.
#[derive(Clone, Copy, Debug)]
struct Bottleneck {
    /// Bytes a second, frames with their headers.
    rate: f64,
    /// What waits longer than this is dropped; without it, everything waits.
    drops_after: Option<Duration>,
}

impl Wire {
    /// Whether the seed decides what happens to a frame.
    fn is_random(&self) -> bool {
        let chances = [self.loss_up, self.loss_down, self.loss_acks, self.repeat];
        chances.into_iter().any(|chance| chance > 0.0) || !self.jitter.is_zero()
    }

    fn losing(share: f64, delay: Duration) -> Wire {
        Wire { loss_up: share, loss_down: share, delay, ..Wire::default() }
    }
}

/// What a run did.
struct Outcome {
    took: Duration,
    /// When the last of the upload had arrived.
    upload_took: Duration,
    uploaded: Vec<u8>,
    downloaded: Vec<u8>,
    most_outstanding: usize,
    /// When data messages reached the agent.
    arrivals: Vec<Instant>,
    duplicates: usize,
    /// How often a message was sent again.
    resent: u64,
    /// How often the service cut the socket for its limit.
    policed: usize,
    /// How often something happened.
    steps: usize,
    closed: Option<CloseReason>,
    keystrokes_took: Vec<Duration>,
}

/// From when and for how long, from the start of the run, in order.
type Spans = VecDeque<(Duration, Duration)>;
/// Bytes that come to one end at their times, from the start of the run.
type Traffic = Vec<(Duration, Bytes)>;

struct World {
    start: Instant,
    now: Instant,
    random: fastrand::Rng,
    wire: Wire,
    channel: Channel,
    agent: Agent,
    to_upload: VecDeque<(Instant, Bytes)>,
    /// Single bytes that are given to the channel before the rest of the upload, at their times.
    keystrokes: VecDeque<Instant>,
    /// Where in the stream each keystroke went, and since when it had to wait.
    pressed: VecDeque<(usize, Instant)>,
    given: usize,
    /// How long each keystroke took to the agent.
    keystrokes_took: Vec<Duration>,
    /// By arrival and order of sending: whether it goes up, and the frame.
    flights: BTreeMap<(Instant, u64), (bool, Bytes)>,
    sent: u64,
    /// When each direction's bottleneck is free, up first.
    line_free: [Instant; 2],
    /// Data messages of the last two seconds at the service.
    counted: VecDeque<Instant>,
    /// Until when the socket stays closed that was cut by the service for its limit or by [`Wire::cut_at`].
    cut_until: Option<Instant>,
    policed: usize,
    is_up: bool,
    is_away: bool,
    downloaded: Vec<u8>,
    most_outstanding: usize,
    closed: Option<CloseReason>,
}

impl World {
    fn new(seed: u64, config: Config, wire: Wire, upload: Traffic, download: Traffic) -> World {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut channel = Channel::new(config, seed);
        channel.handle_open(start, 0, "token");
        World {
            start,
            now: start,
            random: fastrand::Rng::with_seed(seed),
            channel,
            agent: Agent::new(download.into_iter().map(|(at, bytes)| (start + at, bytes))),
            to_upload: upload.into_iter().map(|(at, bytes)| (start + at, bytes)).collect(),
            keystrokes: VecDeque::new(),
            pressed: VecDeque::new(),
            given: 0,
            keystrokes_took: Vec::new(),
            flights: BTreeMap::new(),
            sent: 0,
            line_free: [start; 2],
            counted: VecDeque::new(),
            cut_until: None,
            policed: 0,
            is_up: true,
            is_away: false,
            downloaded: Vec::new(),
            most_outstanding: 0,
            closed: None,
            wire,
        }
    }

    /// Runs until everything has arrived both ways and is acknowledged, or `limit` has passed.
    fn run(mut self, expected: usize, limit: Duration) -> Outcome {
        let mut steps = 0;
        while self.closed.is_none() && self.now - self.start < limit {
            steps += 1;
            self.switch();
            self.feed();
            self.send();
            let is_done = self.to_upload.is_empty()
                && self.keystrokes.is_empty()
                && self.channel.is_drained()
                && self.downloaded.len() == expected
                && self.agent.is_done();
            if is_done {
                break;
            }
            // At least a moment: what is due again and again without an effect shows in the number of steps.
            self.now = self.next_at().max(self.now + MS / 10);
            self.arrive();
            self.time_keystrokes();
            if self.channel.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                self.channel.handle_timeout(self.now);
            }
            self.drain();
        }
        Outcome {
            took: self.now - self.start,
            upload_took: self.agent.received_at.map_or(Duration::ZERO, |at| at - self.start),
            uploaded: self.agent.received,
            downloaded: self.downloaded,
            most_outstanding: self.most_outstanding,
            arrivals: self.agent.arrivals,
            duplicates: self.agent.duplicates,
            resent: self.channel.stats().messages_resent,
            policed: self.policed,
            steps,
            closed: self.closed,
            keystrokes_took: self.keystrokes_took,
        }
    }

    /// Begins and ends outages and absences.
    fn switch(&mut self) {
        let at = self.now - self.start;
        if let Some((_, delay)) = self.wire.rerouted.take_if(|(from, _)| *from <= at) {
            self.wire.delay = delay;
        }
        if self.wire.cut_at.take_if(|frames| *frames <= self.sent).is_some() {
            self.cut_until = Some(self.now + 30 * MS);
        }
        let is_within = |spans: &mut VecDeque<(Duration, Duration)>| {
            while spans.pop_front_if(|(from, length)| *from + *length <= at).is_some() {}
            spans.front().is_some_and(|(from, _)| *from <= at)
        };
        let is_away = is_within(&mut self.wire.away);
        let is_up =
            !is_within(&mut self.wire.outages) && self.cut_until.is_none_or(|until| until <= self.now);
        if self.is_up && !is_up {
            let is_policed =
                self.wire.service_limit.is_some() && self.cut_until.is_some_and(|until| until > self.now);
            if self.wire.pauses || is_policed {
                self.tell(MessageType::PausePublication);
            }
            self.channel.handle_lost();
            self.flights.clear();
        } else if !self.is_up && is_up {
            self.channel.handle_open(self.now, 0, "token");
        }
        if is_away != self.is_away && is_up {
            self.tell(if is_away { MessageType::PausePublication } else { MessageType::StartPublication });
        }
        self.is_up = is_up;
        self.is_away = is_away;
    }

    fn tell(&mut self, message_type: MessageType) {
        let frame = self.agent.envelope(message_type, Bytes::new()).encode();
        self.channel.handle_frame(self.now, frame);
    }

    /// Gives the channel input, in pieces of any size.
    fn feed(&mut self) {
        while self.channel.wants_input()
            && let Some(at) = self.keystrokes.pop_front_if(|at| *at <= self.now)
        {
            self.channel.send(Input::Bytes(Bytes::from_static(b"k")));
            self.pressed.push_back((self.given, at));
            self.given += 1;
        }
        while self.channel.wants_input()
            && let Some((_, bytes)) = self.to_upload.front_mut().filter(|(at, _)| *at <= self.now)
        {
            let piece = self.random.usize(1..=1500).min(bytes.len()).min(self.channel.input_room());
            self.channel.send(Input::Bytes(bytes.split_to(piece)));
            self.given += piece;
            if bytes.is_empty() {
                self.to_upload.pop_front();
            }
        }
    }

    fn send(&mut self) {
        while let Some(transmit) = self.channel.poll_transmit(self.now) {
            if let Transmit::Binary(frame) = transmit {
                self.count(&frame);
                self.fly(true, frame);
            }
        }
        self.most_outstanding = self.most_outstanding.max(self.channel.stats().outstanding_bytes);
        if self.is_up && !self.is_away {
            for frame in self.agent.poll(self.now) {
                self.fly(false, frame);
            }
        }
    }

    /// The service's count of data messages.
    fn count(&mut self, frame: &Bytes) {
        let Some(limit) = self.wire.service_limit.filter(|_| !is_ack(frame)) else { return };
        self.counted.push_back(self.now);
        while self.counted.pop_front_if(|at| *at + 2000 * MS <= self.now).is_some() {}
        if self.counted.len() > 2 * limit {
            self.counted.clear();
            self.policed += 1;
            self.cut_until = Some(self.now + POLICE_OUTAGE);
        }
    }

    fn fly(&mut self, up: bool, frame: Bytes) {
        let loss = if up { self.wire.loss_up } else { self.wire.loss_down };
        let loss_acks = if is_ack(&frame) { self.wire.loss_acks } else { 0.0 };
        let copies = if self.random.f64() < self.wire.repeat { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.f64() < loss || self.random.f64() < loss_acks {
                continue;
            }
            let mut at = self.now;
            if let Some(Bottleneck { rate, drops_after }) = self.wire.bottleneck {
                let free = &mut self.line_free[usize::from(!up)];
                let begin = self.now.max(*free);
                if drops_after.is_some_and(|most| begin - self.now > most) {
                    continue;
                }
                *free = begin + Duration::from_secs_f64(frame.len() as f64 / rate);
                at = *free;
            }
            at += self.wire.delay + self.wire.jitter.mul_f64(self.random.f64());
            self.flights.insert((at, self.sent), (up, frame.clone()));
            self.sent += 1;
        }
    }

    fn arrive(&mut self) {
        while let Some(flight) = self.flights.first_entry()
            && flight.key().0 <= self.now
        {
            let (up, frame) = flight.remove();
            if self.is_away {
                continue;
            }
            if !up {
                self.channel.handle_frame(self.now, frame);
            } else if let Some(until) = self.blocked_until() {
                self.flights.insert((until, self.sent), (true, frame));
                self.sent += 1;
            } else if let Some(ack) = self.agent.handle_frame(self.now, frame) {
                self.fly(false, ack);
            }
        }
    }

    /// Notes the keystrokes that have arrived.
    fn time_keystrokes(&mut self) {
        let received = self.agent.received.len();
        while let Some((_, at)) = self.pressed.pop_front_if(|(place, _)| *place < received) {
            self.keystrokes_took.push(self.now - at);
        }
    }

    /// Until when the agent takes nothing.
    fn blocked_until(&mut self) -> Option<Instant> {
        let at = self.now - self.start;
        while self.wire.blocked.pop_front_if(|(from, length)| *from + *length <= at).is_some() {}
        let (from, length) = self.wire.blocked.front().filter(|(from, _)| *from <= at)?;
        Some(self.start + *from + *length)
    }

    fn drain(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Output(bytes) => self.downloaded.extend_from_slice(&bytes),
                Event::Closed(reason) => self.closed = Some(reason),
                _ => {}
            }
        }
    }

    /// When something happens next.
    fn next_at(&mut self) -> Instant {
        let start = self.start;
        let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
        let timeout = self.channel.poll_timeout().map(|(at, _)| at);
        let agent = self.agent.next_at().filter(|_| self.is_up && !self.is_away);
        let input = self.to_upload.front().map(|(at, _)| *at).into_iter();
        let input =
            input.chain(self.keystrokes.front().copied()).min().filter(|_| self.channel.wants_input());
        let spans = self.wire.outages.front().into_iter().chain(self.wire.away.front());
        let switches = spans.flat_map(|(from, length)| [start + *from, start + *from + *length]);
        let switch = switches.chain(self.cut_until).filter(|at| *at > self.now).min();
        let next = [flight, timeout, agent, input, switch].into_iter().flatten().min();
        // Nothing to wait for: the end of the run finds what is missing.
        next.unwrap_or(self.now + Duration::from_secs(1))
    }
}

fn is_ack(frame: &Bytes) -> bool {
    frame.get(4..).is_some_and(|field| field.starts_with(MessageType::Acknowledge.as_str().as_bytes()))
}

fn run(seed: u64, config: Config, wire: Wire, upload: &[u8], download: &[u8], limit: Duration) -> Outcome {
    let at_once = |bytes: &[u8]| vec![(Duration::ZERO, Bytes::copy_from_slice(bytes))];
    World::new(seed, config, wire, at_once(upload), at_once(download)).run(download.len(), limit)
}

fn config() -> Config {
    Config {
        client_version: "1.2.896.0".into(),
        message_rate: super::super::pacing::DEFAULT_RATE,
        max_payload: 1024,
        max_window: super::super::congestion::DEFAULT_MAX_WINDOW,
        handshake_timeout: Duration::from_secs(60),
        initial_size: super::super::TerminalSize { cols: 300, rows: 100 },
        give_up_after: Duration::from_secs(300),
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Outages of `length` that come every so often, for an hour.
fn every(up: Duration, length: Duration) -> Spans {
    (0..)
        .map(|n| (up + (up + length) * n, length))
        .take_while(|(at, _)| at.as_secs() < 3600)
        .take(4000)
        .collect()
}

/// How long the service keeps a socket closed that was cut for its rate; here, the time to a new connection.
const POLICE_OUTAGE: Duration = Duration::from_secs(1);

#[test]
fn all_bytes_once_and_in_order_for_a_thousand_seeds() {
    for seed in 0..1000 {
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let loss = draw.f64() * 0.2;
        let mut wire = Wire {
            repeat: draw.f64() * 0.1,
            delay: MS * draw.u32(0..150),
            jitter: MS * draw.u32(0..60),
            pauses: draw.bool(),
            ..Wire::losing(loss, Duration::ZERO)
        };
        if draw.bool() {
            wire.outages = every(MS * draw.u32(300..3000), MS * draw.u32(1..2000));
        }
        let mut config = config();
        config.max_payload = [64, 1024, 8192][draw.usize(..3)];
        config.message_rate = [0, 900][draw.usize(..2)];
        let (up, down) = (noise(seed, draw.usize(1..60_000)), noise(!seed, draw.usize(1..20_000)));
        let outcome = run(seed, config, wire.clone(), &up, &down, Duration::from_secs(900));
        wire.outages.truncate(1);
        assert_eq!(outcome.closed, None, "seed {seed}, {wire:?}");
        assert!(outcome.uploaded == up, "seed {seed}, {wire:?}: upload in {:?}", outcome.took);
        assert!(outcome.downloaded == down, "seed {seed}, {wire:?}: download in {:?}", outcome.took);
        assert!(outcome.most_outstanding <= super::super::congestion::DEFAULT_MAX_WINDOW);
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
    for (index, at) in outcome.arrivals.iter().enumerate() {
        let within = outcome.arrivals[index..].iter().take_while(|o| **o - *at < 2000 * MS).count();
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
        let wire = Wire::losing(0.2, delay * MS);
        let config = Config { message_rate: 0, max_window: 1 << 20, ..config() };
        let outcome = run(3, config, wire, &up, b"x", Duration::from_secs(300));
        assert!(outcome.uploaded == up);
        assert!(outcome.took < Duration::from_secs(10), "{:?} at {delay} ms", outcome.took);
    }
}

#[test]
fn an_agent_that_says_nothing_is_given_up() {
    let wire = Wire::losing(1.0, Duration::ZERO);
    let outcome = run(1, config(), wire, b"", b"x", Duration::from_secs(100));
    assert_eq!(outcome.closed, Some(CloseReason::HandshakeTimeout(Duration::from_secs(60))));
}

#[test]
fn an_agent_that_stops_acknowledging_is_given_up_and_not_flooded() {
    let mut channel = Channel::new(config(), 1);
    let start = Instant::now();
    channel.handle_open(start, 0, "token");
    let agent = Agent::new([]);
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
