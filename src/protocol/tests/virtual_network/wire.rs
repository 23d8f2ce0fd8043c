//! Faults of a virtual wire.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// Faults of a wire, the same each way unless stated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub loss_up: f64,
    pub loss_down: f64,
    /// Of acknowledgements, on top, both ways.
    pub loss_acks: f64,
    pub repeat: f64,
    /// One way.
    pub delay: Duration,
    /// Added to the delay of each frame separately: frames overtake each other.
    pub jitter: Duration,
    pub bottleneck: Option<Bottleneck>,
    /// When the socket is gone, and for how long.
    pub outages: Spans,
    /// The agent is paused at each outage and never says that it is back.
    pub pauses: bool,
    /// The socket is gone for 30 ms once so many frames have begun their way, either way, the last of them cut.
    pub cut_at: Option<u64>,
    /// When the agent takes nothing, since the destination does not, and for how long. What comes then waits.
    pub blocked: Spans,
    /// When the socket of that moment goes silent: it looks open, and nothing comes through any more.
    pub silences: VecDeque<Duration>,
    /// When the machine sleeps, and for how long by its wall clock. The socket does not survive it and looks open.
    pub sleeps: Spans,
    /// Times from which on the delay is another one.
    pub reroutes: VecDeque<(Duration, Duration)>,
    /// Round trips until a websocket is open. Until then frames of the old one are still on their way.
    pub opening_round_trips: u32,
    /// When the agent is away (`pause_publication`, and nothing goes either way), and for how long.
    pub away: Spans,
    /// Data messages a second that the service takes from the client. Two seconds above it: `pause_publication`, and
    /// the socket is gone for `POLICE_OUTAGE`.
    pub service_limit: Option<usize>,
}

/// A link that carries so much and has a queue in front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bottleneck {
    /// Bytes a second, frames with their headers.
    pub rate: f64,
    /// Longest time that a packet waits before it is dropped; without it, everything waits.
    pub drops_after: Option<Duration>,
}

impl Wire {
    /// Returns whether the seed decides what happens to a frame.
    pub(crate) fn is_random(&self) -> bool {
        let chances = [self.loss_up, self.loss_down, self.loss_acks, self.repeat];
        chances.into_iter().any(|chance| chance > 0.0) || !self.jitter.is_zero()
    }

    pub(crate) fn losing(share: f64, delay: Duration) -> Wire {
        Wire { loss_up: share, loss_down: share, delay, ..Wire::default() }
    }
}

/// From when and for how long, from the start of the run, in order.
pub(crate) type Spans = VecDeque<(Duration, Duration)>;
/// Bytes that come to one end at their times, from the start of the run.
pub(crate) type Traffic = Vec<(Duration, Bytes)>;
