//! The wait between the end of a client's input and the FIN for it.
//!
//! The FIN may be sent when the destination has been quiet for [`HALF_CLOSE_QUIET`] and everything that it sent before has
//! arrived. Silence proves that only if
//!
//! - the link is up and its channel is read;
//! - the link was heard after the wait: a dead path is as silent as a quiet destination;
//! - what the agent could not send during an interruption has arrived: it is behind the bytes of other streams, and an agent
//!   repeats ten messages a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::smux::StreamId;

/// Streams whose local input has ended, and what is known of the way from their destinations.
#[derive(Debug)]
pub(super) struct HalfClosed {
    /// By the time since when the remote has been quiet.
    order: BTreeSet<(Instant, StreamId)>,
    since: BTreeMap<StreamId, Instant>,
    /// Since when the link is down or not read.
    down_since: Option<Instant>,
    /// It was down in this time.
    was_interrupted: bool,
    /// Messages so far.
    received: u64,
    /// Messages wait for one before them.
    has_gap: bool,
    /// Arrival of the last message on the link.
    heard: Instant,
    backlog: Option<Backlog>,
    /// While the agent is paused: the time until which that holds up the streams.
    pause_end: Option<Instant>,
    /// A stream waits for a sign of life of the link, which is looked for again then.
    check_at: Option<Instant>,
}

/// Bytes that may still come of the time before an interruption ended.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// End of the first interruption.
    begin: Instant,
    /// Last arrival, or end of the last interruption.
    last: Instant,
}

/// A stream whose wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its destination was quiet for the whole wait.
    Quiet(StreamId),
    /// There are too many of them.
    Forced(StreamId),
}

impl HalfClosed {
    /// No streams, on a link that is up.
    pub(super) fn new(now: Instant) -> HalfClosed {
        HalfClosed {
            order: BTreeSet::new(),
            since: BTreeMap::new(),
            down_since: None,
            was_interrupted: false,
            received: 0,
            has_gap: false,
            heard: now,
            backlog: None,
            pause_end: None,
            check_at: None,
        }
    }

    /// A stream's wait begins.
    pub(super) fn insert(&mut self, now: Instant, id: StreamId) {
        self.remove(id);
        self.since.insert(id, now);
        self.order.insert((now, id));
    }

    /// The stream waits no more.
    pub(super) fn remove(&mut self, id: StreamId) {
        if let Some(since) = self.since.remove(&id) {
            self.order.remove(&(since, id));
        }
    }

    /// Since when the remote of a stream has been quiet, if its local input has ended.
    pub(super) fn since(&self, id: StreamId) -> Option<Instant> {
        self.since.get(&id).copied()
    }

    /// Bytes have arrived for any stream.
    pub(super) fn handle_arrival(&mut self, now: Instant) {
        self.forget_backlog(now);
        if let Some(backlog) = &mut self.backlog {
            backlog.last = now;
        }
    }

    /// Bytes have arrived for a stream.
    pub(super) fn handle_data(&mut self, now: Instant, id: StreamId) {
        if self.since.contains_key(&id) {
            self.insert(now, id);
        }
    }

    /// Takes the time since when the link is down, which may be noticed later, whether it is not read, and the time of the
    /// last message on it. In the meantime the silence of the remote means nothing: the request may not have arrived there.
    pub(super) fn set_link(
        &mut self,
        now: Instant,
        down_since: Option<Instant>,
        is_unread: bool,
        heard: Instant,
    ) {
        self.heard = self.heard.max(heard);
        if let Some(since) = down_since.or(is_unread.then_some(now)) {
            if self.down_since.is_none() {
                self.forget_backlog(now);
            }
            self.was_interrupted |= down_since.is_some();
            self.down_since.get_or_insert(since);
        } else if let Some(down) = self.down_since.take() {
            for (since, id) in std::mem::take(&mut self.order) {
                let since = since + now.saturating_duration_since(since.max(down));
                self.since.insert(id, since);
                self.order.insert((since, id));
            }
            let was_interrupted = std::mem::take(&mut self.was_interrupted);
            self.begin_backlog(now, was_interrupted);
        }
    }

    /// Takes the time since when the agent is paused. It has taken all that was sent to it, and may have an answer that it
    /// cannot send.
    pub(super) fn set_pause(&mut self, now: Instant, since: Option<Instant>) {
        let had_ended = self.pause_end.take().is_some() && since.is_none();
        self.pause_end = since.map(|since| since + MAX_PAUSE);
        if had_ended {
            self.begin_backlog(now, true);
        }
    }

