//! Two ends and a bad wire in virtual time: a [`Client`] (a [`Channel`] by itself, or a link) and a model of the agent,
//! with every loss, repetition, delay, reordering and outage drawn from a seed.

mod agent;
mod client;
mod delivery;
mod faults;
mod keystrokes;
mod soak;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::agent::Agent;
pub(crate) use self::client::{BareChannel, Client, Packet};
pub(crate) use self::wire::{Bottleneck, Spans, Traffic, Wire};
use crate::protocol::message::MessageType;
use crate::protocol::{Channel, CloseReason, Config, Event, Input};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Result of a run.
pub(crate) struct Outcome<C = BareChannel> {
    pub client: C,
    pub took: Duration,
    /// When the last of the upload had arrived.
    pub upload_took: Duration,
    pub uploaded: Vec<u8>,
    pub downloaded: Vec<u8>,
    pub most_outstanding: usize,
    /// When data messages reached the agent.
    pub arrivals: Vec<Instant>,
    /// When acknowledgements reached it.
    pub acknowledged: Vec<Instant>,
    pub duplicates: usize,
    /// Number of retransmissions.
    pub resent: u64,
    /// Number of times that the service cut the socket for its limit.
    pub policed: usize,
    /// Number of steps.
    pub steps: usize,
    pub closed: Option<CloseReason>,
    pub keystrokes_took: Vec<Duration>,
}

pub(crate) struct World<C = BareChannel> {
    pub start: Instant,
    now: Instant,
    random: fastrand::Rng,
    wire: Wire,
    client: C,
    agent: Agent,
    to_upload: VecDeque<(Instant, Bytes)>,
    /// Single bytes that are given to the channel before the rest of the upload, at their times.
    pub keystrokes: VecDeque<Instant>,
    /// Position of each keystroke in the stream, and the time since which it waited.
    pressed: VecDeque<(usize, Instant)>,
    given: usize,
    /// Time that each keystroke took to reach the agent.
    keystrokes_took: Vec<Duration>,
    /// By arrival and order of sending: whether it goes up, and what it is.
    flights: BTreeMap<(Instant, u64), (bool, Packet)>,
    sent: u64,
    /// When each direction's bottleneck is free, up first.
    line_free: [Instant; 2],
    /// Data messages of the last two seconds at the service.
    counted: VecDeque<Instant>,
    /// Until when the socket stays closed that was cut by the service for its limit or by [`Wire::cut_at`].
    cut_until: Option<Instant>,
    policed: usize,
    /// When the websocket of the attempt under way is open.
    opening: Option<Instant>,
    /// A websocket is open, perhaps a silent one.
    is_connected: bool,
    is_up: bool,
    is_away: bool,
    /// The socket looks open, and nothing comes through.
    is_silent: bool,
    downloaded: Vec<u8>,
    most_outstanding: usize,
    closed: Option<CloseReason>,
}

impl World {
    fn new(seed: u64, config: Config, wire: Wire, upload: Traffic, download: Traffic) -> World {
        let channel = BareChannel::new(Channel::new(config, seed));
        World::with_client(|_| channel, seed, wire, upload, download)
    }
}

impl<C: Client> World<C> {
    /// With the client that `client` makes for the start of the run.
    pub(crate) fn with_client(
        client: impl FnOnce(Instant) -> C,
        seed: u64,
        wire: Wire,
        upload: Traffic,
        download: Traffic,
    ) -> World<C> {
        let start = Instant::now() + Duration::from_secs(3600);
        World {
            start,
            now: start,
            random: fastrand::Rng::with_seed(seed),
            client: client(start),
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
            opening: None,
            is_connected: false,
            is_up: true,
            is_away: false,
            is_silent: false,
            downloaded: Vec::new(),
            most_outstanding: 0,
            closed: None,
            wire,
        }
    }

