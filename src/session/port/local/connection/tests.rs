//! Local connections on real sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::session::port::local::gauge::{Budget, Limits};
use crate::session::port::local::journal::Journal;
use crate::session::port::local::memory::MemoryStream;

async fn pair() -> (TcpStream, LocalStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, LocalStream::Tcp(listener.accept().await.unwrap().0))
}

fn start<T: Copy + Send + 'static>(
    stream: LocalStream,
    tag: T,
    reports: mpsc::Sender<(T, Report)>,
) -> Connection {
    start_with(Preface::default(), stream, tag, reports)
}

fn start_with<T: Copy + Send + 'static>(
    preface: Preface,
    stream: LocalStream,
    tag: T,
    reports: mpsc::Sender<(T, Report)>,
) -> Connection {
    let entry = Journal::new(false).open(&stream, None);
    Connection::start(stream, preface, tag, reports, entry)
}

fn socks5() -> Preface {
    Preface { protocol: Some(Protocol::Socks5), ..Preface::default() }
}

#[tokio::test]
async fn an_answer_of_ours_is_not_lost_when_the_connection_is_dismissed() {
    let (mut client, stream) = pair().await;
    let (reports, _received) = mpsc::channel(8);
    client.write_all(b"unread").await.unwrap();
    let connection = start_with(socks5(), stream, (), reports);
    connection.reply(Reply::NotAllowed);
    connection.dismiss();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, encode(Protocol::Socks5, Reply::NotAllowed));
}

/// A client may send its data together with an HTTP request, without waiting for the answer.
#[tokio::test]
async fn early_data_comes_first_and_counts() {
    let (mut client, stream) = pair().await;
    let (reports, mut received) = mpsc::channel(8);
    client.write_all(b"later").await.unwrap();
    let preface = Preface { protocol: Some(Protocol::Http), early: b"early ".as_slice().into() };
    let connection = start_with(preface, stream, (), reports);
    let mut all = Vec::new();
    while all.len() < 11 {
        let Some(((), Report::Data(bytes))) = received.recv().await else { panic!() };
        all.extend_from_slice(&bytes);
        connection.grant();
    }
    assert_eq!(all, b"early later");
    assert_eq!(connection.counts.sent(), 11);
}

/// A cut download must not look complete.
#[tokio::test]
async fn a_connection_that_is_dropped_before_its_end_is_reset() {
    let (mut client, stream) = pair().await;
    let (reports, _received) = mpsc::channel(8);
    let connection = start(stream, (), reports);
    connection.write(b"a part");
    assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 6);
    drop(connection);
    let error = client.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The session is over, but the remote had ended the connection before.
#[tokio::test]
async fn a_connection_that_is_released_delivers_what_is_queued_and_its_end() {
    let (mut client, stream) = pair().await;
    let (reports, _received) = mpsc::channel(8);
    let connection = start(stream, (), reports);
    connection.write(&vec![2; 8 << 20]);
    connection.end();
    tokio::task::yield_now().await;
    connection.release();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 8 << 20);
}

