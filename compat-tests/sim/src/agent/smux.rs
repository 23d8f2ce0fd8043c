//! The server side of smux v1 as the agent uses it: xtaci/smux with its default configuration.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

/// The client broke the protocol: no stream is accepted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProtocolError;

/// A stream the client has opened.
pub(super) struct Stream {
    pub(super) id: u32,
    /// Data from the client; ends with its FIN.
    pub(super) data: mpsc::UnboundedReceiver<Received>,
}

/// Data in the session's receive buffer; dropped, its bytes are free again.
pub(super) struct Received {
    bytes: Bytes,
    bucket: Arc<Bucket>,
}

impl Received {
    fn new(bytes: Bytes, bucket: &Arc<Bucket>) -> Received {
        bucket.tokens.fetch_sub(signed(bytes.len()), Ordering::AcqRel);
        Received { bytes, bucket: Arc::clone(bucket) }
    }
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let before = self.bucket.tokens.fetch_add(signed(self.bytes.len()), Ordering::AcqRel);
        if before <= 0 {
            self.bucket.freed.notify_one();
        }
    }
}

/// The streams of a session, from the view of those who serve them.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<u32, Option<mpsc::UnboundedSender<Received>>>>);

impl Streams {
    /// The agent has closed the stream: what still comes for it is dropped.
    pub(super) fn close(&self, id: u32) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Option<mpsc::UnboundedSender<Received>>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Takes the client's byte stream apart.
pub(super) struct Server {
    accepted: mpsc::Sender<Stream>,
    streams: Arc<Streams>,
    bucket: Arc<Bucket>,
    heard: Arc<AtomicBool>,
    header: BytesMut,
    /// The rest of the frame that is being read.
    rest: Rest,
}

enum Rest {
    Nothing,
    Data {
        stream: u32,
        length: usize,
    },
    /// The body of a window update, which v1 servers read and ignore.
    Update {
        length: usize,
    },
}

impl Server {
    pub(super) fn new(accepted: mpsc::Sender<Stream>, streams: Arc<Streams>) -> Server {
        Server {
            accepted,
            streams,
            bucket: Arc::new(Bucket { tokens: AtomicI64::new(RECEIVE_BUFFER), freed: Notify::new() }),
            heard: Arc::default(),
            header: BytesMut::with_capacity(HEADER_LEN),
            rest: Rest::Nothing,
        }
    }

    /// For [`KeepAlive`].
    pub(super) fn keep_alive(&self) -> KeepAlive {
        KeepAlive { heard: Arc::clone(&self.heard), bucket: Arc::clone(&self.bucket) }
    }

    /// Takes bytes; waits before each frame while the receive buffer of all streams together is full.
    pub(super) async fn receive(&mut self, mut bytes: Bytes) -> Result<(), ProtocolError> {
        while bytes.has_remaining() {
            match self.rest {
                Rest::Nothing => {
                    self.bucket.has_room().await;
                    let missing = HEADER_LEN - self.header.len();
                    self.header.extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
                    if self.header.len() == HEADER_LEN {
                        self.frame().await?;
                    }
                }
                Rest::Data { stream, ref mut length } => {
                    let piece = bytes.split_to(bytes.len().min(*length));
                    *length -= piece.len();
                    if *length == 0 {
                        self.rest = Rest::Nothing;
                    }
                    if let Some(Some(data)) = self.streams.lock().get(&stream) {
                        // It is not read when the stream is just being closed.
                        let _ = data.send(Received::new(piece, &self.bucket));
                    }
                }
                Rest::Update { ref mut length } => {
                    let piece = bytes.len().min(*length);
                    bytes.advance(piece);
                    *length -= piece;
                    if *length == 0 {
                        self.rest = Rest::Nothing;
                    }
                }
            }
        }
        Ok(())
    }

    async fn frame(&mut self) -> Result<(), ProtocolError> {
        let (version, command) = (self.header.get_u8(), self.header.get_u8());
        let (length, id) = (usize::from(self.header.get_u16_le()), self.header.get_u32_le());
        self.header.clear();
        self.heard.store(true, Ordering::Release);
        if version != VERSION {
            return Err(ProtocolError);
        }
        match command {
            SYN => self.open(id).await,
            FIN => {
                // Its data ends; it stays known until the agent has closed it too.
                if let Some(stream) = self.streams.lock().get_mut(&id) {
                    *stream = None;
                }
            }
            PSH if length > 0 => self.rest = Rest::Data { stream: id, length },
            PSH | NOP => {}
            UPD => self.rest = Rest::Update { length: 8 },
            _ => return Err(ProtocolError),
        }
        Ok(())
    }

