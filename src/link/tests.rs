//! A link without its sockets in the virtual network, against the model of the agent.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use super::connection::Connection;
use super::{Config, GaveUp, LinkEvent, OpenError, OpenFailure};
use crate::protocol::message::{Message as Envelope, MessageType, PayloadType};
use crate::protocol::tests::virtual_network::{
    Client, MS, Outcome, Packet, Traffic, Wire, World, every, noise,
};
use crate::protocol::{Channel, Event, Input};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const SEEDS: u64 = 8;

/// A link with the clocks of the virtual network, and the events it gave.
struct VirtualLink {
    connection: Connection,
    start: Instant,
    slept: Duration,
    told: Vec<(Duration, LinkEvent)>,
    opens: usize,
    pings: usize,
    wakeups: usize,
    now: Instant,
}

impl VirtualLink {
    fn new(start: Instant, seed: u64, config: Config) -> VirtualLink {
        VirtualLink {
            connection: Connection::new(start, config, "host".into(), seed),
            start,
            slept: Duration::ZERO,
            told: Vec::new(),
            opens: 0,
            pings: 0,
            wakeups: 0,
            now: start,
        }
    }

    fn tick(&mut self, now: Instant) -> SystemTime {
        self.now = now;
        let wall = SystemTime::UNIX_EPOCH + (now - self.start) + self.slept;
        self.connection.handle_clocks(now, wall);
        wall
    }

    /// When connections were lost, and when they were back.
    fn lost_and_back(&self) -> Vec<(Duration, Duration)> {
        let at = |is: fn(&LinkEvent) -> bool| {
            self.told.iter().filter(move |(_, event)| is(event)).map(|(at, _)| *at)
        };
        let lost: Vec<_> = at(|event| matches!(event, LinkEvent::Lost(_))).collect();
        let back: Vec<_> = at(|event| matches!(event, LinkEvent::Resumed)).collect();
        assert_eq!(lost.len(), back.len(), "{:?}", self.told);
        lost.into_iter().zip(back).collect()
    }

    fn end(&self) -> Option<(Duration, &GaveUp)> {
        self.told.iter().find_map(|(at, event)| match event {
            LinkEvent::GaveUp(reason) => Some((*at, reason)),
            _ => None,
        })
    }
}

impl Client for VirtualLink {
    fn channel(&mut self) -> &mut Channel {
        self.connection.channel_mut()
    }

    fn poll_attempt(&mut self, now: Instant) -> bool {
        self.tick(now);
        self.connection.poll_attempt(now).is_some()
    }

    fn is_opening(&self) -> bool {
        self.connection.is_opening()
    }

    fn handle_opened(&mut self, now: Instant) {
        self.opens += 1;
        let wall = self.tick(now);
        self.connection.handle_opened(now, wall, "token", None);
    }

    fn handle_refused(&mut self, now: Instant) {
        let error = OpenError::TimedOut { host: "host".into(), timeout: SECOND };
        self.connection.handle_open_failed(now, OpenFailure::Websocket(error), None);
    }

    fn handle_cut(&mut self, now: Instant) {
        self.connection.handle_lost(now, "cut".into());
    }

    fn handle_sleep(&mut self, length: Duration) {
        self.slept += length;
    }

    fn handle_packet(&mut self, now: Instant, packet: Packet) {
        self.tick(now);
        let message = match packet {
            Packet::Frame(frame) => Message::Binary(frame),
            Packet::Ping => Message::Ping(Bytes::new()),
            Packet::Pong => Message::Pong(Bytes::new()),
        };
        self.connection.handle_message(now, message);
    }

