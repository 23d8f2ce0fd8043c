//! Whole sessions in virtual time (`src/session/worlds`), with all of their rules: the bytes choose the world. They are run by
//! the test binary in `WORLDS_SERVER`, so what counts as coverage is the kinds of events that a world has had.
#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};

/// Counters that libFuzzer reads, and clears before each run.
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static KINDS: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];

static SERVER: OnceLock<Mutex<UnixStream>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut server = SERVER.get_or_init(|| Mutex::new(start())).lock().expect("one thread");
    let (has_fault, text) = run(&mut server, data).expect("the server has ended");
    assert!(!has_fault, "{text}");
    for line in text.lines() {
        let kind: String = line.chars().filter(|character| !character.is_ascii_digit()).collect();
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        KINDS[hasher.finish() as usize % KINDS.len()].fetch_add(1, Ordering::Relaxed);
    }
});

/// Starts the server, which ends when its connection does.
fn start() -> UnixStream {
    let path = std::env::temp_dir().join(format!("worlds-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    Command::new(std::env::var_os("WORLDS_SERVER").expect("WORLDS_SERVER: see scripts/fuzz"))
        .args(["session::worlds::the_rules_hold_in_the_worlds_of_a_fuzzer", "--exact", "--test-threads=1"])
        .env("WORLDS_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the server");
    let (stream, _) = listener.accept().expect("its connection");
    let _ = std::fs::remove_file(&path);
    stream
}

/// Returns whether the world of `data` has a fault, and its events.
fn run(server: &mut UnixStream, data: &[u8]) -> std::io::Result<(bool, String)> {
    server.write_all(&(data.len() as u32).to_le_bytes())?;
    server.write_all(data)?;
    let mut head = [0; 5];
    server.read_exact(&mut head)?;
    let mut text = vec![0; u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize];
    server.read_exact(&mut text)?;
    Ok((head[0] != 0, String::from_utf8_lossy(&text).into_owned()))
}
