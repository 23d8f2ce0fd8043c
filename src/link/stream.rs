//! The byte stream under a websocket: TCP or another transport, with TLS to a proxy and to the service where wanted.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connector::Transport;

/// Transport to the service, possibly through a proxy.
pub(super) type Stream = MaybeTls<Hop>;

/// A stream as it is, or with TLS on it.
#[derive(Debug)]
pub(super) enum MaybeTls<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

/// The connection that leads to the service.
pub(super) enum Hop {
    /// To the service or to a proxy.
    Tcp(MaybeTls<TcpStream>),
    /// Made by a [`Connector`](super::Connector).
    Other(Box<dyn Transport>),
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Tcp(stream) => stream.fmt(f),
            Hop::Other(_) => f.write_str("Other"),
        }
    }
}

impl<S> MaybeTls<S> {
    fn inner(&self) -> &S {
        match self {
            MaybeTls::Plain(stream) => stream,
            MaybeTls::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Stream {
    /// Returns the connection to the service or the proxy, if it is TCP.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self.inner() {
            Hop::Tcp(stream) => Some(stream.inner()),
            Hop::Other(_) => None,
        }
    }

    /// Returns the version of TLS to the service, as `TLSv1_3`, or `none`.
    pub(super) fn tls_version(&self) -> &'static str {
        match self {
            MaybeTls::Plain(_) => "none",
            MaybeTls::Tls(stream) => stream
                .get_ref()
                .1
                .protocol_version()
                .and_then(|version| version.as_str())
                .unwrap_or("unknown"),
        }
    }
}

/// Passes a stream's reading and writing on to the stream of one of its variants.
macro_rules! pass_on {
    ([$($generic:ident)?] $name:ident, $first:ident($a:ident), $second:ident($b:ident)) => {
        impl$(<$generic: AsyncRead + AsyncWrite + Unpin>)? AsyncRead for $name$(<$generic>)? {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::$first($a) => Pin::new($a).poll_read(cx, buffer),
                    $name::$second($b) => Pin::new($b).poll_read(cx, buffer),
                }
            }
        }

        impl$(<$generic: AsyncRead + AsyncWrite + Unpin>)? AsyncWrite for $name$(<$generic>)? {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $name::$first($a) => Pin::new($a).poll_write(cx, bytes),
                    $name::$second($b) => Pin::new($b).poll_write(cx, bytes),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::$first($a) => Pin::new($a).poll_flush(cx),
                    $name::$second($b) => Pin::new($b).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::$first($a) => Pin::new($a).poll_shutdown(cx),
                    $name::$second($b) => Pin::new($b).poll_shutdown(cx),
                }
            }
        }
    };
}

pass_on!([S] MaybeTls, Plain(stream), Tls(stream));
pass_on!([] Hop, Tcp(stream), Other(stream));
