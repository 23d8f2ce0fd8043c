use std::os::unix::net::UnixStream;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::term::output::{OUTPUT_QUEUE, Sink};

fn output(fd: impl Into<OwnedFd>) -> Output {
    Output::on(Sink::new(fd.into()).unwrap())
}

fn piece(index: usize, length: usize) -> Bytes {
    (0..length).map(|at| ((index * 31 + at) % 253) as u8).collect()
}

#[tokio::test]
async fn a_small_piece_is_written_at_once() {
    let (mut reader, writer) = io::pipe().unwrap();
    let copy = writer.try_clone().unwrap();
    let mut out = output(writer);
    out.push(b"echo");
    assert!(out.is_empty());
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"echo");
    assert!(!is_nonblocking(&copy), "the descriptor is the caller's too");
    in_time(out.flush()).await.unwrap();
}

/// Fills `out` until it has no room, then lets `reader` take it all.
async fn fill_then_drain(mut out: Output, reader: impl Read + Send + 'static) {
    let mut sent = Vec::new();
    let mut index = 0;
    while out.has_room() {
        let piece = piece(index, 1 + index * 37 % 3000);
        sent.extend_from_slice(&piece);
        out.push(&piece);
        index += 1;
    }
    // Not all of the memory is bytes, and the system holds some that we do not.
    assert!(sent.len() >= OUTPUT_QUEUE * 9 / 10, "{}", sent.len());
    assert!(!out.is_empty() && out.held() < OUTPUT_QUEUE + 70_000);
    let got = read_in_background(reader, sent.len());
    while !out.has_room() {
        in_time(out.drive()).await.unwrap();
    }
    in_time(out.flush()).await.unwrap();
    assert!(out.is_empty());
    assert!(got.recv_timeout(LONG).unwrap() == sent, "all bytes in order");
}

#[tokio::test]
async fn an_unread_pipe_blocks_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    fill_then_drain(output(writer), reader).await;
}

#[tokio::test]
async fn an_unread_socket_blocks_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    fill_then_drain(output(ours), theirs).await;
}

#[tokio::test]
async fn an_unread_terminal_blocks_nothing() {
    let (master, slave) = pty();
    make_raw(&slave);
    fill_then_drain(output(slave), master).await;
}

/// smp#29's kind of flag, on the other side.
#[tokio::test]
async fn a_pipe_that_the_caller_made_nonblocking() {
    let (reader, writer) = io::pipe().unwrap();
    set_nonblocking(&writer);
    fill_then_drain(output(writer), reader).await;
}

#[tokio::test]
async fn a_reader_that_is_gone_is_an_error() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut out = output(writer);
    out.push(b"x");
    assert_eq!(in_time(out.drive()).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    out.push(b"y");
    assert!(out.is_empty() && out.has_room());
    assert_eq!(in_time(out.flush()).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_reader_that_is_gone_is_noticed_without_a_write() {
    let (reader, writer) = io::pipe().unwrap();
    let (peer, socket) = UnixStream::pair().unwrap();
    let (pipe, socket) = (output(writer), output(socket));
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let file = output(tempfile::tempfile().unwrap());
    let null = output(std::fs::File::options().write(true).open("/dev/null").unwrap());
    let all = [&pipe, &socket, &file, &null];
    assert!(!all.into_iter().any(Output::has_lost_reader), "a reader that sends nothing may read");
    drop((reader, peer));
    assert_eq!(all.map(Output::has_lost_reader), [true, true, false, false]);
}

#[tokio::test]
async fn a_reader_that_goes_while_the_thread_writes_is_an_error() {
    let (reader, writer) = io::pipe().unwrap();
    let mut out = output(writer);
    out.push(&vec![0; 300_000]);
    assert!(!out.is_empty());
    drop(reader);
    assert_eq!(in_time(out.flush()).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn drive_pends_while_nothing_waits() {
    let (_reader, writer) = io::pipe().unwrap();
    let mut out = output(writer);
    assert!(tokio::time::timeout(LONG, out.drive()).await.is_err());
    out.push(b"written at once");
    assert!(tokio::time::timeout(LONG, out.drive()).await.is_err());
}

#[tokio::test]
async fn a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut out = output(file.reopen().unwrap());
    let mut sent = Vec::new();
    for index in 0..100 {
        let piece = piece(index, index * 701);
        sent.extend_from_slice(&piece);
        out.push(&piece);
    }
    in_time(out.flush()).await.unwrap();
    assert!(std::fs::read(file.path()).unwrap() == sent);
}

#[tokio::test]
async fn what_waits_is_written_after_a_drop() {
    let (reader, writer) = io::pipe().unwrap();
    let mut out = output(writer);
    let sent = piece(0, 200_000);
    out.push(&sent);
    drop(out);
    assert!(read_in_background(reader, sent.len()).recv_timeout(LONG).unwrap() == sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_pieces_arrive_in_order(lengths in proptest::collection::vec(0usize..20_000, 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let mut sent = Vec::new();
        let got = read_in_background(reader, lengths.iter().sum());
        runtime.block_on(async {
            let mut out = output(writer);
            for (index, &length) in lengths.iter().enumerate() {
                let piece = piece(index, length);
                sent.extend_from_slice(&piece);
                out.push(&piece);
            }
            in_time(out.flush()).await.unwrap();
        });
        prop_assert!(got.recv_timeout(LONG).unwrap() == sent);
    }
}

/// Not a test of the machine, but what the figures in the report come from.
#[tokio::test]
#[ignore = "a measurement: cargo test --release --lib -- --ignored --nocapture measure_push"]
async fn measure_push() {
    let (pty_master, slave) = pty();
    make_raw(&slave);
    let (reader, writer) = io::pipe().unwrap();
    let outputs: [(&str, Output, Box<dyn Read + Send>); 2] =
        [("pipe", output(writer), Box::new(reader)), ("terminal", output(slave), Box::new(pty_master))];
    for (name, mut out, mut reader) in outputs {
        for size in [1, 64, 1024, 16_000] {
            let (rounds, mut took, mut buffer) = (1000, Vec::new(), vec![0; size]);
            for index in 0..rounds {
                let piece = piece(index, size);
                let start = std::time::Instant::now();
                out.push(&piece);
                reader.read_exact(&mut buffer).unwrap();
                took.push(start.elapsed());
            }
            took.sort();
            println!("{name} {size}: p50 {:?} p99 {:?}", took[rounds / 2], took[rounds * 99 / 100]);
        }
    }
}