    /// Takes the number of messages that have come, repeated ones as well, and whether some wait for one before them. After an
    /// interruption an agent begins with messages that have arrived, and none is delivered while one before it is missing.
    pub(super) fn set_arrivals(&mut self, now: Instant, received: u64, has_gap: bool) {
        if self.received != received {
            self.received = received;
            self.handle_arrival(now);
        }
        if has_gap && self.backlog.is_none() {
            self.begin_backlog(now, false);
        }
        self.has_gap = has_gap;
    }

    /// The time at which nothing is left of a backlog, unless something arrives before.
    fn backlog_end(&self) -> Option<Instant> {
        let Backlog { begin, last } = self.backlog?;
        let end = begin + MAX_BACKLOG;
        Some(if self.has_gap { end } else { end.min(last + BACKLOG_GAP) })
    }

    /// Returns whether the link is to show a sign of life, for a stream whose wait is over otherwise.
    pub(super) fn wants_contact(&self) -> bool {
        let is_due = |at| self.quiet_end().is_some_and(|end| end <= at && self.heard < end);
        self.down_since.is_none() && self.check_at.is_some_and(is_due)
    }

    /// When [`HalfClosed::poll_due`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let end = self.quiet_end()?;
        if self.order.len() > MAX_HALF_CLOSED {
            return self.order.first().map(|(since, _)| *since);
        }
        let check = self.check_at.filter(|_| self.heard < end);
        let all = [Some(end), self.backlog_end(), self.pause_end, check];
        all.into_iter().flatten().max().filter(|_| self.down_since.is_none())
    }

    /// Takes out the next stream whose wait is over.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<Due> {
        let (_, id) = *self.order.first()?;
        let end = self.quiet_end()?;
        if self.order.len() > MAX_HALF_CLOSED {
            self.remove(id);
            return Some(Due::Forced(id));
        }
        let held_until = self.backlog_end().max(self.pause_end).max(Some(end));
        if self.down_since.is_some() || held_until > Some(now) {
            return None;
        }
        if self.heard < end {
            self.check_at = Some(now + CHECK_INTERVAL);
            return None;
        }
        self.remove(id);
        Some(Due::Quiet(id))
    }

    /// Takes out the next stream whose remote has been quiet for [`HURRIED_QUIET`].
    pub(super) fn poll_hurried(&mut self, now: Instant) -> Option<StreamId> {
        let (since, id) = *self.order.first()?;
        // Also while the link is not read, because of a client that may itself be stuck: no answer is promised here.
        (since + HURRIED_QUIET <= now).then(|| {
            self.remove(id);
            id
        })
    }

    /// Forgets a backlog of which nothing has come for a while, and nothing is missing.
    fn forget_backlog(&mut self, now: Instant) {
        self.backlog = self.backlog.filter(|backlog| self.has_gap || now < backlog.last + BACKLOG_GAP);
    }

    /// Bytes may come that were delayed. A reader that stops the reading again and again does not make the wait for them
    /// longer than [`MAX_BACKLOG`], an interruption does.
    fn begin_backlog(&mut self, now: Instant, was_interrupted: bool) {
        let is_old = |backlog: &Backlog| was_interrupted && backlog.begin + MAX_BACKLOG <= now;
        let begin = self.backlog.filter(|backlog| !is_old(backlog)).map_or(now, |backlog| backlog.begin);
        self.backlog = Some(Backlog { begin, last: now });
    }

    fn quiet_end(&self) -> Option<Instant> {
        self.order.first().map(|(since, _)| *since + HALF_CLOSE_QUIET)
    }
}

/// Quiet time of the remote, after the end of the local input, until the FIN is sent. A server may think for
/// that long about a request whose client has half-closed; a client that has closed altogether looks the same
/// to us. It costs a descriptor here and a connection there, and delays no client: the next one has a stream of
/// its own.
pub(super) const HALF_CLOSE_QUIET: Duration = Duration::from_secs(10);
/// The same time where descriptors are exhausted: a request that has just been sent still gets its answer.
pub(super) const HURRIED_QUIET: Duration = Duration::from_secs(1);
/// With more half-closed streams than this, the oldest is reported to the agent at once.
pub(super) const MAX_HALF_CLOSED: usize = 256;
/// Time without an arrival after which nothing is left of a backlog: an agent repeats its oldest message within 1.1 s.
const BACKLOG_GAP: Duration = Duration::from_millis(1500);
/// Longest time that a backlog is reckoned with: with other streams' steady traffic its end cannot be seen.
const MAX_BACKLOG: Duration = Duration::from_secs(300);
/// Longest pause of the agent that is waited for: the end of one that has nothing to take may get lost, and the FIN, which is
/// repeated until it is acknowledged, finds out.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Time between two looks for a sign of life.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
