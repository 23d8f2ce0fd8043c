//! Against `async_smux`, an implementation that shares no code with ours.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use async_smux::{MuxBuilder, MuxStream};
use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::epoch;
use crate::smux::*;

const STREAMS: u64 = 200;
const MESSAGE: usize = 1024;

/// Bytes `from..to` of a stream's upload or download, which is never held as a whole.
fn content(seed: u64, from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|at| ((at as u64 * 2_654_435_761).wrapping_add(seed * 977) >> 7) as u8).collect()
}

/// Lengths from nothing to 100 KiB, 5 MiB in 200 streams.
fn length(seed: u64) -> usize {
    match seed % 8 {
        0 => 0,
        1 => 1,
        2 => 1024 - HEADER_LEN,
        3 => 65_535,
        4 => 100 * 1024,
        rest => (rest * seed % 5000) as usize,
    }
}

fn digest(seed: u64, length: usize) -> Vec<u8> {
    Sha256::digest(content(seed, 0, length)).to_vec()
}

/// Transfer on one stream: sends `length(seed)` bytes, finishes, then reads to the end.
struct Transfer {
    seed: u64,
    sent: usize,
    finished: bool,
    received: Sha256,
    received_length: usize,
    fin: bool,
}

impl Transfer {
    fn new(seed: u64) -> Self {
        Self { seed, sent: 0, finished: false, received: Sha256::new(), received_length: 0, fin: false }
    }

    fn pump(&mut self, session: &mut Session, id: StreamId) {
        let to = length(self.seed).min(self.sent + session.send_capacity(id));
        if to > self.sent {
            session.send(id, &content(self.seed, self.sent, to)).unwrap();
            self.sent = to;
        }
        if self.sent == length(self.seed) && !self.finished {
            session.finish(id);
            self.finished = true;
        }
    }
}

/// Runs our session over `wire` until all `expected` transfers are complete in both directions and answered,
/// then returns them.
async fn drive(
    mut session: Session,
    wire: DuplexStream,
    mut transfers: BTreeMap<StreamId, Transfer>,
    expected: usize,
) -> Vec<Transfer> {
    let (mut reader, mut writer) = tokio::io::split(wire);
    let mut input = BytesMut::new();
    let mut output = Bytes::new();
    loop {
        for (&id, transfer) in &mut transfers {
            transfer.pump(&mut session, id);
        }
        if output.is_empty() {
            output = session.poll_transmit(MESSAGE).unwrap_or_default();
        }
        if output.is_empty() && transfers.len() == expected && session.stream_count() == 0 {
            assert_eq!(session.counters(), Counters::default());
            return transfers.into_values().collect();
        }

        input.reserve(MESSAGE);
        tokio::select! {
            count = reader.read_buf(&mut input) => assert_ne!(count.unwrap(), 0, "the peer hung up"),
            count = writer.write(&output), if !output.is_empty() => output.advance(count.unwrap()),
        }
        session.handle_bytes(epoch(), input.split().freeze()).unwrap();
        while let Some(event) = session.poll_event() {
            match event {
                Event::Accepted(id) => {
                    transfers.insert(id, Transfer::new(u64::from(id.get())));
                }
                Event::Data(id, part) => {
                    let transfer = transfers.get_mut(&id).unwrap();
                    transfer.received.update(&part);
                    transfer.received_length += part.len();
                }
                Event::Fin(id) => transfers.get_mut(&id).unwrap().fin = true,
            }
        }
    }
}

/// The peer's half of a stream that we opened: reads to the end, only then answers with the digest of what it
/// read and with as many bytes again.
async fn answer(mut stream: MuxStream<DuplexStream>, seed: u64) {
    let mut upload = Vec::new();
    stream.read_to_end(&mut upload).await.unwrap();
    stream.write_all(&Sha256::digest(&upload)).await.unwrap();
    stream.write_all(&content(seed + 1, 0, upload.len())).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finished in a minute")
}

