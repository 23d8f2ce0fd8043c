use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;
use crate::term::limits::{READ_SIZE, STDIN_CHUNKS};

async fn read_to_end(stdin: &mut Stdin) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let bytes = in_time(stdin.read()).await.unwrap();
        if bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&bytes);
    }
}

/// Reads while each read is dropped every now and then.
async fn read_with_interruptions(stdin: &mut Stdin) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            bytes = stdin.read() => match bytes.unwrap() {
                bytes if bytes.is_empty() => return all,
                bytes => all.extend_from_slice(&bytes),
            },
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn a_pipe_is_read_whole_and_stays_blocking() {
    let (reader, mut writer) = io::pipe().unwrap();
    let copy = reader.try_clone().unwrap();
    let mut stdin = Stdin::on(reader.into()).unwrap();
    let sent = pattern(1 << 20);
    let written = sent.clone();
    let thread = thread::spawn(move || writer.write_all(&written).unwrap());
    let first = in_time(stdin.read()).await.unwrap();
    assert!(!is_nonblocking(&copy), "the descriptor is the caller's too");
    let rest = in_time(read_with_interruptions(&mut stdin)).await;
    assert!([&first[..], &rest].concat() == sent);
    thread.join().unwrap();
    assert!(in_time(stdin.read()).await.unwrap().is_empty(), "the end stays the end");
}

#[tokio::test]
async fn a_pipe_that_the_caller_made_nonblocking() {
    let (reader, mut writer) = io::pipe().unwrap();
    set_nonblocking(&reader);
    let mut stdin = Stdin::on(reader.into()).unwrap();
    tokio::select! {
        biased;
        bytes = stdin.read() => panic!("nothing was written: {bytes:?}"),
        () = tokio::task::yield_now() => {}
    }
    writer.write_all(b"hello").unwrap();
    assert_eq!(in_time(stdin.read()).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_socket() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut stdin = Stdin::on(ours.into()).unwrap();
    theirs.write_all(b"hello").unwrap();
    assert_eq!(in_time(stdin.read()).await.unwrap(), "hello");
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(in_time(stdin.read()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_and_the_null_device() {
    use std::io::Seek;
    let mut file = tempfile::tempfile().unwrap();
    let sent = pattern(READ_SIZE * (STDIN_CHUNKS + 3) + 17);
    file.write_all(&sent).unwrap();
    file.rewind().unwrap();
    assert!(read_to_end(&mut Stdin::on(file.into()).unwrap()).await == sent);

    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(read_to_end(&mut Stdin::on(null.into()).unwrap()).await.is_empty());
}

/// smp#29: `read /dev/stdin: resource temporarily unavailable`.
#[tokio::test]
async fn a_terminal_even_if_another_program_made_it_nonblocking() {
    let (mut master, slave) = pty();
    let mut stdin = Stdin::on(slave.try_clone().unwrap()).unwrap();
    master.write_all(b"one\n").unwrap();
    assert_eq!(in_time(stdin.read()).await.unwrap(), "one\n");
    assert!(!is_nonblocking(&slave));
    set_nonblocking(&slave);
    master.write_all(b"two\n").unwrap();
    assert_eq!(in_time(stdin.read()).await.unwrap(), "two\n");
    master.write_all(b"\x04").unwrap();
    assert!(in_time(stdin.read()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_terminal_that_hangs_up_ends() {
    let (master, slave) = pty();
    let mut stdin = Stdin::on(slave).unwrap();
    drop(master);
    assert!(in_time(stdin.read()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_source_takes_nothing_from_the_terminal() {
    let (mut master, slave) = pty();
    drop(Stdin::on(slave.try_clone().unwrap()).unwrap());
    master.write_all(b"next\n").unwrap();
    let next = read_in_background(std::fs::File::from(slave), 5);
    assert_eq!(next.recv_timeout(LONG).unwrap(), b"next\n");
}

/// A source that is not read holds back its writer.
#[tokio::test]
async fn the_thread_stops_reading_at_its_bound() {
    let (mut master, slave) = pty();
    make_raw(&slave);
    set_nonblocking(&master);
    let mut stdin = Stdin::on(slave).unwrap();
    let chunk = pattern(512);
    let mut sent = Vec::new();
    let mut refusals = 0;
    // A full terminal drains within a moment, unless its reader waits.
    while refusals < 20 {
        match master.write(&chunk) {
            Ok(count) => {
                sent.extend_from_slice(&chunk[..count]);
                refusals = 0;
            }
            Err(_) => {
                refusals += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(sent.len() < 4 << 20, "somebody buffers without a bound");
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend_from_slice(&in_time(stdin.read()).await.unwrap());
    }
    assert!(got == sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn pieces_through_a_pipe_keep_their_bytes(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(async {
            let (reader, mut writer) = io::pipe().unwrap();
            let mut stdin = Stdin::on(reader.into()).unwrap();
            let sent = pieces.clone();
            thread::spawn(move || sent.iter().for_each(|piece| writer.write_all(piece).unwrap()));
            read_to_end(&mut stdin).await
        });
        prop_assert!(got == pieces.concat());
    }
}