    async fn open(&self, id: u32) {
        let (data, received) = mpsc::unbounded_channel();
        {
            let mut streams = self.streams.lock();
            if streams.contains_key(&id) {
                return;
            }
            streams.insert(id, Some(data));
        }
        // Full when a thousand streams wait to be connected; closed when the session is ending.
        let _ = self.accepted.send(Stream { id, data: received }).await;
    }
}

/// True if the client is alive, as smux judges it.
pub(super) struct KeepAlive {
    heard: Arc<AtomicBool>,
    bucket: Arc<Bucket>,
}

impl KeepAlive {
    /// Returns whether nothing came since the last call, although there was room for it.
    pub(super) fn dead(&self) -> bool {
        !self.heard.swap(false, Ordering::AcqRel) && self.bucket.tokens.load(Ordering::Acquire) > 0
    }
}

struct Bucket {
    tokens: AtomicI64,
    freed: Notify,
}

impl Bucket {
    async fn has_room(&self) {
        while self.tokens.load(Ordering::Acquire) <= 0 {
            self.freed.notified().await;
        }
    }
}

/// A frame for the client without data.
pub(super) fn control(command: u8, stream: u32) -> Bytes {
    Bytes::copy_from_slice(&header(command, 0, stream))
}

/// A header; data follows it when the command is [`PSH`].
pub(super) fn header(command: u8, length: u16, stream: u32) -> [u8; HEADER_LEN] {
    let [length_low, length_high] = length.to_le_bytes();
    let [a, b, c, d] = stream.to_le_bytes();
    [VERSION, command, length_low, length_high, a, b, c, d]
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

pub(super) const SYN: u8 = 0;
pub(super) const FIN: u8 = 1;
pub(super) const PSH: u8 = 2;
pub(super) const NOP: u8 = 3;
const UPD: u8 = 4;
const VERSION: u8 = 1;
pub(super) const HEADER_LEN: usize = 8;
/// smux source: `MaxReceiveBuffer`.
const RECEIVE_BUFFER: i64 = 4 << 20;
/// smux source: `MaxFrameSize`.
pub(super) const MAX_FRAME: usize = 32 * 1024;
/// smux source: `defaultAcceptBacklog`.
pub(super) const ACCEPT_BACKLOG: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn server() -> (Server, mpsc::Receiver<Stream>) {
        let (accepted, streams) = mpsc::channel(ACCEPT_BACKLOG);
        (Server::new(accepted, Arc::default()), streams)
    }

    fn push(stream: u32, data: &[u8]) -> Vec<u8> {
        [&header(PSH, u16::try_from(data.len()).unwrap(), stream)[..], data].concat()
    }

    #[tokio::test]
    async fn frames_may_be_cut_anywhere() {
        let mut bytes = control(SYN, 3).to_vec();
        bytes.extend(push(3, b"hello"));
        bytes.extend(control(NOP, 0));
        bytes.extend(push(9, b"for a stream that is not there"));
        bytes.extend(push(3, b""));
        bytes.extend(header(UPD, 8, 3));
        bytes.extend([7; 8]);
        bytes.extend(control(SYN, 3));
        bytes.extend(push(3, b" world"));
        bytes.extend(control(FIN, 3));
        for size in 1..40 {
            let (mut server, mut accepted) = server();
            for piece in bytes.chunks(size) {
                server.receive(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            let mut stream = accepted.try_recv().unwrap();
            assert!(accepted.try_recv().is_err());
            let mut data = Vec::new();
            while let Some(piece) = stream.data.recv().await {
                data.extend_from_slice(&piece);
            }
            assert_eq!((stream.id, &data[..]), (3, &b"hello world"[..]));
        }
    }

    #[tokio::test]
    async fn other_versions_and_commands_are_errors() {
        for bytes in [[2, 0, 0, 0, 3, 0, 0, 0], [1, 5, 0, 0, 3, 0, 0, 0]] {
            let (mut server, _accepted) = server();
            assert_eq!(server.receive(Bytes::copy_from_slice(&bytes)).await, Err(ProtocolError));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_buffer_stalls_all_streams() {
        let (mut server, mut accepted) = server();
        server.receive([control(SYN, 3), control(SYN, 5)].concat().into()).await.unwrap();
        let (mut slow, mut quick) = (accepted.recv().await.unwrap(), accepted.recv().await.unwrap());
        let frame = Bytes::from(push(3, &[0; 32 * 1024]));
        for _ in 0..128 {
            server.receive(frame.clone()).await.unwrap();
        }
        let for_quick = Bytes::from(push(5, b"quick"));
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, server.receive(for_quick.clone())).await.is_err());
        slow.data.recv().await.unwrap();
        server.receive(for_quick).await.unwrap();
        assert_eq!(&quick.data.recv().await.unwrap()[..], b"quick");
        // A closed stream gives back what it had.
        drop(slow);
        assert_eq!(server.bucket.tokens.load(Ordering::Acquire), RECEIVE_BUFFER);
    }
}