#[tokio::test(start_paused = true)]
async fn our_client_with_their_server() {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (connector, mut acceptor, worker) = MuxBuilder::server().with_connection(theirs).build();
    let worker = tokio::spawn(worker);
    let accepting = tokio::spawn(async move {
        // SYN frames come in the order of opening.
        for seed in 0..STREAMS {
            let stream = acceptor.accept().await.unwrap();
            tokio::spawn(answer(stream, seed));
        }
        acceptor
    });

    let mut session = Session::new(Config::new(Role::Client), epoch());
    let transfers = (0..STREAMS).map(|seed| (session.open().unwrap(), Transfer::new(seed))).collect();
    let done = in_time(drive(session, ours, transfers, STREAMS as usize)).await;
    let mut total = 0;
    for transfer in done {
        let (seed, size) = (transfer.seed, length(transfer.seed));
        let expected =
            Sha256::new().chain_update(digest(seed, size)).chain_update(content(seed + 1, 0, size));
        assert!(transfer.fin);
        assert_eq!(transfer.received.finalize(), expected.finalize(), "stream {seed} of {size} bytes");
        total += transfer.received_length;
    }
    assert!(total > 4_000_000, "{total} bytes came back");
    drop((accepting.await.unwrap(), connector));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn their_client_with_our_server() {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (connector, acceptor, worker) = MuxBuilder::client().with_connection(theirs).build();
    let worker = tokio::spawn(worker);
    let session = Session::new(Config::new(Role::Server), epoch());
    let driving = tokio::spawn(drive(session, ours, BTreeMap::new(), STREAMS as usize));

    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..STREAMS {
        let connector = connector.clone();
        clients.spawn(async move {
            let size = length(seed);
            let (mut reader, mut writer) = tokio::io::split(connector.connect().unwrap());
            let mut download = Vec::new();
            let sending = async {
                writer.write_all(&content(seed, 0, size)).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (read, ()) = tokio::join!(reader.read_to_end(&mut download), sending);
            read.unwrap();
            (digest(seed, size), Sha256::digest(&download).to_vec())
        });
    }
    let theirs = in_time(clients.join_all()).await;
    let ours = in_time(driving).await.unwrap();

    let sorted = |mut digests: Vec<Vec<u8>>| {
        digests.sort();
        digests
    };
    assert_eq!(
        sorted(theirs.iter().map(|(sent, _)| sent.clone()).collect()),
        sorted(ours.iter().map(|transfer| transfer.received.clone().finalize().to_vec()).collect()),
        "uploads arrive as they were sent"
    );
    assert_eq!(
        sorted(theirs.into_iter().map(|(_, received)| received).collect()),
        sorted(ours.iter().map(|transfer| digest(transfer.seed, length(transfer.seed))).collect()),
        "downloads arrive as they were sent"
    );
    drop((connector, acceptor));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn their_keepalive_reaches_us_and_ours_is_taken() {
    let (mut ours, theirs) = tokio::io::duplex(MESSAGE);
    let second = NonZeroU64::MIN;
    let mut builder = MuxBuilder::server();
    builder.with_keep_alive_interval(second).with_keep_alive_timeout(NonZeroU64::MAX);
    let (connector, mut acceptor, worker) = builder.with_connection(theirs).build();
    let worker = tokio::spawn(worker);

    let start = epoch();
    let keepalive = Some(KeepAlive::default());
    let mut session = Session::new(Config { keepalive, ..Config::new(Role::Client) }, start);
    let now = session.poll_timeout().unwrap().0;
    session.handle_timeout(now).unwrap();
    let id = session.open().unwrap();
    // Our NOP comes first: the stream behind it is accepted.
    let bytes = session.poll_transmit(MESSAGE).unwrap();
    assert_eq!(bytes.len(), 2 * HEADER_LEN);
    ours.write_all(&bytes).await.unwrap();
    let stream = in_time(acceptor.accept()).await.unwrap();

    let mut nop = [0; HEADER_LEN];
    in_time(ours.read_exact(&mut nop)).await.unwrap();
    session.handle_bytes(now, Bytes::copy_from_slice(&nop)).unwrap();
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.counters(), Counters::default());
    session.close(id);
    drop((stream, connector, acceptor));
    worker.abort();
}
