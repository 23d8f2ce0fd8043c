//! A world: all that is drawn from a seed, on one screen.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use ssm_sim::Faults;
use ssm_sim::agent::Generation;

/// One world. Times count from the moment at which the program starts.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub seed: u64,
    pub agent: Generation,
    /// Bytes in one message of the agent's; real ones send 1,024.
    pub payload: usize,
    pub restart: bool,
    pub sessions: usize,
    pub link: LinkQuality,
    /// The first is the destination of argv, the others are forwarded, or reached through SOCKS.
    pub destinations: Vec<Destination>,
    pub clients: Vec<Client>,
    pub events: Vec<(Duration, Event)>,
}

/// Quality of the way to the service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkQuality {
    pub delay_ms: u64,
    pub jitter_ms: u64,
    pub api_ms: u64,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub cut_every_s: u64,
}

/// The behaviour of a destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Destination {
    /// Sends back what it reads, this late.
    Echo {
        late_ms: u64,
    },
    /// Reads the request, thinks, and sends an answer; then closes, or waits for the client to.
    Answer {
        think_ms: u64,
        bytes: usize,
        closes: bool,
    },
    /// Sends so much at once and closes first, whatever still comes.
    Source {
        bytes: usize,
    },
    /// Reads nothing for a while, then answers as an echo.
    Slow {
        asleep_ms: u64,
    },
    /// Breaks off after so many bytes.
    Reset {
        after: usize,
    },
    Refuse,
    /// Does not answer to connections.
    BlackHole,
}

/// A local client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub at_ms: u64,
    pub destination: usize,
    pub socks: bool,
    /// Bytes of its request.
    pub request: usize,
    /// Bytes that it writes at once, and the pause after them.
    pub piece: usize,
    pub pause_ms: u64,
    /// Pause between two reads.
    pub read_pause_ms: u64,
    pub ending: Ending,
}

/// End of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// When it has read all that it expects.
    Complete,
    /// The same, but it shows the end of its request first.
    HalfClose,
    /// In the middle, after this time, without a word.
    Vanish { after_ms: u64 },
    /// In the middle, with a reset.
    Reset { after_ms: u64 },
}

/// Something that happens to the link, the service, the machine or the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    /// The service closes all websockets, as it does each hour.
    Close,
    /// All websockets break.
    Break,
    /// Nothing passes any more on the websockets there are, without any notice.
    DeadPath,
    /// Nothing passes for a while.
    Silence { ms: u64 },
    /// The service cannot be reached for a while.
    Outage { ms: u64 },
    /// The service pauses the client for a while.
    Pause { ms: u64 },
    /// StartSession is refused for a while.
    Refuse { kind: &'static str, ms: u64 },
    /// The service ends the sessions there are.
    EndSessions,
    /// The machine sleeps: its monotonic clock stands still and its connections die.
    Sleep { ms: u64 },
    /// The machine's network has changed.
    NetworkChange,
    /// The user or the system sends a signal.
    Signal(i32),
}

impl World {
    /// Draws a world.
    pub(super) fn draw(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let rng = &mut rng;
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
        let events = if rng.u8(0..4) == 0 { 0 } else { rng.usize(1..4) };
        let mut events: Vec<_> =
            (0..events).map(|_| (Duration::from_millis(rng.u64(0..40_000)), Event::draw(rng))).collect();
        events.sort_by_key(|(at, _)| *at);
        let link = LinkQuality::draw(rng);
        let payload = *pick(rng, &[1024, 1024, 1024, 30_000]);
        World { seed, agent, payload, restart, sessions, link, destinations, clients, events }
    }

    /// Returns whether the agent carries one connection at a time.
    pub(super) fn is_basic(&self) -> bool {
        self.agent != Generation::V3_3
    }

    /// Returns whether nothing happens that may end a session: then each client of a good destination gets everything.
    pub(super) fn is_gentle(&self) -> bool {
        self.events.iter().all(|(_, event)| match event {
            Event::Signal(signal) => matches!(*signal, libc::SIGUSR1 | libc::SIGWINCH),
            Event::EndSessions | Event::Refuse { .. } => false,
            // Shorter than the waits of clients and of the agent's handshake.
            Event::Outage { ms } | Event::Silence { ms } | Event::Pause { ms } => *ms < 4000,
            Event::Close | Event::Break | Event::DeadPath | Event::NetworkChange | Event::Sleep { .. } => {
                true
            }
        })
    }

