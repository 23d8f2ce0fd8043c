//! A program's output on its way to the client.

use std::sync::Arc;
use std::time::Duration;

use super::AgentOptions;
use super::send::{Gone, Sender};
use super::utf8::Boundaries;

/// Sends output in messages of at most the payload size, paced if asked for.
pub(super) struct Output {
    sender: Arc<Sender>,
    payload_type: u32,
    payload: usize,
    pacing: bool,
    boundaries: Boundaries,
}

impl Output {
    pub(super) fn new(sender: &Arc<Sender>, payload_type: u32, options: &AgentOptions) -> Output {
        Output {
            sender: Arc::clone(sender),
            payload_type,
            payload: options.payload.max(1),
            pacing: options.pacing,
            boundaries: Boundaries::default(),
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
    pub(super) async fn bytes(&self, bytes: &[u8]) -> Result<(), Gone> {
        self.sender.send(self.payload_type, bytes).await?;
        if self.pacing {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Agent source: the sleep after each message.
const PAUSE: Duration = Duration::from_millis(1);
