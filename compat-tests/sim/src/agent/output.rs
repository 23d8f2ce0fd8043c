//! A program's output on its way to the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::send::{Gone, Sender};
use super::utf8::Boundaries;
use super::{AgentOptions, Broken};

/// Sends output in messages of at most the payload size, paced if asked for.
pub(super) struct Output {
    sender: Arc<Sender>,
    payload_type: u32,
    payload: usize,
    pacing: bool,
    boundaries: Boundaries,
    /// Messages so far, when some of them are to be lost.
    lossy: Option<u64>,
    /// Excess of the last pause over the intended one.
    overslept: Duration,
}

impl Output {
    pub(super) fn new(sender: &Arc<Sender>, payload_type: u32, options: &AgentOptions) -> Output {
        Output {
            sender: Arc::clone(sender),
            payload_type,
            payload: options.payload.max(1),
            pacing: options.pacing,
            boundaries: Boundaries::default(),
            lossy: (options.broken == Some(Broken::LostOutput)).then_some(0),
            overslept: Duration::ZERO,
        }
    }

    /// A buffer for what is read at once.
    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; self.payload]
    }

    /// Waits until publication is not paused: the agent reads no output before.
    pub(super) async fn active(&self) {
        self.sender.active().await;
    }

    /// Sends text as the agent does, cut between characters: up to three bytes wait for the next call.
    pub(super) async fn text(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let bytes = self.boundaries.whole(bytes);
        self.bytes(&bytes).await
    }

    /// Sends bytes as they are.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if !self.loses_next() {
            self.sender.send(self.payload_type, bytes).await?;
        }
        if self.pacing {
            self.pause(bytes.len()).await;
        }
        Ok(())
    }

    fn loses_next(&mut self) -> bool {
        let Some(count) = &mut self.lossy else { return false };
        *count += 1;
        *count % LOST_EACH == 0
    }

    /// The runtime's timers count whole milliseconds, which would make two of one: a thread sleeps instead.
    async fn pause(&mut self, sent: usize) {
        let started = Instant::now();
        let per_bytes = PER_KIB.mul_f64(sent as f64 / 1024.0);
        let wanted = (PAUSE + per_bytes).saturating_sub(self.overslept);
        if tokio::task::spawn_blocking(move || std::thread::sleep(wanted)).await.is_ok() {
            self.overslept = started.elapsed().saturating_sub(wanted).min(MOST_MADE_UP);
        }
    }
}

/// The sleep after each message (agent source: 1 ms) as it is measured at the real agent: an echo of small messages
/// has a floor of 1.1 ms.
const PAUSE: Duration = Duration::from_micros(1060);
/// Additional time that a message takes the real agent, for each KiB: with full messages its pace is measured
/// at 0.72 to 0.77 MB/s, or 1.37 ms a message.
const PER_KIB: Duration = Duration::from_micros(310);
/// Largest excess of a pause that shortens the next one, so that a busy machine keeps the pace.
const MOST_MADE_UP: Duration = Duration::from_millis(3);
/// Interval at which [`Broken::LostOutput`] loses a message.
const LOST_EACH: u64 = 20;
