//! A world: all that is drawn from a seed, on one screen.

use std::fmt;
use std::time::Duration;

use ssm_sim::Faults;
use ssm_sim::agent::Generation;

/// One world. Times count from the moment at which the program starts.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub seed: u64,
    pub kind: Kind,
    pub agent: Generation,
    /// Bytes in one message of the agent's; real ones send 1,024.
    pub payload: usize,
    pub restart: bool,
    pub sessions: usize,
    /// The smallest buffer for slow readers that may be set; otherwise the default.
    pub has_small_buffer: bool,
    pub link: LinkQuality,
    /// The first is the destination of argv, the others are forwarded, or reached through SOCKS.
    pub destinations: Vec<Destination>,
    pub clients: Vec<Client>,
    pub events: Vec<(Duration, Event)>,
}

/// The kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Forwarded ports.
    Ports,
    /// A shell whose user types the client's bytes.
    Shell { is_encrypted: bool },
    /// A connection on stdin and stdout.
    Ssh,
    /// A command without input.
    Command { is_separate: bool },
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
    /// Pause before the first one.
    pub stall_ms: u64,
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
    /// The process can open no connection for a while, neither accept one.
    NoDescriptors { ms: u64 },
    /// The user or the system sends a signal.
    Signal(i32),
}

impl World {
    /// Returns whether the agent carries one connection at a time.
    pub(super) fn is_basic(&self) -> bool {
        self.kind == Kind::Ports && self.agent != Generation::V3_3
    }

    /// Returns whether the session is on stdin and stdout, where nothing but letters is sent.
    pub(super) fn is_text(&self) -> bool {
        self.kind != Kind::Ports
    }

    /// Returns whether the session is a command's.
    pub(super) fn is_command(&self) -> bool {
        matches!(self.kind, Kind::Command { .. })
    }

    /// Returns whether another client may come while there is no descriptor for it and this one has connected.
    pub(super) fn needs_descriptor_of(&self, number: usize) -> bool {
        let end = |(at, event): &(Duration, Event)| match event {
            Event::NoDescriptors { ms } => Some(*at + Duration::from_millis(*ms)),
            _ => None,
        };
        let connects_before = |client: &Client, end| Duration::from_millis(client.at_ms) < end;
        let mut ends = self.events.iter().filter_map(end);
        // The other client may have been waiting to be accepted.
        ends.any(|end| {
            connects_before(&self.clients[number], end)
                && self.clients.iter().filter(|client| connects_before(client, end)).count() > 1
        })
    }

    /// Returns whether nothing happens that may end a session: then each client of a good destination gets everything.
    pub(super) fn is_gentle(&self) -> bool {
        if self.is_text() {
            return self.is_gentle_to_programs();
        }
        self.events.iter().all(|(_, event)| match event {
            Event::Signal(signal) => matches!(*signal, libc::SIGUSR1 | libc::SIGWINCH),
            Event::EndSessions | Event::Refuse { .. } => false,
            // Shorter than the waits of clients and of the agent's handshake.
            Event::Outage { ms } | Event::Silence { ms } | Event::Pause { ms } => *ms < 4000,
            Event::NoDescriptors { ms } => *ms < 10_000,
            Event::Close | Event::Break | Event::DeadPath | Event::NetworkChange | Event::Sleep { .. } => {
                true
            }
        })
    }

    /// The same for a session that ends with its program: the agent waits two seconds for the acknowledgement of its last
    /// output, then that is lost. It repeats ten messages a second.
    fn is_gentle_to_programs(&self) -> bool {
        let LinkQuality { loss, cut_every_s, delay_ms, api_ms, .. } = self.link;
        let client = &self.clients[0];
        let is_short = self.destinations[0].answer(client.request) <= REPEATED_IN_TIME * self.payload;
        let is_quick = api_ms <= 400 && delay_ms <= 75 && is_short;
        let is_harmless = |event: &Event| match event {
            Event::Signal(signal) => matches!(*signal, libc::SIGUSR1 | libc::SIGWINCH),
            Event::Close | Event::Break => is_quick,
            Event::NetworkChange => true,
            _ => false,
        };
        loss == 0.0
            && (cut_every_s == 0 || is_quick)
            && self.events.iter().all(|(_, event)| is_harmless(event))
    }

