//! The agent's outgoing half of the data channel: numbers, what is unacknowledged, and the resend rule.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::codec::{self, MessageType};
use super::counters::Counters;
use super::crypto::Cipher;
use super::payload_type;

/// The gateway does not take frames any more: the session is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// Sends data messages and acknowledgements; shared by everything in a session.
pub(super) struct Sender {
    outbound: mpsc::Sender<Bytes>,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// Something was acknowledged, or publication was paused or started.
    changed: Notify,
    cipher: OnceLock<Cipher>,
}

struct State {
    /// The number of the next data message.
    next: i64,
    /// The number of the first slot.
    first: i64,
    /// Messages from `first` on; `None` once acknowledged. The first slot is never `None`.
    unacknowledged: VecDeque<Option<Unacknowledged>>,
    count: usize,
    bytes: usize,
    rtt: Rtt,
    /// True if the client is there; the opposite of the agent's `Pause`.
    active: bool,
}

struct Unacknowledged {
    frame: Bytes,
    last_sent: Instant,
}

impl Sender {
    pub(super) fn new(outbound: mpsc::Sender<Bytes>, counters: Arc<Counters>) -> Sender {
        let state = State {
            next: 0,
            first: 0,
            unacknowledged: VecDeque::new(),
            count: 0,
            bytes: 0,
            rtt: Rtt::new(),
            active: true,
        };
        Sender {
            outbound,
            counters,
            state: Mutex::new(state),
            changed: Notify::new(),
            cipher: OnceLock::new(),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// From now on output is encrypted.
    pub(super) fn set_cipher(&self, cipher: Cipher) {
        // A session has one handshake, hence one key.
        let _ = self.cipher.set(cipher);
    }

    pub(super) fn cipher(&self) -> Option<&Cipher> {
        self.cipher.get()
    }

    /// Numbers and sends a data message. An empty payload is not sent (agent source).
    ///
    /// Waits while the gateway takes nothing and while too much is unacknowledged, where the real agent would go
    /// on and forget messages. Paused, the message only joins the unacknowledged ones.
    pub(super) async fn send(&self, payload_type: u32, payload: &[u8]) -> Result<(), Gone> {
        if payload.is_empty() {
            return Ok(());
        }
        let encrypted = match self.cipher.get() {
            Some(cipher) if payload_type::encrypted_by_agent(payload_type) => Some(cipher.seal(payload)),
            _ => None,
        };
        let payload = encrypted.as_deref().unwrap_or(payload);
        // The digest takes the time, so it is made before the lock is held.
        let mut frame = codec::header_and_payload(
            MessageType::OutputStreamData,
            codec::now_millis(),
            codec::new_id(),
            payload_type,
            payload,
        );
        let permit = if self.has_room(frame.len()).await {
            Some(self.outbound.reserve().await.map_err(|_| Gone)?)
        } else {
            None
        };

        let mut state = self.lock();
        let sequence_number = state.next;
        codec::number(&mut frame, sequence_number, if sequence_number == 0 { codec::SYN } else { 0 });
        let frame = frame.freeze();
        state.next += 1;
        state.count += 1;
        state.bytes += frame.len();
        let unacknowledged = Unacknowledged { frame: frame.clone(), last_sent: Instant::now() };
        state.unacknowledged.push_back(Some(unacknowledged));
        Counters::add(&self.counters.messages_down, 1);
        Counters::add(&self.counters.bytes_down, payload.len() as u64);
        if let Some(permit) = permit {
            permit.send(frame);
        }
        Ok(())
    }

    /// Waits until `bytes` more may be unacknowledged; tells whether to send now.
    async fn has_room(&self, bytes: usize) -> bool {
        self.until(|state| {
            let room = state.count < OUTGOING_MESSAGES && state.bytes + bytes <= OUTGOING_BYTES;
            room.then_some(state.active)
        })
        .await
    }

    /// Acknowledges a data message of the client.
    pub(super) async fn acknowledge(&self, id: uuid::Uuid, sequence_number: i64) -> Result<(), Gone> {
        let frame =
            codec::acknowledge(codec::now_millis(), MessageType::InputStreamData, id, sequence_number);
        self.outbound.send(frame).await.map_err(|_| Gone)?;
        Counters::add(&self.counters.acks_sent, 1);
        Ok(())
    }

    /// The client has acknowledged a message.
    pub(super) fn acknowledged(&self, sequence_number: i64) {
        let mut state = self.lock();
        let slot = usize::try_from(sequence_number - state.first).ok();
        let Some(message) = slot.and_then(|slot| state.unacknowledged.get_mut(slot)).and_then(Option::take)
        else {
            return;
        };
        state.count -= 1;
        state.bytes -= message.frame.len();
        state.rtt.measured(message.last_sent.elapsed());
        while let Some(None) = state.unacknowledged.front() {
            state.unacknowledged.pop_front();
            state.first += 1;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// `start_publication` (true) or `pause_publication` (false).
    pub(super) fn set_active(&self, active: bool) {
        let mut state = self.lock();
        if state.active != active {
            state.active = active;
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Waits until publication is not paused.
    pub(super) async fn active(&self) {
        self.until(|state| state.active.then_some(())).await;
    }

    /// Waits until everything is acknowledged.
    pub(super) async fn all_acknowledged(&self) {
        self.until(|state| (state.count == 0).then_some(())).await;
    }

    /// The agent's resend scheduler: every 100 ms it looks at the oldest unacknowledged message, and at no other.
    pub(super) async fn resend(self: Arc<Sender>) {
        loop {
            tokio::time::sleep(RESEND_INTERVAL).await;
            let Some(frame) = self.due() else { continue };
            if self.outbound.send(frame).await.is_err() {
                return;
            }
            Counters::add(&self.counters.resends_sent, 1);
        }
    }

    fn due(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let timeout = state.rtt.retransmission_timeout;
        if !state.active {
            return None;
        }
        let oldest = state.unacknowledged.front_mut()?.as_mut()?;
        if oldest.last_sent.elapsed() <= timeout {
            return None;
        }
        oldest.last_sent = Instant::now();
        Some(oldest.frame.clone())
    }

    async fn until<T>(&self, condition: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(value) = condition(&self.lock()) {
                return value;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Round-trip time and what follows from it (agent source, `calculateRetransmissionTimeout`). Resent messages are
/// measured from their last sending.
struct Rtt {
    smoothed: f64,
    variation: f64,
    retransmission_timeout: Duration,
}

impl Rtt {
    fn new() -> Rtt {
        Rtt {
            smoothed: DEFAULT_ROUND_TRIP_TIME.as_secs_f64(),
            variation: 0.0,
            retransmission_timeout: DEFAULT_RETRANSMISSION_TIMEOUT,
        }
    }

    fn measured(&mut self, round_trip: Duration) {
        let round_trip = round_trip.as_secs_f64();
        self.variation += RTTV_GAIN * ((self.smoothed - round_trip).abs() - self.variation);
        self.smoothed += RTT_GAIN * (round_trip - self.smoothed);
        let timeout = self.smoothed + CLOCK_GRANULARITY.as_secs_f64().max(4.0 * self.variation);
        self.retransmission_timeout = Duration::from_secs_f64(timeout).min(MAX_RETRANSMISSION_TIMEOUT);
    }
}

/// Agent source: `OutgoingMessageBufferCapacity`, made so that at most 100 MB are held.
const OUTGOING_MESSAGES: usize = 100_000;
const OUTGOING_BYTES: usize = 100_000 * 1024;
/// Agent source: `ResendSleepInterval`.
const RESEND_INTERVAL: Duration = Duration::from_millis(100);
/// Agent source: `DefaultRoundTripTime`.
const DEFAULT_ROUND_TRIP_TIME: Duration = Duration::from_millis(100);
/// Agent source: `DefaultTransmissionTimeout`.
const DEFAULT_RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);
/// Agent source: `MaxTransmissionTimeout`.
const MAX_RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(1);
/// Agent source: `ClockGranularity`.
const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);
/// Agent source: `RTTConstant`.
const RTT_GAIN: f64 = 1.0 / 8.0;
/// Agent source: `RTTVConstant`.
const RTTV_GAIN: f64 = 1.0 / 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_follows_the_round_trip_time_up_to_a_second() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.retransmission_timeout, Duration::from_millis(200));
        rtt.measured(Duration::from_millis(100));
        // No variation: the clock's granularity is added.
        assert_eq!(rtt.retransmission_timeout.as_millis(), 110);
        rtt.measured(Duration::from_millis(500));
        // 100 + 400 / 8, and four times 400 / 4.
        assert_eq!(rtt.retransmission_timeout.as_millis(), 550);
        for _ in 0..10 {
            rtt.measured(Duration::from_secs(3));
        }
        assert_eq!(rtt.retransmission_timeout, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_oldest_message_is_resent() {
        let (outbound, mut frames) = mpsc::channel(100);
        let sender = Arc::new(Sender::new(outbound, Arc::default()));
        let started = Instant::now();
        let resend = tokio::spawn(Arc::clone(&sender).resend());
        for payload in [b"a", b"b", b"c"] {
            sender.send(1, payload).await.unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..6 {
            let frame = codec::Message::decode(&frames.recv().await.unwrap()).unwrap();
            seen.push((frame.sequence_number, frame.flags, started.elapsed().as_millis()));
        }
        // Looked at every 100 ms, due when more than 200 ms have passed.
        assert_eq!(seen, [(0, 1, 0), (1, 0, 0), (2, 0, 0), (0, 1, 300), (0, 1, 600), (0, 1, 900)]);

        // An early acknowledgement is selective: the oldest stays the oldest, and its RTT counts.
        sender.acknowledged(1);
        let frame = codec::Message::decode(&frames.recv().await.unwrap()).unwrap();
        assert_eq!(frame.sequence_number, 0);
        sender.acknowledged(0);
        let frame = codec::Message::decode(&frames.recv().await.unwrap()).unwrap();
        assert_eq!(frame.sequence_number, 2);
        sender.acknowledged(2);
        sender.acknowledged(2);
        sender.acknowledged(77);
        sender.acknowledged(-1);
        sender.all_acknowledged().await;
        assert_eq!(sender.counters().snapshot().resends_sent, 5);
        resend.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn paused_messages_wait_for_the_resend_after_the_pause() {
        let (outbound, mut frames) = mpsc::channel(100);
        let sender = Arc::new(Sender::new(outbound, Arc::default()));
        let resend = tokio::spawn(Arc::clone(&sender).resend());
        sender.set_active(false);
        sender.send(1, b"a").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(frames.try_recv().is_err());
        sender.set_active(true);
        let frame = codec::Message::decode(&frames.recv().await.unwrap()).unwrap();
        assert_eq!((frame.sequence_number, &frame.payload[..]), (0, &b"a"[..]));
        resend.abort();
    }

    #[tokio::test]
    async fn waits_when_too_much_is_unacknowledged() {
        let (outbound, mut frames) = mpsc::channel(10_000);
        let sender = Sender::new(outbound, Arc::default());
        let payload = vec![0; 1 << 20];
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(50), sender.send(1, &payload)).await.is_ok() {
            sent += 1;
            assert!(frames.try_recv().is_ok());
        }
        assert_eq!(sent, OUTGOING_BYTES / (payload.len() + 120));
        sender.acknowledged(50);
        sender.send(1, &payload).await.unwrap();
    }
}
