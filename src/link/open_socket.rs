//! An open websocket, driven by polling.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    /// The last reading took everything that had come.
    is_read_out: bool,
}

impl OpenSocket {
    pub(super) fn new(socket: Socket) -> OpenSocket {
        OpenSocket { socket, must_flush: false, is_read_out: false }
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
        if !reads || !connection.wants_frames() {
            connection.handle_unread();
            return Poll::Pending;
        }
        let message =
            if self.may_have_more(cx) { Pin::new(&mut self.socket).poll_next(cx) } else { Poll::Pending };
        self.is_read_out = message.is_pending();
        if self.is_read_out {
            connection.handle_empty();
        }
        match ready!(message) {
            Some(Ok(message)) => {
                // Its pong; the library would write that while it reads.
                self.must_flush |= message.is_ping();
                Poll::Ready(Ok(message))
            }
            Some(Err(error)) => Poll::Ready(Err(websocket::reason(&error))),
            None => Poll::Ready(Err("the connection was closed".into())),
        }
    }

    /// Returns whether reading may bring something; if not, the task is woken when it may. The library clears its whole
    /// buffer before each reading, and the link is polled several times for each message.
    fn may_have_more(&self, cx: &mut Context<'_>) -> bool {
        let tcp = self.socket.get_ref().tcp().filter(|_| self.is_read_out);
        tcp.is_none_or(|tcp| tcp.poll_read_ready(cx).is_ready())
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::link::Config;
    use crate::link::stream::{Hop, MaybeTls};

    fn connection() -> Connection {
        let (now, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
        let mut connection = Connection::new(now, Config::default(), "host".into(), 1);
        assert!(connection.poll_attempt(now).is_some());
        connection.handle_opened(now, wall, "token", None);
        connection
    }

    #[tokio::test]
    async fn nothing_is_read_again_until_something_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let near = MaybeTls::Plain(Hop::Tcp(MaybeTls::Plain(near.unwrap())));
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut far = WebSocketStream::from_raw_socket(far.unwrap().0, Role::Server, None).await;
        let (mut open, mut connection) = (OpenSocket::new(socket), connection());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(open.may_have_more(&mut cx), "it has not been read");
        far.send(Message::text("one")).await.unwrap();
        far.feed(Message::text("two")).await.unwrap();
        far.send(Message::text("three")).await.unwrap();
        for text in ["one", "two", "three"] {
            let message = poll_fn(|cx| open.poll(cx, &mut connection, true)).await.unwrap();
            assert_eq!(message, Message::text(text));
        }
        assert!(open.poll(&mut cx, &mut connection, true).is_pending());
        assert!(!open.may_have_more(&mut cx));
        drop(far);
        poll_fn(|cx| open.poll(cx, &mut connection, true)).await.unwrap_err();
    }
}
