//! A link without a socket, for tests of what stands on it: the test is the agent.

use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::connection::Connection;
use super::{Config, Link};
use crate::protocol::tests::agent_frames;

impl Link {
    /// A link that is open and reads `frames`. What is sent is acknowledged and dropped.
    pub(crate) fn scripted(frames: UnboundedReceiver<Bytes>) -> Link {
        let now = Instant::now();
        let mut connection = Connection::new(now.into_std(), Config::default(), "host".to_owned(), 1);
        let _ = connection.poll_attempt(now.into_std());
        connection.handle_opened(now.into_std(), SystemTime::now(), "token", None);
        let timer = Box::pin(tokio::time::sleep_until(now));
        Link {
            connection,
            socket: None,
            opening: None,
            opener: None,
            network_changes: None,
            timer,
            script: Some(frames),
        }
    }

    /// Moves the script on, by one message.
    pub(super) fn poll_script(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<()> {
        let Some(frames) = &mut self.script else { return Poll::Pending };
        let now = Instant::now().into_std();
        while let Some(sent) = self.connection.poll_transmit(now) {
            let answer = match sent {
                Message::Ping(bytes) => Some(Message::Pong(bytes)),
                Message::Binary(frame) => agent_frames::acknowledge(frame).map(Message::Binary),
                _ => None,
            };
            if let Some(answer) = answer {
                self.connection.handle_message(now, answer);
                return Poll::Ready(());
            }
        }
        if !reads {
            return Poll::Pending;
        }
        match ready!(frames.poll_recv(cx)) {
            Some(frame) => {
                self.connection.handle_message(now, Message::Binary(frame));
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }
}
