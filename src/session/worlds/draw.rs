//! The generator of worlds.

use std::time::Duration;

use fastrand::Rng;
use ssm_sim::agent::Generation;

use super::world::{Client, Destination, Ending, Event, Kind, LinkQuality, World};

impl World {
    /// Draws a world.
    pub(super) fn draw(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let kind = match rng.u8(0..12) {
            0 | 1 => Kind::Shell { is_encrypted: rng.bool() },
            2 | 3 => Kind::Ssh,
            4 => Kind::Command { is_separate: rng.bool() },
            _ => Kind::Ports,
        };
        let mut world = match kind {
            Kind::Ports => World::with_ports(seed, &mut rng),
            kind => World::on_streams(seed, kind, &mut rng),
        };
        if rng.u8(0..12) == 0 {
            let event = Event::NoDescriptors { ms: short_or_long(&mut rng) };
            world.add_event(Duration::from_millis(rng.u64(0..40_000)), event);
        }
        if rng.u8(0..24) == 0 {
            // For longer than any client waits.
            let event = Event::Refuse { kind: "TargetNotConnected", ms: rng.u64(300_000..900_000) };
            world.add_event(Duration::from_millis(rng.u64(0..5000)), event);
        }
        world
    }

    /// Adds an event in its place.
    pub(super) fn add_event(&mut self, at: Duration, event: Event) {
        self.events.push((at, event));
        self.events.sort_by_key(|(at, _)| *at);
    }

    /// A session on stdin and stdout: one client, one destination or program.
    fn on_streams(seed: u64, kind: Kind, rng: &mut Rng) -> World {
        let agent = *pick(rng, &[Generation::V3_3, Generation::V3_3, Generation::V3_0, Generation::V2_3]);
        let destination = match (kind, Destination::draw(rng, false)) {
            // A command reads nothing.
            (Kind::Command { .. }, Destination::Answer { think_ms, bytes, .. }) => {
                Destination::Answer { think_ms, bytes, closes: true }
            }
            (Kind::Command { .. }, Destination::Reset { after }) => Destination::Reset { after },
            (Kind::Command { .. }, _) => Destination::Source { bytes: size(rng) },
            (Kind::Shell { .. }, Destination::Refuse | Destination::BlackHole) => {
                Destination::Echo { late_ms: 1 }
            }
            (_, destination) => destination,
        };
        let client = Client { at_ms: rng.u64(0..4000), ..Client::draw(rng, 0, false, &[destination]) };
        World {
            seed,
            kind,
            agent,
            // The console writes so much at once; the rest would be left to a thread.
            payload: *pick(rng, &[1024, 1024, 10_000]),
            restart: false,
            sessions: 1,
            has_small_buffer: false,
            link: LinkQuality::draw(rng),
            destinations: vec![destination],
            clients: vec![client],
            events: Event::draw_all(rng),
        }
    }

    fn with_ports(seed: u64, rng: &mut Rng) -> World {
        let agent = *pick(
            rng,
            &[Generation::V3_3, Generation::V3_3, Generation::V3_3, Generation::V3_0, Generation::V2_3],
        );
        let is_basic = agent != Generation::V3_3;
        let restart = !is_basic && rng.bool();
        let sessions = if is_basic { 1 } else { *pick(rng, &[1, 1, 1, 2, 4, 8]) };
        let others = if is_basic || rng.bool() { 0 } else { rng.usize(1..4) };
        let destinations: Vec<_> = (0..=others).map(|_| Destination::draw(rng, is_basic)).collect();
        let count = if is_basic { rng.usize(1..4) } else { rng.usize(1..9) };
        let clients = (0..count).map(|number| Client::draw(rng, number, is_basic, &destinations)).collect();
        let events = Event::draw_all(rng);
        let link = LinkQuality::draw(rng);
        let payload = *pick(rng, &[1024, 1024, 1024, 30_000]);
        let mut world = World {
            seed,
            kind: Kind::Ports,
            agent,
            payload,
            restart,
            sessions,
            has_small_buffer: rng.bool(),
            link,
            destinations,
            clients,
            events,
        };
        if rng.u8(0..16) == 0 {
            world.add_large(rng);
        }
        world
    }

    /// Makes one client send or get much more than the others, and perhaps read none of it for a while.
    fn add_large(&mut self, rng: &mut Rng) {
        self.payload = 30_000;
        let client = &mut self.clients[0];
        let bytes = rng.usize(1_000_000..8_000_000);
        match &mut self.destinations[client.destination] {
            Destination::Answer { bytes: answer, .. } | Destination::Source { bytes: answer } => {
                *answer = bytes
            }
            Destination::Echo { late_ms } => {
                *late_ms = 0;
                client.request = bytes / 4;
            }
            _ => {}
        }
        (client.piece, client.pause_ms, client.read_pause_ms) = (20_000, 0, 0);
        if rng.bool() {
            client.stall_ms = rng.u64(1000..30_000);
            self.has_small_buffer = true;
        } else if !self.is_basic() && rng.bool() {
            self.make_calm(bytes, rng);
        }
    }