    fn poll_packet(&mut self, now: Instant) -> Option<Packet> {
        self.tick(now);
        loop {
            match self.connection.poll_transmit(now)? {
                Message::Binary(frame) => return Some(Packet::Frame(frame)),
                Message::Ping(_) => {
                    self.pings += 1;
                    return Some(Packet::Ping);
                }
                _ => {}
            }
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.connection.poll_timeout(true).map(|(at, _)| at)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.wakeups += 1;
        self.tick(now);
        self.connection.handle_timeout(now, true);
    }

    fn poll_event(&mut self) -> Option<Event> {
        loop {
            match self.connection.poll_event(true)? {
                LinkEvent::Channel(event) => return Some(event),
                event => self.told.push((self.now - self.start, event)),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.end().is_some()
    }
}

/// Runs until `upload` and `download` have arrived, or `limit` has passed.
fn run(seed: u64, wire: Wire, upload: &Traffic, download: &Traffic, limit: Duration) -> Outcome<VirtualLink> {
    let size = |traffic: &Traffic| traffic.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let link = |start| VirtualLink::new(start, seed, Config::default());
    let world = World::with_client(link, seed, wire, upload.clone(), download.clone());
    world.run(size(download), limit)
}

/// Runs it to the end and checks that all has arrived, once and in order.
#[track_caller]
fn deliver(seed: u64, wire: Wire, upload: &Traffic, download: &Traffic) -> Outcome<VirtualLink> {
    let all = |traffic: &Traffic| traffic.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>();
    let outcome = run(seed, wire, upload, download, HOUR * 30);
    assert_eq!(outcome.closed, None, "seed {seed}");
    assert!(outcome.client.end().is_none(), "seed {seed}: {:?}", outcome.client.told);
    assert!(outcome.uploaded == all(upload), "seed {seed}: {} bytes up", outcome.uploaded.len());
    assert!(outcome.downloaded == all(download), "seed {seed}: {} bytes down", outcome.downloaded.len());
    outcome
}

/// A prompt at the start, then `size` bytes at each of the times.
fn traffic(seed: u64, size: usize, times: impl IntoIterator<Item = Duration>) -> Traffic {
    let prompt = (Duration::ZERO, Bytes::from_static(b"$ "));
    let later = times.into_iter().zip(seed..).map(|(at, seed)| (at, Bytes::from(noise(seed, size))));
    std::iter::once(prompt).chain(later).collect()
}

fn wire() -> Wire {
    Wire { delay: 20 * MS, ..Wire::default() }
}

#[test]
fn an_idle_link_wakes_for_its_pings_only() {
    let outcome = deliver(1, wire(), &traffic(1, 1, [HOUR]), &traffic(2, 1, []));
    let VirtualLink { pings, wakeups, told, .. } = &outcome.client;
    assert!((119..=121).contains(pings), "{pings} pings");
    assert!(*wakeups < pings + 10, "{wakeups} wake-ups for {pings} pings");
    assert!(told.iter().all(|(_, event)| matches!(event, LinkEvent::WantsInput)), "{told:?}");
}

/// The socket does not survive it, and looks as if it did: what is typed afterwards finds out.
#[test]
fn hours_of_sleep_cost_seconds() {
    for seed in 0..SEEDS {
        let mut wire = wire();
        wire.sleeps = [(100 * SECOND, HOUR * 9), (200 * SECOND, HOUR)].into();
        let upload = traffic(seed, 100, [50, 102, 150, 203].map(|at| SECOND * at));
        let outcome = deliver(seed, wire, &upload, &traffic(9, 5_000, [SECOND * 101, SECOND * 210]));
        let breaks = outcome.client.lost_and_back();
        assert_eq!(breaks.len(), 2, "{breaks:?}");
        for ((lost, back), asleep) in breaks.into_iter().zip([100, 200]) {
            assert!(lost <= SECOND * (asleep + 2 + 6), "noticed after {lost:?}");
            assert!(back - lost < SECOND, "back after {:?}", back - lost);
        }
    }
}

/// Without anything typed, the next ping finds out.
#[test]
fn an_idle_link_notices_a_sleep_at_its_next_ping() {
    let mut wire = wire();
    wire.sleeps = [(100 * SECOND, HOUR * 9)].into();
    let outcome = deliver(1, wire, &traffic(1, 1, [SECOND * 300]), &traffic(2, 1, []));
    let [(lost, back)] = outcome.client.lost_and_back()[..] else { panic!("{:?}", outcome.client.told) };
    assert!(lost <= SECOND * (120 + 6) && back - lost < SECOND, "{lost:?}, {back:?}");
}

/// A router has forgotten the connection: no byte, and no end either. Under way or idle, a ping finds out.
#[test]
fn half_open_sockets_are_replaced() {
    for seed in 0..SEEDS {
        let mut wire = Wire { jitter: 30 * MS, ..Wire::losing(0.01, 20 * MS) };
        wire.silences = [20, 300, 302, 1000].map(|at| SECOND * at + MS * 100 * seed as u32).into();
        let upload = traffic(seed, 3_000_000, [SECOND * 18, SECOND * 1300]);
        let outcome = deliver(seed, wire, &upload, &traffic(9, 100_000, [SECOND * 19, SECOND * 305]));
        let breaks = outcome.client.lost_and_back();
        assert_eq!(breaks.len(), 3, "{breaks:?}");
        for ((lost, back), silent) in breaks.into_iter().zip([20, 300, 1000]) {
            assert!(lost <= SECOND * (silent + 61), "noticed after {lost:?}");
            assert!(back - lost < SECOND * 2, "back after {:?}", back - lost);
        }
    }
}

/// A path that goes dead without a word: the time until the link is back, after the death or what the user did then.
#[track_caller]
fn back_after(seed: u64, upload: &Traffic, download: &Traffic, dead: Duration, from: Duration) -> Duration {
    let mut wire = Wire { jitter: 5 * MS, opening_round_trips: 4, ..wire() };
    wire.silences = [dead].into();
    let outcome = deliver(seed, wire, upload, download);
    let [(_, back)] = outcome.client.lost_and_back()[..] else { panic!("{:?}", outcome.client.told) };
    back - from
}

#[test]
fn a_dead_path_is_noticed_while_the_user_types() {
    for seed in 0..SEEDS {
        let dead = SECOND * 20 + MS * 130 * seed as u32;
        let typed = traffic(seed, 1, (1..600).map(|n| MS * 100 * n));
        let took = back_after(seed, &typed, &traffic(9, 1, []), dead, dead);
        assert!(took <= SECOND * 5, "back after {took:?}");
    }
}

#[test]
fn a_path_that_died_while_idle_is_noticed_when_the_user_types() {
    for (seed, idle) in [5, 9, 12, 25].into_iter().enumerate() {
        let (dead, input) = (SECOND * 40, SECOND * (40 + idle));
        let typed = traffic(seed as u64, 1, [SECOND * 39, input]);
        let took = back_after(seed as u64, &typed, &traffic(9, 1, []), dead, input);
        assert!(took <= SECOND * 3, "back after {took:?}, idle for {idle} s");
    }
}

#[test]
fn a_dead_path_is_noticed_in_a_download() {
    for seed in 0..SEEDS {
        let dead = SECOND * 20 + MS * 130 * seed as u32;
        let received = traffic(9, 1_000, (1..4_000).map(|n| MS * 10 * n));
        let took = back_after(seed, &traffic(seed, 1, []), &received, dead, dead);
        assert!(took <= SECOND * 7, "back after {took:?}");
    }
}

/// A round trip that jumps between 20 ms and 3 s, losses, a destination that blocks for ten minutes at a stretch: no websocket
/// is given up for any of these.
#[test]
fn slow_and_lossy_paths_raise_no_false_alarm() {
    for seed in 0..SEEDS {
        let mut draw = fastrand::Rng::with_seed(seed);
        let mut wire = Wire { opening_round_trips: 4, ..Wire::losing(0.02, 10 * MS) };
        let (mut at, mut is_slow) = (Duration::ZERO, false);
        while at < HOUR {
            at += SECOND * draw.u32(5..90);
            is_slow = !is_slow;
            wire.reroutes.push_back((at, if is_slow { 1500 * MS } else { 10 * MS }));
        }
        wire.blocked = [(SECOND * 1200, SECOND * 100), (SECOND * 1800, SECOND * 660)].into();
        let mut times = || {
            let mut times: Vec<_> = (0..200).map(|_| MS * draw.u32(1000..3_600_000)).collect();
            times.sort();
            times
        };
        let (upload, download) = (traffic(seed, 300, times()), traffic(100 + seed, 300, times()));
        let outcome = deliver(seed, wire, &upload, &download);
        assert_eq!(outcome.client.opens, 1, "seed {seed}: {:?}", outcome.client.told);
    }
}

/// Sockets that live for seconds, and in between none for seconds.
#[test]
fn a_flapping_network_loses_nothing() {
    for seed in 0..SEEDS {
        let mut wire = Wire { jitter: 10 * MS, ..Wire::losing(0.02, 30 * MS) };
        wire.outages = every(SECOND + MS * 200 * seed as u32, MS * 200 * (seed as u32 + 1));
        wire.pauses = seed % 2 == 0;
        let outcome = deliver(seed, wire, &traffic(seed, 2_000_000, [SECOND]), &traffic(9, 50_000, [SECOND]));
        let breaks = outcome.client.lost_and_back();
        assert!(!breaks.is_empty(), "{breaks:?}");
        for (lost, back) in breaks {
            assert!(back - lost < SECOND * 8, "seed {seed}: {lost:?} to {back:?}");
        }
    }
}

#[test]
fn a_service_that_closes_each_hour_is_not_noticed() {
    for seed in 0..SEEDS {
        let mut draw = fastrand::Rng::with_seed(seed);
        let mut wire = Wire { jitter: 20 * MS, ..Wire::losing(0.01, 40 * MS) };
        wire.outages = (1..24).map(|hour| (HOUR * hour, MS * draw.u32(1..100))).collect();
        let mut times = |count: u32| {
            let mut times: Vec<_> = (0..count).map(|_| SECOND * draw.u32(1..24 * 3600)).collect();
            times.push(HOUR * 24);
            times.sort();
            times
        };
        let upload = traffic(seed, 20_000, times(60));
        let outcome = deliver(seed, wire, &upload, &traffic(100, 20_000, times(60)));
        let breaks = outcome.client.lost_and_back();
        assert_eq!(breaks.len(), 23, "{breaks:?}");
        for (lost, back) in breaks {
            assert!(back - lost < SECOND, "{lost:?} to {back:?}");
        }
    }
}

#[test]
fn a_network_that_does_not_come_back_is_given_up_after_five_minutes() {
    let mut wire = wire();
    wire.outages = [(SECOND * 100, HOUR)].into();
    let outcome = run(1, wire, &traffic(1, 1, [HOUR]), &traffic(2, 1, []), HOUR);
    let Some((at, GaveUp::Reconnect { .. })) = outcome.client.end() else {
        panic!("{:?}", outcome.client.told)
    };
    assert_eq!(at, SECOND * 400);
}

#[test]
fn a_network_that_is_not_there_is_given_up_after_half_a_minute() {
    let mut wire = wire();
    wire.outages = [(Duration::ZERO, HOUR)].into();
    let outcome = run(1, wire, &traffic(1, 1, [HOUR]), &traffic(2, 1, []), HOUR);
    let told = &outcome.client.told;
    let Some((at, GaveUp::OpenTimeout { .. })) = outcome.client.end() else { panic!("{told:?}") };
    assert_eq!(at, SECOND * 30);
    let warnings = told.iter().filter(|(_, event)| matches!(event, LinkEvent::Warning(_))).count();
    let waits = told.iter().filter_map(|(at, event)| match event {
        LinkEvent::Connecting { waited, .. } => Some((*at, *waited)),
        _ => None,
    });
    assert!(waits.eq([3, 18].map(|second| (SECOND * second, SECOND * second))), "{told:?}");
    assert_eq!((warnings, told.len()), (1, 4), "{told:?}");
}

/// Shortly before the end it comes back, every time.
#[test]
fn long_outages_are_outlasted() {
    for seed in 0..SEEDS {
        let mut wire = wire();
        wire.outages = every(SECOND * 60, SECOND * 290);
        let upload = traffic(seed, 1_000, (1..8).map(|n| SECOND * 350 * n));
        let outcome = deliver(seed, wire, &upload, &traffic(9, 1_000, (1..8).map(|n| SECOND * 350 * n)));
        assert!(outcome.client.lost_and_back().iter().all(|(lost, back)| *back - *lost < SECOND * 300));
    }
}

fn from_agent(sequence: i64, payload_type: PayloadType, payload: &'static [u8]) -> Message {
    let message = Envelope {
        message_type: MessageType::OutputStreamData,
        created_ms: 0,
        sequence,
        flags: 0,
        id: uuid::Uuid::nil(),
        payload_type,
        payload: Bytes::from_static(payload),
    };
    Message::Binary(message.encode())
}

/// A session may have kept its input back until then.
#[test]
fn input_is_wanted_again_when_the_agent_has_had_its_time() {
    let start = Instant::now();
    let mut connection = Connection::new(start, Config::default(), "host".into(), 1);
    assert!(connection.poll_attempt(start).is_some());
    connection.handle_opened(start, SystemTime::UNIX_EPOCH, "token", None);
    let request = br#"{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"InteractiveCommands"}}]}"#;
    connection.handle_message(start, from_agent(0, PayloadType::HandshakeRequest, request));
    while connection.poll_transmit(start).is_some() {}
    connection.handle_message(start, from_agent(1, PayloadType::HandshakeComplete, b"{}"));
    while connection.poll_event(true).is_some() {}
    connection.channel_mut().send(Input::Bytes(Bytes::from_static(b"x")));
    let (mut now, mut is_wanted) = (start, false);
    while !is_wanted && now < start + SECOND {
        while connection.poll_transmit(now).is_some() {}
        now = connection.poll_timeout(true).expect("a deadline").0;
        connection.handle_timeout(now, true);
        is_wanted = std::iter::from_fn(|| connection.poll_event(true))
            .any(|event| matches!(event, LinkEvent::WantsInput));
    }
    assert!(is_wanted && now <= start + Duration::from_millis(20), "{:?}", now - start);
}

/// The service sends, and reads nothing itself: neither acknowledgements nor pings.
#[test]
fn a_websocket_that_takes_no_acknowledgements_is_not_silent() {
    let start = Instant::now();
    let mut connection = Connection::new(start, Config::default(), "host".into(), 1);
    assert!(connection.poll_attempt(start).is_some());
    connection.handle_opened(start, SystemTime::UNIX_EPOCH, "token", None);
    for sequence in 0.. {
        if !connection.wants_frames() {
            break;
        }
        connection.handle_message(start, from_agent(sequence, PayloadType::Output, b"x"));
        while connection.poll_event(true).is_some() {}
    }
    connection.channel_mut().send(Input::Bytes(Bytes::from_static(b"y")));
    for second in 0..600 {
        connection.handle_timeout(start + SECOND * second, true);
        assert!(connection.is_open(), "silent after {second} s");
    }
    // Acknowledgements are written: the frames that wait are read, or missed.
    let now = start + SECOND * 600;
    while connection.poll_transmit(now).is_some() {}
    connection.handle_timeout(now, true);
    connection.handle_timeout(now + SECOND * 60, true);
    assert!(!connection.is_open());
}
