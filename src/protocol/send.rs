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

/// What an acknowledgement was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acked {
    /// Payload bytes that are no longer outstanding.
    pub bytes: usize,
    /// What it says about the path, if it is clear which sending it answers.
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
    /// What was acknowledged so far.
    delivered: Delivered,
    /// Sendings in their order, each with the message's number; stale ones are skipped.
    in_flight: VecDeque<(u64, i64)>,
    /// Lost messages by number, to be sent again, and their payload bytes.
    lost: BTreeSet<i64>,
    lost_bytes: usize,
    /// The oldest lost message asks whether the path is alive, whatever the window says.
    is_probing: bool,
    sendings: u64,
    /// The latest sending known to have arrived, among messages sent once.
    newest_acked: u64,
    /// When it was sent.
    newest_acked_sent_at: Option<Instant>,
    /// Doublings of the timeout since the last acknowledgement.
    backoff: u32,
    last_ack: Option<Instant>,
    last_timeout: Option<Instant>,
    /// Whether the tail was probed since the last acknowledgement.
    is_tail_probed: bool,
    /// Since when outstanding data has seen no acknowledgement while connected.
    silent_since: Option<Instant>,
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
    /// Before it was first sent.
    delivered: Delivered,
}

/// What a delivery rate is measured from, as in BBR: an amount that was acknowledged until then.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    /// Payload bytes.
    bytes: u64,
    /// When the last of them were, or since when there is something outstanding.
    at: Option<Instant>,
}

