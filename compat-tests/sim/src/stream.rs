//! A client's TCP connection, with or without TLS, whose first bytes have been looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::agent::Connection;

/// One connection.
pub(crate) struct Stream {
    inner: Inner,
    /// Read already, and to be read again.
    seen: BytesMut,
}

enum Inner {
    Other(Box<dyn Connection>),
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection within the process.
    pub fn other(stream: impl Connection + 'static) -> Stream {
        Stream { inner: Inner::Other(Box::new(stream)), seen: BytesMut::new() }
    }

    /// A connection without TLS.
    pub fn plain(tcp: TcpStream) -> Stream {
        Stream { inner: Inner::Plain(tcp), seen: BytesMut::new() }
    }

    /// A connection with TLS.
    pub fn tls(tls: TlsStream<TcpStream>) -> Stream {
        Stream { inner: Inner::Tls(Box::new(tls)), seen: BytesMut::new() }
    }

    /// Returns whether the client's first bytes are these. They stay to be read.
    pub async fn starts_with(&mut self, prefix: &[u8]) -> io::Result<bool> {
        loop {
            let both = prefix.len().min(self.seen.len());
            if self.seen[..both] != prefix[..both] {
                return Ok(false);
            }
            if both == prefix.len() {
                return Ok(true);
            }
            let read = match &mut self.inner {
                Inner::Other(stream) => stream.read_buf(&mut self.seen).await?,
                Inner::Plain(tcp) => tcp.read_buf(&mut self.seen).await?,
                Inner::Tls(tls) => tls.read_buf(&mut self.seen).await?,
            };
            if read == 0 {
                return Ok(false);
            }
        }
    }

    /// Makes the end of this connection a TCP reset, where it is TCP.
    pub fn reset(&self) {
        let tcp = match &self.inner {
            Inner::Other(_) => return,
            Inner::Plain(tcp) => tcp,
            Inner::Tls(tls) => tls.get_ref().0,
        };
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.seen.is_empty() {
            let length = self.seen.len().min(buf.remaining());
            buf.put_slice(&self.seen[..length]);
            self.seen.advance(length);
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Other(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Inner::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Other(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Inner::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Other(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Inner::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Other(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Inner::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