    /// Returns whether nothing makes a message come twice. A slow reader does if the buffer is small: while it holds up the
    /// session, acknowledgements are not read either.
    pub(super) fn is_calm(&self) -> bool {
        let LinkQuality { loss, duplicate, reorder, jitter_ms, cut_every_s, .. } = self.link;
        let holds_up = |client: &Client| self.has_small_buffer && client.read_pause_ms + client.stall_ms > 0;
        self.events.is_empty()
            && loss + duplicate + reorder == 0.0
            && jitter_ms + cut_every_s == 0
            && !self.clients.iter().any(holds_up)
    }

    /// Returns whether all destinations take and answer what comes, and all clients read.
    pub(super) fn is_prompt(&self) -> bool {
        let is_prompt = |destination: &Destination| {
            matches!(
                destination,
                Destination::Echo { .. } | Destination::Answer { .. } | Destination::Source { .. }
            )
        };
        self.destinations.iter().all(is_prompt)
            && self.clients.iter().all(|client| client.read_pause_ms + client.stall_ms == 0)
    }

    /// Returns whether each destination has room for what comes at once. One that is late to read has some.
    pub(super) fn has_room(&self) -> bool {
        let fits = |client: &Client| match self.destinations[client.destination] {
            Destination::Echo { late_ms } => late_ms < 100 || client.request < ROOM,
            _ => true,
        };
        self.is_prompt() && self.clients.iter().all(fits)
    }

    /// Longest time from a client's connection to the last byte for it; `None` where the world sets no limit.
    pub(super) fn bound(&self, number: usize) -> Option<Duration> {
        let LinkQuality { delay_ms, jitter_ms, api_ms, loss, cut_every_s, .. } = self.link;
        let is_quiet = self.events.iter().all(|(_, event)| match event {
            Event::Close | Event::NetworkChange => true,
            Event::Signal(signal) => matches!(*signal, libc::SIGUSR1 | libc::SIGWINCH),
            _ => false,
        });
        // With an agent that carries one connection at a time a client waits for the one before it.
        if !is_quiet || loss > 0.0 || cut_every_s > 0 || !self.is_prompt() || self.is_basic() {
            return None;
        }
        let client = &self.clients[number];
        let pieces = 1 + (HEADER + client.request) / client.piece.max(1);
        let own = pieces as u64 * client.pause_ms;
        let there = match self.destinations[client.destination] {
            Destination::Echo { late_ms } => {
                // It reads a piece, or what has come, and sends it back.
                late_ms * (2 + pieces.max(client.request / self.payload.min(16_384)) as u64)
            }
            Destination::Answer { think_ms, .. } => think_ms,
            _ => 0,
        };
        let path = 40 * (2 * delay_ms + jitter_ms) + 4 * api_ms;
        // The pace of the service, in turns with the others, who may send more.
        let sent: usize = self.clients.iter().map(|other| other.request.min(client.request + TURN)).sum();
        let pace = sent as u64 / SLOWEST_PACE;
        let unexplained = if self.is_calm() { LONGEST_WAIT / 4 } else { LONGEST_WAIT };
        Some(Duration::from_millis(own + there + path + pace) + unexplained)
    }

    /// Worlds with one thing less each, for finding what a failure needs.
    pub(super) fn smaller(&self) -> Vec<World> {
        let mut all = Vec::new();
        // The one client of standard streams stays.
        for index in 0..if self.is_text() { 0 } else { self.clients.len() } {
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
            let simple = Client {
                request: client.request.min(1),
                pause_ms: 0,
                read_pause_ms: 0,
                stall_ms: 0,
                ..client
            };
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

/// Bytes of a request's header, which are sent before those of [`Client::request`].
pub(super) const HEADER: usize = 16;
/// Bytes in a millisecond that a session takes at least, with messages of one KiB.
const SLOWEST_PACE: u64 = 500;
/// Bytes that another client may send in its turn.
const TURN: usize = 4096;
/// Bytes that wait for a destination without holding up the agent.
const ROOM: usize = 48 << 10;
/// Messages that an agent repeats before it gives up.
const REPEATED_IN_TIME: usize = 8;
/// Time that nothing explains, where messages come in another order.
const LONGEST_WAIT: Duration = Duration::from_secs(6);

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World {
            seed,
            kind,
            agent,
            payload,
            restart,
            sessions,
            has_small_buffer,
            link,
            destinations,
            clients,
            events,
        } = self;
        writeln!(
            f,
            "world {seed}: {kind:?}, agent {agent:?}, payload {payload}, restart {restart}, sessions {sessions}, \
             small buffer {has_small_buffer}"
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