impl Sender {
    /// The number of the next new message.
    pub fn next_sequence(&self) -> i64 {
        self.base + self.outstanding.len() as i64
    }

    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Payload bytes not yet acknowledged.
    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes
    }

    /// Messages not yet acknowledged.
    pub fn outstanding_messages(&self) -> usize {
        self.outstanding_messages
    }

    /// How many numbers lie between the oldest outstanding message and the next one.
    pub fn span(&self) -> usize {
        self.outstanding.len()
    }

    /// How often a message was sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Takes a new message that is sent now; it must carry [`Sender::next_sequence`].
    pub fn push(&mut self, now: Instant, frame: Bytes, payload: usize) {
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
        self.silent_since.get_or_insert(now);
    }

    /// Takes an acknowledgement. `None` when it names nothing outstanding.
    pub fn handle_ack(&mut self, now: Instant, number: i64) -> Option<Acked> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let entry = self.outstanding.get_mut(index)?.take()?;
        self.outstanding_bytes -= entry.payload;
        self.outstanding_messages -= 1;
        if self.lost.remove(&number) {
            self.lost_bytes -= entry.payload;
        }
        self.delivered = Delivered { bytes: self.delivered.bytes + entry.payload as u64, at: Some(now) };
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
        self.silent_since = (self.outstanding_messages > 0).then_some(now);
        while let Some(None) = self.outstanding.front() {
            self.outstanding.pop_front();
            self.base += 1;
        }
        Some(Acked { bytes: entry.payload, sample })
    }

    /// Finds lost messages and gives the time at which the latest of them was sent, if there are any.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
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
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        let overtaken = self.overtaken().map(|(_, sent_at)| sent_at + self.reordering_allowance());
        let overtaken = overtaken.map(|at| (at, "loss detection"));
        let probe = self.tail_probe_at().map(|at| (at, "tail loss probe"));
        let expiry = self.timeout_at().map(|at| (at, "retransmission timeout"));
        [overtaken, probe, expiry].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Payload bytes on their way: not acknowledged, and not taken for lost.
    pub fn in_flight_bytes(&self) -> usize {
        self.outstanding_bytes - self.lost_bytes
    }

    /// The payload bytes of the lost message that is sent again next; none of them count for one that is sent to see
    /// whether the path is alive.
    pub fn next_lost(&self) -> Option<usize> {
        let entry = self.entry(*self.lost.first()?)?;
        Some(if self.is_probing { 0 } else { entry.payload })
    }

    /// The oldest lost message, to be sent again now.
    pub fn poll_lost(&mut self, now: Instant) -> Option<Bytes> {
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
    pub fn handle_reopen(&mut self, now: Instant) {
        self.in_flight.clear();
        self.lost_bytes = self.outstanding_bytes;
        let numbers = self.base..;
        self.lost = numbers.zip(&self.outstanding).filter(|(_, e)| e.is_some()).map(|(n, _)| n).collect();
        self.backoff = 0;
        self.last_timeout = None;
        self.is_tail_probed = false;
        self.silent_since = (self.outstanding_messages > 0).then_some(now);
    }

    /// How long outstanding data has seen no acknowledgement at all.
    pub fn silence(&self, now: Instant) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When the silence began, if there is any.
    pub fn silent_since(&self) -> Option<Instant> {
        self.silent_since
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

    /// When the tail is probed: once, when nothing has come for two round trips.
    fn tail_probe_at(&mut self) -> Option<Instant> {
        if self.is_tail_probed || !self.lost.is_empty() {
            return None;
        }
        let (_, sent_at) = self.oldest_in_flight()?;
        let quiet_since = self.last_ack?.max(sent_at);
        let wait = self.rtt.smoothed() + self.rtt.smoothed().max(self.rtt.variation() * 4);
        Some(quiet_since + wait.max(MIN_TAIL_PROBE))
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

    /// What an acknowledgement says about the round-trip time. Of a message that was sent again it is not known which
    /// sending it answers (Karn's rule), with two exceptions, without which a path that is, or has become, slower than
    /// the timeout would have everything sent twice for ever: much sooner after the last sending than any answer ever
    /// came, it answers an earlier one; and before the first sample, too much is better than nothing.
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

    /// How old an overtaken message must be to count as lost. Where round trips vary, messages overtake each other
    /// without a loss.
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
        debug_assert_eq!(self.silent_since.is_some(), self.outstanding_messages > 0);
    }
}

/// How many later sendings must have arrived before an earlier one counts as lost (QUIC's packet threshold).
const REORDERING_THRESHOLD: u64 = 3;
/// A tail is not probed sooner: an agent acknowledges only after the destination took the data.
const MIN_TAIL_PROBE: Duration = Duration::from_millis(50);
/// Bounds the growth of the interval between probes of a silent path.
const MAX_DOUBLINGS: u32 = 6;
const MAX_BACKOFF: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sender_with(count: usize, now: Instant) -> Sender {
        let mut sender = Sender::default();
        for number in 0..count {
            sender.push(now, Bytes::from(vec![number as u8]), 10);
        }
        sender
    }

    fn drain(sender: &mut Sender, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| sender.poll_lost(now)).map(|frame| frame[0]).collect()
    }

    #[test]
    fn acknowledgements_are_selective_and_count_once() {
        let now = Instant::now();
        let mut sender = sender_with(3, now);
        assert_eq!(sender.handle_ack(now, 1).map(|acked| acked.bytes), Some(10));
        assert_eq!(sender.handle_ack(now, 1), None);
        for unknown in [-1, 3, i64::MIN, i64::MAX] {
            assert_eq!(sender.handle_ack(now, unknown), None);
        }
        assert_eq!((sender.outstanding_bytes(), sender.span()), (20, 3));
        sender.handle_ack(now, 0);
        assert_eq!((sender.outstanding_bytes(), sender.span()), (10, 1));
        assert_eq!(sender.next_sequence(), 3);
        sender.assert_invariants();
    }

    #[test]
    fn every_expired_message_is_sent_again_while_acknowledgements_flow() {
        let start = Instant::now();
        let mut sender = sender_with(5, start);
        sender.handle_ack(start + 20 * MS, 1);
        let mut again = Vec::new();
        while again.len() < 4 {
            let (at, why) = sender.poll_timeout().unwrap();
            sender.handle_timeout(at);
            again.extend(drain(&mut sender, at).into_iter().map(|number| (number, why)));
        }
        let why = "retransmission timeout";
        assert_eq!(again, [(0, "tail loss probe"), (2, why), (3, why), (4, why)]);
        sender.assert_invariants();
    }

    #[test]
    fn a_silent_path_is_probed_with_the_oldest_at_growing_intervals() {
        let start = Instant::now();
        let mut sender = sender_with(5, start);
        let mut gaps = Vec::new();
        let mut last = start;
        for _ in 0..8 {
            let (at, why) = sender.poll_timeout().unwrap();
            assert_eq!(why, "retransmission timeout");
            sender.handle_timeout(at);
            assert_eq!(drain(&mut sender, at).len(), 1);
            gaps.push((at - last).as_millis());
            last = at;
        }
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert_eq!(*gaps.last().unwrap(), MAX_BACKOFF.as_millis());
        // The first acknowledgement sets the rest in motion.
        sender.handle_ack(last + MS, 0);
        let (at, _) = sender.poll_timeout().unwrap();
        sender.handle_timeout(at);
        assert_eq!(drain(&mut sender, at).len(), 4);
    }

    #[test]
    fn three_later_arrivals_make_a_message_lost_before_its_timeout() {
        let start = Instant::now();
        let mut sender = Sender::default();
        for number in 0..5u8 {
            sender.push(start + MS * u32::from(number), Bytes::from(vec![number]), 1);
        }
        for number in 1..=3 {
            sender.handle_ack(start + 20 * MS, number);
        }
        let (at, why) = sender.poll_timeout().unwrap();
        assert_eq!(why, "loss detection");
        assert!(at < start + 60 * MS);
        sender.handle_timeout(at);
        assert_eq!(drain(&mut sender, at), [0]);
    }

    #[test]
    fn a_lost_tail_is_probed_once_before_its_timeout() {
        let (mut sender, resent_at) = resent_after(Instant::now(), 20 * MS);
        assert_eq!(sender.resent(), 1);
        assert!(sender.is_tail_probed);
        let (at, why) = sender.poll_timeout().unwrap();
        assert_eq!((at - resent_at, why), (200 * MS, "retransmission timeout"));
        // On a path that is quicker than that, no sooner than an agent may take over an acknowledgement.
        let start = Instant::now();
        let mut sender = sender_with(1, start);
        sender.handle_ack(start + MS, 0);
        sender.push(start + MS, Bytes::new(), 10);
        assert_eq!(sender.poll_timeout(), Some((start + MS + MIN_TAIL_PROBE, "tail loss probe")));
    }

    #[test]
    fn what_is_lost_is_not_in_flight() {
        let start = Instant::now();
        let mut sender = sender_with(4, start);
        assert_eq!(sender.in_flight_bytes(), 40);
        sender.handle_reopen(start);
        assert_eq!((sender.in_flight_bytes(), sender.outstanding_bytes()), (0, 40));
        sender.handle_ack(start, 3);
        assert!(sender.poll_lost(start).is_some());
        assert_eq!((sender.in_flight_bytes(), sender.outstanding_bytes()), (10, 30));
        sender.assert_invariants();
    }

    #[test]
    fn acknowledgements_give_the_delivery_rate() {
        let start = Instant::now();
        let mut sender = sender_with(4, start);
        for number in 0..4 {
            let acked = sender.handle_ack(start + 20 * MS, number).unwrap();
            let delivery_rate = 500 * (number as u64 + 1);
            assert_eq!(acked.sample, Some(Sample { rtt: 20 * MS, delivery_rate }));
        }
        // A rest does not count.
        let later = start + 5000 * MS;
        sender.push(later, Bytes::new(), 10);
        let acked = sender.handle_ack(later + 20 * MS, 4).unwrap();
        assert_eq!(acked.sample, Some(Sample { rtt: 20 * MS, delivery_rate: 500 }));
    }

    /// A sender that has measured `rtt` and has resent one message at the time returned.
    fn resent_after(start: Instant, rtt: Duration) -> (Sender, Instant) {
        let mut sender = sender_with(1, start);
        sender.handle_ack(start + rtt, 0);
        sender.push(start + rtt, Bytes::new(), 10);
        let (at, _) = sender.poll_timeout().unwrap();
        sender.handle_timeout(at);
        assert!(sender.poll_lost(at).is_some());
        (sender, at)
    }

    #[test]
    fn an_ambiguous_acknowledgement_does_not_feed_the_round_trip_time() {
        let (mut sender, resent_at) = resent_after(Instant::now(), 20 * MS);
        sender.handle_ack(resent_at + 21 * MS, 1);
        assert_eq!(sender.rtt().latest(), 20 * MS);
    }

    #[test]
    fn an_acknowledgement_too_early_for_the_resend_answers_the_first_sending() {
        let start = Instant::now();
        let (mut sender, resent_at) = resent_after(start, 20 * MS);
        sender.handle_ack(resent_at + 5 * MS, 1);
        assert_eq!(sender.rtt().latest(), resent_at + 5 * MS - (start + 20 * MS));
        assert!(sender.rtt().smoothed() > 25 * MS);
    }

    #[test]
    fn the_first_sample_may_be_of_a_resent_message() {
        let start = Instant::now();
        let mut sender = sender_with(1, start);
        let (at, _) = sender.poll_timeout().unwrap();
        sender.handle_timeout(at);
        drain(&mut sender, at);
        sender.handle_ack(start + 600 * MS, 0);
        assert_eq!(sender.rtt().latest(), 600 * MS);
    }

    #[test]
    fn messages_that_overtake_each_other_are_not_lost() {
        let start = Instant::now();
        let mut sender = Sender::default();
        let mut acks = std::collections::BTreeSet::new();
        for number in 0..500u32 {
            let now = start + MS * number;
            while let Some((at, _)) = acks.first()
                && *at <= now
            {
                let (at, number) = acks.pop_first().unwrap();
                sender.handle_ack(at, number);
            }
            sender.handle_timeout(now);
            sender.push(now, Bytes::new(), 1);
            acks.insert((now + MS * (2 + number * 7 % 20), i64::from(number)));
        }
        assert!(sender.resent() + sender.lost.len() as u64 <= 5, "{} lost", sender.lost.len());
    }

    #[test]
    fn after_a_reconnect_everything_outstanding_goes_again_in_order() {
        let start = Instant::now();
        let mut sender = sender_with(4, start);
        sender.handle_ack(start, 2);
        sender.handle_reopen(start + 500 * MS);
        assert_eq!(drain(&mut sender, start + 500 * MS), [0, 1, 3]);
        assert_eq!(sender.silence(start + 600 * MS), 100 * MS);
        sender.assert_invariants();
    }
}
