//! The reliable half of sending: what is unacknowledged, what is lost, when to send it again, when to give up.
//!
//! A message is *outstanding* from its first sending until its acknowledgement, which names it alone. It is taken for
//! lost when three messages first sent after it, or one sent well after it, are acknowledged (and it is older than a
//! round trip), or when its retransmission timeout has passed. All lost messages are sent again, not only the oldest:
//! with 20 % loss that is two seconds instead of three minutes for 2,000 messages.
//!
//! The last messages of a burst have nothing sent after them that could be acknowledged. When acknowledgements have
//! stayed away for two round trips, the oldest message is sent again once, as a tail loss probe, before its timeout.
//!
//! When *nothing* is acknowledged any more (a blocked destination, a dead path), only the oldest message is sent
//! again, at growing intervals; the first acknowledgement after that sets the rest in motion.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::congestion::Sample;
use super::rtt::Rtt;

/// Outcome of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckOutcome {
    /// Payload bytes that are no longer outstanding.
    pub bytes: usize,
    /// Measurement of the path, if it is clear which transmission it answers.
    pub sample: Option<Sample>,
}

/// Numbers, keeps and resends messages.
#[derive(Debug, Default)]
pub(super) struct Sender {
    rtt: Rtt,
    /// The number of `outstanding[0]`, and of the next new message when that is empty.
    base: i64,
    /// By number; `None` where the acknowledgement overtook an older one's.
    outstanding: VecDeque<Option<Entry>>,
    outstanding_bytes: usize,
    outstanding_messages: usize,
    /// Amount acknowledged so far.
    delivered: Delivery,
    /// Transmissions in order, each with its message's number; stale ones are skipped.
    in_flight: VecDeque<(u64, i64)>,
    /// Lost messages by number, to be sent again, and their payload bytes.
    lost: BTreeSet<i64>,
    lost_bytes: usize,
    /// The oldest lost message asks whether the path is alive, whatever the window says.
    is_probing: bool,
    sendings: u64,
    /// The latest first transmission among the acknowledged messages.
    newest_acked: u64,
    /// The latest time of sending among the acknowledged messages that were sent once.
    newest_acked_sent_at: Option<Instant>,
    /// Doublings of the timeout since the last acknowledgement.
    backoff: u32,
    last_ack: Option<Instant>,
    last_timeout: Option<Instant>,
    /// True if the tail was probed since the last acknowledgement.
    is_tail_probed: bool,
    /// The tail is probed soon, again and again: what is unacknowledged was refused for a moment only.
    is_hasty: bool,
    /// When the present silence began: outstanding data, connected, and no acknowledgement.
    unacknowledged_since: Option<Instant>,
    resent: u64,
}

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    payload: usize,
    first_sending: u64,
    last_sending: u64,
    sent_at: Instant,
    /// The sending before, if it was sent again.
    previously_sent_at: Option<Instant>,
    /// Amount acknowledged when it was first sent.
    delivered: Delivery,
}

/// Base of a delivery-rate measurement, as in BBR: the amount acknowledged until then.
#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    /// Payload bytes.
    bytes: u64,
    /// When the last of them were, or since when there is something outstanding.
    at: Option<Instant>,
}

impl Sender {
    /// The number of the next new message.
    pub(super) fn next_sequence(&self) -> i64 {
        self.base + self.outstanding.len() as i64
    }

    /// Messages acknowledged without a gap: all before the oldest outstanding one.
    pub(super) fn acknowledged(&self) -> i64 {
        self.base
    }