    /// Runs until everything has arrived both ways and is acknowledged, or `limit` has passed.
    pub(crate) fn run(mut self, expected: usize, limit: Duration) -> Outcome<C> {
        let mut steps = 0;
        while self.closed.is_none() && !self.client.is_over() && self.now - self.start < limit {
            steps += 1;
            self.switch();
            self.feed();
            self.send();
            let is_done = self.to_upload.is_empty()
                && self.keystrokes.is_empty()
                && self.client.channel().is_drained()
                && self.downloaded.len() == expected
                && self.agent.is_done();
            if is_done {
                break;
            }
            // At least a moment: what is due again and again without an effect shows in the number of steps.
            self.now = self.next_at().max(self.now + MS / 10);
            self.arrive();
            self.time_keystrokes();
            if self.client.poll_timeout().is_some_and(|at| at <= self.now) {
                self.client.handle_timeout(self.now);
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
            acknowledged: self.agent.acknowledged,
            duplicates: self.agent.duplicates,
            resent: self.client.channel().stats().messages_resent,
            policed: self.policed,
            steps,
            closed: self.closed,
            keystrokes_took: self.keystrokes_took,
            client: self.client,
        }
    }

    /// Begins and ends outages and absences.
    fn switch(&mut self) {
        let at = self.now - self.start;
        while let Some((_, delay)) = self.wire.reroutes.pop_front_if(|(from, _)| *from <= at) {
            self.wire.delay = delay;
            self.hasten();
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
            self.client.handle_cut(self.now);
            self.is_connected = false;
            self.flights.clear();
        }
        if is_away != self.is_away && is_up {
            self.tell(if is_away { MessageType::PausePublication } else { MessageType::StartPublication });
        }
        self.is_up = is_up;
        self.is_away = is_away;
        self.fall_silent(at);
        self.open();
    }

    /// Opens a websocket for a client that wants one, after the round trips that this takes.
    fn open(&mut self) {
        if self.client.poll_attempt(self.now) {
            self.opening = Some(self.now + 2 * self.wire.opening_round_trips * self.wire.delay);
        }
        if !self.client.is_opening() {
            self.opening = None;
        }
        if !self.is_up && self.opening.take().is_some() {
            self.client.handle_refused(self.now);
        }
        if self.opening.take_if(|at| *at <= self.now).is_some() {
            self.flights.clear();
            self.is_silent = false;
            self.is_connected = true;
            self.client.handle_opened(self.now);
        }
    }

    /// After a reroute: a path keeps the order, so nothing arrives later than what is sent now.
    fn hasten(&mut self) {
        let latest = self.now + self.wire.delay + self.wire.jitter;
        let flights = std::mem::take(&mut self.flights);
        self.flights = flights.into_iter().map(|((at, n), flight)| ((at.min(latest), n), flight)).collect();
    }

    /// Half-open sockets, and sleep, which no socket survives.
    fn fall_silent(&mut self, at: Duration) {
        while self.wire.silences.pop_front_if(|from| *from <= at).is_some() {
            self.is_silent = true;
        }
        while let Some((_, length)) = self.wire.sleeps.pop_front_if(|(from, _)| *from <= at) {
            self.is_silent = true;
            self.client.handle_sleep(length);
        }
        if self.is_silent {
            self.flights.clear();
        }
    }

    fn tell(&mut self, message_type: MessageType) {
        let frame = self.agent.envelope(message_type, Bytes::new()).encode();
        self.client.handle_packet(self.now, Packet::Frame(frame));
    }

    /// Gives the channel input, in pieces of any size.
    fn feed(&mut self) {
        while self.client.channel().wants_input()
            && let Some(at) = self.keystrokes.pop_front_if(|at| *at <= self.now)
        {
            self.client.channel().send(Input::Bytes(Bytes::from_static(b"k")));
            self.pressed.push_back((self.given, at));
            self.given += 1;
        }
        while self.client.channel().wants_input()
            && let Some((_, bytes)) = self.to_upload.front_mut().filter(|(at, _)| *at <= self.now)
        {
            let channel = self.client.channel();
            let piece = self.random.usize(1..=1500).min(bytes.len()).min(channel.input_room());
            channel.send(Input::Bytes(bytes.split_to(piece)));
            self.given += piece;
            if bytes.is_empty() {
                self.to_upload.pop_front();
            }
        }
    }

    fn send(&mut self) {
        while let Some(packet) = self.client.poll_packet(self.now) {
            if let Packet::Frame(frame) = &packet {
                self.count(frame);
            }
            self.fly(true, packet);
        }
        self.most_outstanding = self.most_outstanding.max(self.client.channel().stats().outstanding_bytes);
        if self.is_connected && self.is_up && !self.is_away {
            for frame in self.agent.poll(self.now) {
                self.fly(false, Packet::Frame(frame));
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

    fn fly(&mut self, up: bool, packet: Packet) {
        if self.is_silent {
            return;
        }
        // Pings and their answers are the websocket's own, which loses nothing.
        let Packet::Frame(frame) = &packet else {
            self.flights.insert((self.now + self.wire.delay, self.sent), (up, packet));
            self.sent += 1;
            return;
        };
        let loss = if up { self.wire.loss_up } else { self.wire.loss_down };
        let loss_acks = if is_ack(frame) { self.wire.loss_acks } else { 0.0 };
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
            self.flights.insert((at, self.sent), (up, packet.clone()));
            self.sent += 1;
        }
    }

    fn arrive(&mut self) {
        while let Some(flight) = self.flights.first_entry()
            && flight.key().0 <= self.now
        {
            let (up, packet) = flight.remove();
            match packet {
                Packet::Ping => self.fly(false, Packet::Pong),
                _ if self.is_away => {}
                packet if !up => self.client.handle_packet(self.now, packet),
                Packet::Pong => {}
                Packet::Frame(frame) => self.reach_agent(frame),
            }
        }
    }

    fn reach_agent(&mut self, frame: Bytes) {
        if let Some(until) = self.blocked_until() {
            self.flights.insert((until, self.sent), (true, Packet::Frame(frame)));
            self.sent += 1;
        } else if let Some(ack) = self.agent.handle_frame(self.now, frame) {
            self.fly(false, Packet::Frame(ack));
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
        while let Some(event) = self.client.poll_event() {
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
        let timeout = self.client.poll_timeout();
        let agent = self.agent.next_at().filter(|_| self.is_connected && self.is_up && !self.is_away);
        let input = self.to_upload.front().map(|(at, _)| *at).into_iter();
        let input = input
            .chain(self.keystrokes.front().copied())
            .min()
            .filter(|_| self.client.channel().wants_input());
        let spans = self.wire.outages.front().into_iter().chain(self.wire.away.front());
        let deaths =
            self.wire.silences.front().into_iter().chain(self.wire.sleeps.front().map(|(from, _)| from));
        let switches = spans.flat_map(|(from, length)| [start + *from, start + *from + *length]);
        let switches = switches.chain(deaths.map(|from| start + *from));
        let switch = switches.chain(self.cut_until).chain(self.opening).filter(|at| *at > self.now).min();
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

/// Returns the program's configuration.
pub(crate) fn config() -> Config {
    Config::default()
}

pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Outages of `length` that come every so often, for an hour.
pub(crate) fn every(up: Duration, length: Duration) -> Spans {
    (0..)
        .map(|n| (up + (up + length) * n, length))
        .take_while(|(at, _)| at.as_secs() < 3600)
        .take(4000)
        .collect()
}

/// Time that the service keeps a socket closed after cutting it for its rate; here, the time to a new
/// connection.
const POLICE_OUTAGE: Duration = Duration::from_secs(1);