    /// Lets all clients start together on a calm link, the first one with much more to send.
    fn make_calm(&mut self, bytes: usize, rng: &mut Rng) {
        let LinkQuality { delay_ms, api_ms, .. } = self.link;
        self.link = LinkQuality { delay_ms, api_ms, ..LinkQuality::default() };
        self.events.clear();
        self.destinations.fill(Destination::Echo { late_ms: 0 });
        let at_ms = self.clients[0].at_ms;
        for client in &mut self.clients {
            (client.pause_ms, client.read_pause_ms) = (0, 0);
            client.at_ms = at_ms + rng.u64(0..2000);
        }
        let first = &mut self.clients[0];
        (first.at_ms, first.request, first.piece) = (at_ms, bytes / 2, 20_000);
    }
}

impl LinkQuality {
    pub(super) fn draw(rng: &mut Rng) -> LinkQuality {
        let rare = |rng: &mut Rng, most: f64| if rng.u8(0..3) == 0 { rng.f64() * most } else { 0.0 };
        LinkQuality {
            delay_ms: *pick(rng, &[0, 1, 5, 20, 75, 150]),
            jitter_ms: *pick(rng, &[0, 0, 3, 30]),
            api_ms: *pick(rng, &[0, 5, 80, 400, 3000]),
            loss: rare(rng, 0.05),
            duplicate: rare(rng, 0.2),
            reorder: rare(rng, 0.2),
            cut_every_s: *pick(rng, &[0, 0, 0, 0, 3, 20]),
        }
    }
}

impl Destination {
    pub(super) fn draw(rng: &mut Rng, is_basic: bool) -> Destination {
        // Agents that carry one connection dial when the session starts, and end it if that fails.
        match rng.u8(0..if is_basic { 5 } else { 10 }) {
            0..=2 => Destination::Echo { late_ms: *pick(rng, &[0, 0, 3, 200]) },
            3 | 4 => Destination::Answer {
                think_ms: if is_basic { *pick(rng, &[0, 10, 300]) } else { *pick(rng, &[0, 10, 300, 7000]) },
                bytes: size(rng),
                closes: !is_basic && rng.bool(),
            },
            5 => Destination::Source { bytes: size(rng) },
            6 => Destination::Slow { asleep_ms: rng.u64(100..20_000) },
            7 => Destination::Reset { after: rng.usize(0..5000) },
            8 => Destination::Refuse,
            _ => Destination::BlackHole,
        }
    }
}

impl Client {
    pub(super) fn draw(rng: &mut Rng, number: usize, is_basic: bool, destinations: &[Destination]) -> Client {
        let destination = rng.usize(0..destinations.len());
        let after_ms = rng.u64(1..20_000);
        let ending = match rng.u8(0..8) {
            0 | 1 if !is_basic => Ending::HalfClose,
            2 => Ending::Vanish { after_ms },
            3 => Ending::Reset { after_ms },
            _ => Ending::Complete,
        };
        let request = size(rng);
        let is_slow = rng.u8(0..8) == 0;
        Client {
            // One after the other where the agent carries one at a time.
            at_ms: if is_basic { number as u64 * 60_000 } else { rng.u64(0..30_000) },
            destination,
            socks: destination > 0 && rng.bool(),
            request,
            piece: if is_slow { (request / 60).max(1) } else { rng.usize(1..20_000) },
            pause_ms: if is_slow { 1000 } else { *pick(rng, &[0, 0, 1, 40]) },
            read_pause_ms: *pick(rng, &[0, 0, 0, 0, 5, 250]),
            stall_ms: 0,
            ending,
        }
    }
}

impl Event {
    fn draw_all(rng: &mut Rng) -> Vec<(Duration, Event)> {
        let count = if rng.u8(0..4) == 0 { 0 } else { rng.usize(1..4) };
        let mut events: Vec<_> =
            (0..count).map(|_| (Duration::from_millis(rng.u64(0..40_000)), Event::draw(rng))).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    }

    pub(super) fn draw(rng: &mut Rng) -> Event {
        let ms = short_or_long(rng);
        match rng.u8(0..14) {
            0 => Event::Close,
            1 => Event::Break,
            2 | 3 => Event::DeadPath,
            4 => Event::Silence { ms: ms / 4 },
            5 => Event::Outage { ms },
            6 => Event::Pause { ms: ms / 3 },
            7 => {
                let kinds = [
                    "ThrottlingException",
                    "AccessDeniedException",
                    "TargetNotConnected",
                    "ExpiredTokenException",
                ];
                // Longer than a connection waits for a session, at times.
                let ms = if rng.u8(0..4) == 0 { ms * 6 } else { ms };
                Event::Refuse { kind: kinds[rng.usize(0..kinds.len())], ms }
            }
            8 | 9 => Event::EndSessions,
            10 => Event::Sleep { ms: ms * 60 },
            11 => Event::NetworkChange,
            12 => Event::Signal(libc::SIGINT),
            _ => Event::Signal(*pick(rng, &[libc::SIGTERM, libc::SIGUSR1, libc::SIGWINCH])),
        }
    }
}

/// Milliseconds that something lasts.
fn short_or_long(rng: &mut Rng) -> u64 {
    if rng.bool() { rng.u64(1..5000) } else { rng.u64(1..100_000) }
}

/// Small sizes, and some that fill windows.
fn size(rng: &mut Rng) -> usize {
    match rng.u8(0..8) {
        0 => 0,
        1..=4 => rng.usize(1..2000),
        5 | 6 => rng.usize(1..30_000),
        _ => rng.usize(1..150_000),
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}