    pub(super) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Payload bytes not yet acknowledged.
    pub(super) fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes
    }

    /// Messages not yet acknowledged.
    pub(super) fn outstanding_messages(&self) -> usize {
        self.outstanding_messages
    }

    /// Returns the distance between the oldest outstanding message and the next one.
    pub(super) fn span(&self) -> usize {
        self.outstanding.len()
    }

    /// Bytes of memory that frames hold, and the notes about their transmissions.
    pub(super) fn held_bytes(&self) -> usize {
        let frames = self.outstanding.iter().flatten().map(|entry| entry.frame.len());
        frames.sum::<usize>()
            + self.outstanding.len() * size_of::<Option<Entry>>()
            + self.in_flight.len() * size_of::<(u64, i64)>()
    }

    /// Number of retransmissions.
    pub(super) fn resent(&self) -> u64 {
        self.resent
    }

    /// Takes a new message that is sent now; it must carry [`Sender::next_sequence`].
    pub(super) fn push(&mut self, now: Instant, frame: Bytes, payload: usize) {
        let (sending, number) = (self.sendings, self.next_sequence());
        self.sendings += 1;
        self.in_flight.push_back((sending, number));
        if self.outstanding_messages == 0 {
            self.delivered.at = Some(now);
        }
        self.outstanding.push_back(Some(Entry {
            frame,
            payload,
            first_sending: sending,
            last_sending: sending,
            sent_at: now,
            previously_sent_at: None,
            delivered: self.delivered,
        }));
        self.outstanding_bytes += payload;
        self.outstanding_messages += 1;
        self.unacknowledged_since.get_or_insert(now);
    }

    /// Says whether a message is refused for a moment only, as an agent does whose session begins.
    pub(super) fn set_hasty(&mut self, is_hasty: bool) {
        self.is_hasty = is_hasty;
    }

    /// Takes an acknowledgement. `None` when it names nothing outstanding.
    pub(super) fn handle_ack(&mut self, now: Instant, number: i64) -> Option<AckOutcome> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let entry = self.outstanding.get_mut(index)?.take()?;
        self.outstanding_bytes -= entry.payload;
        self.outstanding_messages -= 1;
        if self.lost.remove(&number) {
            self.lost_bytes -= entry.payload;
        }
        self.delivered = Delivery { bytes: self.delivered.bytes + entry.payload as u64, at: Some(now) };
        let sample = self.round_trip(now, &entry).map(|rtt| {
            self.rtt.sample(rtt);
            Sample { rtt, delivery_rate: self.delivery_rate(&entry) }
        });
        self.newest_acked = self.newest_acked.max(entry.first_sending);
        if entry.previously_sent_at.is_none() {
            self.newest_acked_sent_at = self.newest_acked_sent_at.max(Some(entry.sent_at));
        }
        self.backoff = 0;
        self.last_timeout = None;
        self.is_tail_probed = false;
        self.last_ack = Some(now);
        self.unacknowledged_since = (self.outstanding_messages > 0).then_some(now);
        while let Some(None) = self.outstanding.front() {
            self.outstanding.pop_front();
            self.base += 1;
        }
        Some(AckOutcome { bytes: entry.payload, sample })
    }

    /// Finds lost messages and returns the time at which the latest of them was sent, if there are any.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        let mut latest_loss = None;
        if self.timeout_at().is_some_and(|at| at <= now) {
            let timeout = self.rtt.timeout();
            let is_flowing = self.last_ack.is_some_and(|at| now.saturating_duration_since(at) < timeout * 2);
            if !is_flowing {
                self.mark_lost(self.base);
                self.is_probing = true;
            }
            while let Some((number, sent_at)) = self.oldest_in_flight()
                && is_flowing
                && sent_at + timeout <= now
            {
                self.in_flight.pop_front();
                self.mark_lost(number);
                latest_loss = Some(sent_at);
            }
            self.backoff += 1;
            self.last_timeout = Some(now);
        }
        if self.tail_probe_at().is_some_and(|at| at <= now) {
            self.is_tail_probed = true;
            if let Some((number, _)) = self.oldest_in_flight() {
                self.in_flight.pop_front();
                self.mark_lost(number);
                self.is_probing = true;
            }
        }
        let reordering = self.reordering_allowance();
        while let Some((number, sent_at)) = self.overtaken() {
            if sent_at + reordering > now {
                break;
            }
            self.in_flight.pop_front();
            self.mark_lost(number);
            latest_loss = Some(sent_at);
        }
        latest_loss
    }

    /// When [`Sender::handle_timeout`] is next due, and why.
    pub(super) fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        let overtaken = self.overtaken().map(|(_, sent_at)| sent_at + self.reordering_allowance());
        let overtaken = overtaken.map(|at| (at, "loss detection"));
        let probe = self.tail_probe_at().map(|at| (at, "tail loss probe"));
        let expiry = self.timeout_at().map(|at| (at, "retransmission timeout"));
        [overtaken, probe, expiry].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Payload bytes on their way: not acknowledged, and not taken for lost.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.outstanding_bytes - self.lost_bytes
    }

    /// The payload bytes of the lost message that is sent again next; 0 for a probe, which the window does not hold back.
    pub(super) fn next_lost(&self) -> Option<usize> {
        let entry = self.entry(*self.lost.first()?)?;
        Some(if self.is_probing { 0 } else { entry.payload })
    }

    /// The oldest lost message, to be sent again now.
    pub(super) fn poll_lost(&mut self, now: Instant) -> Option<Bytes> {
        let number = self.lost.pop_first()?;
        let sending = self.sendings;
        let index = usize::try_from(number - self.base).ok()?;
        let entry = self.outstanding.get_mut(index)?.as_mut()?;
        self.sendings += 1;
        self.resent += 1;
        self.lost_bytes -= entry.payload;
        self.is_probing = false;
        entry.last_sending = sending;
        entry.previously_sent_at = Some(std::mem::replace(&mut entry.sent_at, now));
        self.in_flight.push_back((sending, number));
        Some(entry.frame.clone())
    }

    /// A new connection: whatever is outstanding may have been lost with the old one.
    pub(super) fn handle_reopen(&mut self, now: Instant) {
        self.in_flight.clear();
        self.lost_bytes = self.outstanding_bytes;
        let numbers = self.base..;
        self.lost = numbers.zip(&self.outstanding).filter(|(_, e)| e.is_some()).map(|(n, _)| n).collect();
        self.backoff = 0;
        self.last_timeout = None;
        self.is_tail_probed = false;
        self.unacknowledged_since = (self.outstanding_messages > 0).then_some(now);
    }

    /// Returns the time that outstanding data has gone without any acknowledgement.
    pub(super) fn unacknowledged_for(&self, now: Instant) -> Duration {
        self.unacknowledged_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When the present silence began; `None` while nothing is outstanding.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        self.unacknowledged_since
    }

    fn mark_lost(&mut self, number: i64) {
        let payload = self.entry(number).map_or(0, |entry| entry.payload);
        if self.lost.insert(number) {
            self.lost_bytes += payload;
        }
    }

    fn timeout_at(&mut self) -> Option<Instant> {
        let (_, sent_at) = self.oldest_in_flight()?;
        let timeout = self.rtt.timeout();
        let backed_off = (timeout * 2u32.pow(self.backoff.min(MAX_DOUBLINGS))).min(timeout.max(MAX_BACKOFF));
        let expiry = sent_at + timeout;
        Some(self.last_timeout.map_or(expiry, |last| expiry.max(last + backed_off)))
    }

    /// When the tail is probed: when nothing has come for two round trips; once, unless it is done hastily.
    fn tail_probe_at(&mut self) -> Option<Instant> {
        if (self.is_tail_probed && !self.is_hasty) || !self.lost.is_empty() {
            return None;
        }
        let (_, sent_at) = self.oldest_in_flight()?;
        let quiet_since = self.last_ack?.max(sent_at);
        let wait = self.rtt.smoothed() + self.rtt.smoothed().max(self.rtt.variation() * 4);
        Some(quiet_since + wait.max(if self.is_hasty { MIN_HASTY_PROBE } else { MIN_TAIL_PROBE }))
    }

    /// The oldest sending whose message is still outstanding and was not sent again since.
    fn oldest_in_flight(&mut self) -> Option<(i64, Instant)> {
        while let Some(&(sending, number)) = self.in_flight.front() {
            match self.entry(number) {
                Some(entry) if entry.last_sending == sending => return Some((number, entry.sent_at)),
                _ => self.in_flight.pop_front(),
            };
        }
        None
    }

    /// The oldest message in flight if it was sent long enough before one that has arrived: so many messages, or as
    /// long as messages overtake each other by.
    fn overtaken(&mut self) -> Option<(i64, Instant)> {
        let (number, sent_at) = self.oldest_in_flight()?;
        let (sending, _) = self.in_flight.front()?;
        let is_by_number = sending + REORDERING_THRESHOLD <= self.newest_acked;
        let window = self.reordering_allowance().saturating_sub(self.rtt.smoothed());
        let is_by_time = self.newest_acked_sent_at.is_some_and(|newest| sent_at + window < newest);
        (is_by_number || is_by_time).then_some((number, sent_at))
    }

    /// Returns the round-trip time that an acknowledgement shows. Of a message that was sent again it is not
    /// known which sending it answers (Karn's rule), with two exceptions, without which a path that is, or has
    /// become, slower than the timeout would have everything sent twice forever. An acknowledgement that comes
    /// much sooner after the last transmission than any has come so far answers the one before. And before the
    /// first sample, a time that may be too long is better than none.
    fn round_trip(&self, now: Instant, entry: &Entry) -> Option<Duration> {
        let since_last = now.saturating_duration_since(entry.sent_at);
        let Some(previous) = entry.previously_sent_at else { return Some(since_last) };
        let is_unknown = self.rtt.latest().is_zero();
        let is_early = since_last < self.rtt.floor() / 2;
        (is_unknown || is_early).then(|| now.saturating_duration_since(previous))
    }

    /// Payload bytes a second that were acknowledged since `entry` was first sent.
    fn delivery_rate(&self, entry: &Entry) -> u64 {
        let (Some(from), Some(to)) = (entry.delivered.at, self.delivered.at) else { return 0 };
        let bytes = u128::from(self.delivered.bytes - entry.delivered.bytes);
        let micros = to.saturating_duration_since(from).as_micros().max(1);
        u64::try_from(bytes * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// Returns the age at which an overtaken message counts as lost. Where round trips vary, messages overtake
    /// each other without a loss.
    fn reordering_allowance(&self) -> Duration {
        let steady = self.rtt.smoothed().max(self.rtt.latest()) * 9 / 8;
        steady.max(self.rtt.smoothed() + self.rtt.variation() * 4)
    }

    fn entry(&self, number: i64) -> Option<&Entry> {
        self.outstanding.get(usize::try_from(number - self.base).ok()?)?.as_ref()
    }

    pub(super) fn assert_invariants(&self) {
        debug_assert_eq!(self.outstanding.iter().flatten().count(), self.outstanding_messages);
        debug_assert_eq!(
            self.outstanding.iter().flatten().map(|e| e.payload).sum::<usize>(),
            self.outstanding_bytes
        );
        debug_assert!(self.lost.iter().all(|number| self.entry(*number).is_some()));
        debug_assert_eq!(
            self.lost.iter().filter_map(|number| self.entry(*number)).map(|e| e.payload).sum::<usize>(),
            self.lost_bytes
        );
        debug_assert!(!matches!(self.outstanding.front(), Some(None)));
        debug_assert_eq!(self.unacknowledged_since.is_some(), self.outstanding_messages > 0);
    }
}

/// Number of later transmissions that must have arrived before an earlier one counts as lost (QUIC's packet
/// threshold).
const REORDERING_THRESHOLD: u64 = 3;
/// A tail is not probed sooner: an agent acknowledges only after the destination took the data.
const MIN_TAIL_PROBE: Duration = Duration::from_millis(50);
/// An agent whose session begins refuses input for 0.4 ms (median; agent 3.3.1142).
const MIN_HASTY_PROBE: Duration = Duration::from_millis(2);
/// Bounds the growth of the interval between probes of a silent path.
const MAX_DOUBLINGS: u32 = 6;
const MAX_BACKOFF: Duration = Duration::from_secs(2);

// It sees private fields.
#[cfg(test)]
#[path = "tests/send.rs"]
mod tests;