    /// Returns whether nothing makes a message come twice.
    pub(super) fn is_calm(&self) -> bool {
        let LinkQuality { loss, duplicate, reorder, jitter_ms, cut_every_s, .. } = self.link;
        self.events.is_empty() && loss + duplicate + reorder == 0.0 && jitter_ms + cut_every_s == 0
    }

    /// Worlds with one thing less each, for finding what a failure needs.
    pub(super) fn smaller(&self) -> Vec<World> {
        let mut all = Vec::new();
        for index in 0..self.clients.len() {
            let mut less = self.clone();
            less.clients.remove(index);
            all.push(less);
        }
        for index in 0..self.events.len() {
            let mut less = self.clone();
            less.events.remove(index);
            all.push(less);
        }
        let link = self.link;
        let calmer = [
            LinkQuality { loss: 0.0, ..link },
            LinkQuality { duplicate: 0.0, ..link },
            LinkQuality { reorder: 0.0, ..link },
            LinkQuality { jitter_ms: 0, ..link },
            LinkQuality { delay_ms: 0, api_ms: 0, ..link },
            LinkQuality { cut_every_s: 0, ..link },
        ];
        let is_new = |other: &LinkQuality| format!("{other:?}") != format!("{link:?}");
        all.extend(calmer.into_iter().filter(is_new).map(|link| World { link, ..self.clone() }));
        if self.sessions > 1 {
            all.push(World { sessions: 1, ..self.clone() });
        }
        if self.restart {
            all.push(World { restart: false, ..self.clone() });
        }
        let unused = |index: usize| self.clients.iter().all(|client| client.destination != index);
        if self.destinations.len() > 1 && unused(self.destinations.len() - 1) {
            let mut less = self.clone();
            less.destinations.pop();
            all.push(less);
        }
        for index in 0..self.clients.len() {
            let client = self.clients[index];
            let simple = Client { request: client.request.min(1), pause_ms: 0, read_pause_ms: 0, ..client };
            if format!("{simple:?}") != format!("{client:?}") {
                let mut less = self.clone();
                less.clients[index] = simple;
                all.push(less);
            }
        }
        all
    }
}

impl LinkQuality {
    fn draw(rng: &mut Rng) -> LinkQuality {
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

    /// The simulator's faults.
    pub(super) fn faults(&self, seed: u64) -> Faults {
        Faults {
            loss_up: self.loss,
            loss_down: self.loss,
            duplicate: self.duplicate,
            reorder: self.reorder,
            reorder_by: Duration::from_millis(5 + self.delay_ms / 2),
            jitter: Duration::from_millis(self.jitter_ms),
            cut_every: Some(Duration::from_secs(self.cut_every_s)).filter(|every| !every.is_zero()),
            seed,
            ..Faults::default()
        }
    }
}

impl Destination {
    fn draw(rng: &mut Rng, is_basic: bool) -> Destination {
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

    /// Returns whether a client gets all that it expects.
    pub(super) fn is_good(self) -> bool {
        !matches!(self, Destination::Reset { .. } | Destination::Refuse | Destination::BlackHole)
    }

    /// Bytes that a client gets.
    pub(super) fn answer(self, request: usize) -> usize {
        match self {
            Destination::Echo { .. } | Destination::Slow { .. } => request,
            Destination::Answer { bytes, .. } | Destination::Source { bytes } => bytes,
            Destination::Reset { after } => after,
            Destination::Refuse | Destination::BlackHole => 0,
        }
    }
}

impl Client {
    fn draw(rng: &mut Rng, number: usize, is_basic: bool, destinations: &[Destination]) -> Client {
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
            ending,
        }
    }
}

impl Event {
    fn draw(rng: &mut Rng) -> Event {
        let ms = if rng.bool() { rng.u64(1..5000) } else { rng.u64(1..100_000) };
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

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { seed, agent, payload, restart, sessions, link, destinations, clients, events } = self;
        writeln!(
            f,
            "world {seed}: agent {agent:?}, payload {payload}, restart {restart}, sessions {sessions}"
        )?;
        writeln!(f, "  {link:?}")?;
        for (number, destination) in destinations.iter().enumerate() {
            writeln!(f, "  destination {number}: {destination:?}")?;
        }
        for (number, client) in clients.iter().enumerate() {
            writeln!(f, "  client {number}: {client:?}")?;
        }
        for (at, event) in events {
            writeln!(f, "  at {at:?}: {event:?}")?;
        }
        Ok(())
    }
}
