//! Keepalive frames and the timeout for a silent peer.

use std::time::{Duration, Instant};

/// Signs of life. The defaults are those of xtaci/smux, which the agent and the official plugin use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// A NOP is sent this often, whatever else is sent.
    pub interval: Duration,
    /// The session fails when nothing has arrived for this long.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}

/// The two deadlines of keepalive.
#[derive(Debug)]
pub(super) struct Timers {
    config: KeepAlive,
    next_nop: Instant,
    heard: Instant,
    reading: bool,
}

/// Due action.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Nop,
    Silence(Duration),
}

impl Timers {
    pub(super) fn new(config: KeepAlive, now: Instant) -> Self {
        Self { config, next_nop: now + config.interval, heard: now, reading: true }
    }

    /// The peer was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Silence counts only while we listen.
    pub(super) fn set_reading(&mut self, now: Instant, reading: bool) {
        if self.reading != reading {
            self.reading = reading;
            self.heard = now;
        }
    }

    pub(super) fn next(&self) -> (Instant, &'static str) {
        let nop = (self.next_nop, "smux keepalive");
        let silence = self.silence().map(|at| (at, "smux silence"));
        silence.filter(|silence| silence.0 <= nop.0).unwrap_or(nop)
    }

    pub(super) fn handle(&mut self, now: Instant) -> Due {
        if self.silence().is_some_and(|at| at <= now) {
            return Due::Silence(self.config.timeout);
        }
        if self.next_nop <= now {
            self.next_nop = now + self.config.interval;
            return Due::Nop;
        }
        Due::Nothing
    }

    fn silence(&self) -> Option<Instant> {
        self.reading.then(|| self.heard + self.config.timeout)
    }
}