/// The session is over, so that nothing else would ever end the wait for its reader.
#[tokio::test(start_paused = true)]
async fn a_released_reader_that_takes_nothing_is_reset() {
    for may_read_once in [false, true] {
        let (mut client, budget, gauge) = released(1 << 20).await;
        assert!(gauge.has_room() && budget.held() > 900_000);
        let mut since = Instant::now();
        tokio::time::sleep(PATIENCE - SECOND).await;
        assert!(budget.held() > 900_000, "the memory counts for as long as it is held");
        if may_read_once {
            client.read_exact(&mut [0; 1]).await.unwrap();
            since = Instant::now();
        }
        tokio::time::sleep_until(since + PATIENCE + SECOND).await;
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(budget.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_reader_that_is_slow_loses_nothing() {
    let (mut client, budget, _gauge) = released(1 << 20).await;
    let (mut total, mut part) = (0, vec![0; 50_000]);
    loop {
        tokio::time::sleep(PATIENCE - SECOND).await;
        match client.read(&mut part).await.unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!((total, budget.held()), (1 << 20, 0));
}

/// The client of a connection that has ended with `count` bytes for it, and the accounts of its memory.
async fn released(count: usize) -> (MemoryStream, Arc<Budget>, Arc<Gauge>) {
    let (client, stream) = MemoryStream::pair();
    let (reports, _received) = mpsc::channel(8);
    let budget = Budget::new(Limits { each: 1000, all: 4 << 20, session: 1000 });
    let gauge = Gauge::new(budget.clone());
    let connection = start(LocalStream::Memory(stream), (), reports);
    connection.join(&gauge);
    connection.write(&vec![3; count]);
    tokio::task::yield_now().await;
    assert!(!gauge.has_room());
    connection.end();
    connection.release();
    (client, budget, gauge)
}

#[tokio::test]
async fn a_chunk_comes_only_when_requested() {
    let (mut client, stream) = pair().await;
    let (reports, mut received) = mpsc::channel(8);
    let connection = start(stream, 7, reports);
    client.write_all(&vec![1; 3 * CHUNK]).await.unwrap();
    let mut total = 0;
    while total < 3 * CHUNK {
        let Some((7, Report::Data(bytes))) = received.recv().await else { panic!() };
        assert!(bytes.len() <= CHUNK);
        total += bytes.len();
        tokio::task::yield_now().await;
        assert!(received.is_empty());
        connection.grant();
    }
}

/// Its end stands behind what is not read, where the system reports it all the same: see [`ReadHalf::hung_up`].
#[tokio::test]
async fn a_client_that_goes_away_is_noticed_while_it_is_not_read() {
    let sent = if cfg!(windows) { CHUNK / 2 } else { 3 * CHUNK };
    let (mut client, stream) = pair().await;
    let (reports, mut received) = mpsc::channel(8);
    let connection = start(stream, (), reports);
    client.write_all(&vec![1; sent]).await.unwrap();
    let mut first = 0;
    while first < sent.min(CHUNK) {
        let Some(((), Report::Data(bytes))) = received.recv().await else { panic!() };
        first += bytes.len();
        if first < sent.min(CHUNK) {
            connection.grant();
        }
    }
    drop(client);
    assert!(matches!(received.recv().await, Some(((), Report::HungUp))));
    // Nothing of it is lost.
    let mut total = 0;
    loop {
        connection.grant();
        match received.recv().await {
            Some(((), Report::Data(bytes))) => total += bytes.len(),
            Some(((), Report::InputEnded)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(total, sent - first);
}

#[tokio::test]
async fn the_remote_end_closes_after_what_was_queued_and_loses_nothing_of_it() {
    let (mut client, stream) = pair().await;
    let (reports, mut received) = mpsc::channel(8);
    let connection = start(stream, (), reports);
    connection.write(&vec![2; 1 << 20]);
    connection.end();
    // Data that the client sends after the remote has hung up must not reset the connection.
    client.write_all(b"too late").await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 1 << 20);
    drop(client);
    while !matches!(received.recv().await, Some(((), Report::Closed))) {
        connection.grant();
    }
}

/// Pieces that are written at once, pieces that wait, and what we say ourselves.
#[tokio::test]
async fn pieces_of_all_sizes_arrive_in_order() {
    let (mut client, stream) = pair().await;
    let (reports, _received) = mpsc::channel(8);
    let connection = start_with(socks5(), stream, (), reports);
    connection.reply(Reply::Succeeded);
    let mut expected = encode(Protocol::Socks5, Reply::Succeeded);
    let length = expected.len() as u64;
    for number in 0..600_usize {
        let length = if number % 3 == 0 { DIRECT + number * 7 } else { number % 50 };
        let piece: Vec<u8> = (0..length).map(|at| ((number + at) % 251) as u8).collect();
        connection.write(&piece);
        expected.extend(piece);
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    connection.end();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
    assert_eq!(connection.counts.received(), expected.len() as u64 - length);
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_session_until_it_is_gone() {
    let (_client, stream) = pair().await;
    let (reports, _received) = mpsc::channel(8);
    let limits = Limits { each: 1 << 20, all: 4 << 20, session: 1 << 20 };
    let budget = Budget::new(limits);
    let gauge = Gauge::new(budget.clone());
    let slow = start(stream, 1, reports);
    slow.join(&gauge);
    assert!(gauge.has_room());
    // More than the system takes.
    slow.write(&vec![0; 16 << 20]);
    assert!(!gauge.has_room());
    drop(slow);
    assert!(gauge.has_room());
    budget.progress().await;
}

#[tokio::test]
async fn a_reset_is_reported_as_one() {
    let (client, stream) = pair().await;
    let (reports, mut received) = mpsc::channel(8);
    let _connection = start(stream, (), reports);
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(matches!(received.recv().await, Some(((), Report::Reset))));
}

const SECOND: Duration = Duration::from_secs(1);
