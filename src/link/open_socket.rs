//! An open websocket, driven by polling.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, SinkExt as _, Stream as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::connection::Connection;
use super::network_changes::is_gone;
use super::websocket::{self, Socket};

/// A websocket that is flushed when there is nothing more to read or to write and the session waits for more, not after
/// each frame.
#[derive(Debug)]
pub(super) struct OpenSocket {
    socket: Socket,
    must_flush: bool,
}

impl OpenSocket {
    pub(super) fn new(socket: Socket) -> OpenSocket {
        OpenSocket { socket, must_flush: false }
    }

    /// Writes everything that can be written and reads one message. Returns the message, or the reason for the loss of the websocket.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        reads: bool,
    ) -> Poll<Result<Message, String>> {
        if let Err(error) = self.poll_writes(cx, connection) {
            return Poll::Ready(Err(websocket::reason(&error)));
        }
        if reads && connection.wants_frames() {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(message)) => {
                    return Poll::Ready(message.map_err(|error| websocket::reason(&error)));
                }
                Poll::Ready(None) => return Poll::Ready(Err("the connection was closed".into())),
                Poll::Pending => connection.handle_empty(),
            }
        } else {
            connection.handle_unread();
        }
        Poll::Pending
    }

    /// Hands what was written to the network, as far as that takes it now.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.must_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed.map_err(|error| websocket::reason(&error))?;
            self.must_flush = false;
        }
        Ok(())
    }

    /// Returns whether the machine has lost the address that the websocket was opened from.
    pub(super) fn is_cut_off(&self) -> bool {
        let address = self.socket.get_ref().tcp().map(|tcp| tcp.local_addr());
        address.is_some_and(|address| address.is_ok_and(|address| is_gone(address.ip())))
    }

    /// Returns whether something waits for the network to take it.
    pub(super) fn is_blocked(&self) -> bool {
        self.must_flush
    }

    /// Writes what is left and closes the websocket.
    pub(super) async fn close(mut self, last: Vec<Message>) {
        for message in last {
            if self.socket.feed(message).await.is_err() {
                return;
            }
        }
        let _ = self.socket.close(None).await;
    }

    /// Makes room in the socket first, then takes a message from the connection, so that none is taken that cannot go.
    fn poll_writes(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let now = Instant::now().into_std();
        let mut socket = Pin::new(&mut self.socket);
        while let Poll::Ready(ready) = socket.as_mut().poll_ready(cx) {
            ready?;
            let Some(message) = connection.poll_transmit(now) else { break };
            socket.as_mut().start_send(message)?;
            self.must_flush = true;
        }
        Ok(())
    }
}
