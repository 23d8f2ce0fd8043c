//! An open websocket, moved on by polling.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::{Sink, Stream as _};
use tokio_tungstenite::tungstenite::Message;

use super::connection::Connection;
use super::websocket::Socket;

/// A websocket and what of it waits to be flushed. It is flushed when there is nothing more to read or to write, not
/// after each frame.
#[derive(Debug)]
pub(super) struct OpenSocket {
    socket: Socket,
    must_flush: bool,
}

impl OpenSocket {
    pub fn new(socket: Socket) -> OpenSocket {
        OpenSocket { socket, must_flush: false }
    }

    /// Writes what there is to write, reads one message, flushes when neither goes on. Gives the message, or why the
    /// websocket is gone.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        reads: bool,
    ) -> Poll<Result<Message, String>> {
        if let Err(error) = self.poll_writes(cx, connection) {
            return Poll::Ready(Err(error.to_string()));
        }
        if reads && connection.wants_frames() {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(message)) => {
                    return Poll::Ready(message.map_err(|error| error.to_string()));
                }
                Poll::Ready(None) => return Poll::Ready(Err("the connection was closed".into())),
                Poll::Pending => {}
            }
        }
        if self.must_flush {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.must_flush = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Whether something waits for the network to take it.
    pub fn is_blocked(&self) -> bool {
        self.must_flush
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }

    /// Makes room in the socket first, then takes a message from the connection, so that none is taken that cannot go.
    fn poll_writes(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let now = Instant::now();
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
