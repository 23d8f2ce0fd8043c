//! The plugin under attack, and the memory that it holds.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{connect, opened_port};
use crate::harness::output::Output;
use crate::harness::retry::uninterrupted;
use crate::harness::wire;

/// The session that the peer announces before it attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Shell,
    /// A port of an agent that forwards one connection at a time.
    Basic,
    Multiplexed,
}

/// The end of the plugin that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    Stdout,
    Stderr,
    /// Stdout and stderr.
    Both,
    /// A local client of the port.
    Client,
}

/// The plugin under attack.
pub(super) struct Victim {
    pub(super) child: Child,
    stdout: Option<Output>,
    unread: (Option<ChildStdout>, Option<ChildStderr>),
    /// The most memory that was seen, in KiB.
    peak: Cell<usize>,
    _world: World,
}

impl Victim {
    pub(super) fn start(world: World, gateway: &Gateway, unread: Unread) -> Victim {
        Victim::start_session(world, &Started::of(gateway), unread)
    }

    pub(super) fn start_session(world: World, started: &Started, unread: Unread) -> Victim {
        let mut command = started.command(&world);
        Victim::run(world, &mut command, unread)
    }

    pub(super) fn run(world: World, command: &mut Command, unread: Unread) -> Victim {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let has_stderr = matches!(unread, Unread::Stderr | Unread::Both);
        command.stderr(if has_stderr { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().expect("start the plugin");
        let stdout = child.stdout.take().expect("stdout");
        let (output, pipe) = match unread {
            Unread::Stdout | Unread::Both => (None, Some(stdout)),
            _ => (Some(Output::read(stdout)), None),
        };
        let stderr = child.stderr.take();
        Victim { child, stdout: output, unread: (pipe, stderr), peak: Cell::default(), _world: world }
    }

    pub(super) fn stdout(&self) -> &Output {
        self.stdout.as_ref().expect("stdout is read")
    }

    /// The local port, from an stdout that is not read beyond it.
    pub(super) fn port_of_unread_stdout(&mut self) -> u16 {
        let stdout = self.unread.0.as_mut().expect("stdout");
        let mut text = String::new();
        while !text.ends_with(" opened for sessionId") {
            let mut byte = [0];
            uninterrupted(|| stdout.read(&mut byte)).expect("read");
            text.push(char::from(byte[0]));
        }
        let number = text.trim_end_matches(" opened for sessionId").rsplit(' ').next().expect("a number");
        number.parse().expect("a port")
    }

    /// The SOCKS port, from an stderr that is read no further.
    pub(super) fn port_of_unread_stderr(&mut self) -> u16 {
        let stderr = self.unread.1.as_mut().expect("stderr");
        let mut text = String::new();
        while !(text.contains("SOCKS and HTTP proxy on ") && text.ends_with('\n')) {
            let mut byte = [0];
            uninterrupted(|| stderr.read(&mut byte)).expect("read");
            text.push(char::from(byte[0]));
        }
        text.trim_end().rsplit(':').next().expect("a number").parse().expect("a port")
    }

    /// Begins to read both streams.
    pub(super) fn take_unread(&mut self) -> (Output, Output) {
        let stdout = self.unread.0.take().expect("stdout");
        (Output::read(stdout), Output::read(self.unread.1.take().expect("stderr")))
    }

    /// A local client that sends once and never reads.
    pub(super) fn client(&self) -> TcpStream {
        let mut client = connect(opened_port(self.stdout()));
        client.write_all(b"hello").expect("write");
        client
    }

    /// Returns whether it waits: with something to read it would be running, or waiting for a processor.
    fn is_asleep(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('R'))
    }

    /// The most memory it ever had, in KiB; `None` where the system does not report it, or when it has ended.
    pub(super) fn peak_memory(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
        self.peak.set(peak);
        Some(peak)
    }

    /// Fails when the process was killed or has panicked, or has held `below` MiB or more. Ending a session is within a
    /// peer's rights.
    pub(super) fn check_memory(&mut self, name: &str, below: usize) -> Result<(), String> {
        if cfg!(not(target_os = "linux")) {
            return Ok(());
        }
        if self.peak_memory().is_none() {
            let status = self.child.wait().expect("the plugin's end");
            if status.code().is_none_or(|code| code == PANICKED) {
                return Err(format!("{name}: the plugin has ended with {status}"));
            }
        }
        let peak = self.peak.get() >> 10;
        println!("{name}: {peak} MiB, {below} allowed");
        if peak > 0 && peak < below {
            Ok(())
        } else {
            Err(format!("{name}: {peak} MiB, not less than {below}"))
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
pub(super) struct Progress {
    pub(super) bursts: AtomicUsize,
    pub(super) is_done: AtomicBool,
    /// Number of times that the memory was read.
    samples: AtomicUsize,
}

impl Progress {
    /// Waits until the memory has been read again, for a second at most.
    pub(super) fn await_sample(&self) {
        let (before, since) = (self.samples.load(Ordering::SeqCst), Instant::now());
        while self.samples.load(Ordering::SeqCst) == before && since.elapsed() < SAMPLED {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the attack is over, or stands still because the plugin reads no more, and its memory with it.
    #[track_caller]
    pub(super) fn await_end(&self, victim: &Victim) {
        self.await_end_or(victim, || false);
    }

    /// The same, or until something else has happened.
    #[track_caller]
    pub(super) fn await_end_or(&self, victim: &Victim, has_happened: impl Fn() -> bool) {
        let (mut before, mut since) = ((0, None), Instant::now());
        let deadline = Instant::now() + ATTACK;
        loop {
            let now = (self.bursts.load(Ordering::SeqCst), victim.peak_memory());
            self.samples.fetch_add(1, Ordering::SeqCst);
            if now != before || !victim.is_asleep() {
                (before, since) = (now, Instant::now());
            }
            let quiet = if self.is_done.load(Ordering::SeqCst) { SETTLED } else { STANDSTILL };
            if has_happened() || (now.0 > 0 && since.elapsed() > quiet) {
                return;
            }
            assert!(Instant::now() < deadline, "the attack lasts longer than {ATTACK:?}: {now:?}");
            // A command that is refused its answer ends within 50 ms of its start.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(super) fn announce(socket: &mut Socket, session: Session) {
    match session {
        Session::Shell => {
            let number = socket.data(wire::PAYLOAD_OUTPUT, "$ ");
            socket.acknowledged(number);
        }
        Session::Basic => socket.port_session("3.0.100.0"),
        Session::Multiplexed => socket.port_session("3.3.1000.0"),
    }
}

/// Fails with all that has failed.
#[track_caller]
pub(super) fn assert_all(results: impl IntoIterator<Item = Result<(), String>>) {
    let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Status of a program whose main thread has panicked.
const PANICKED: i32 = 101;
/// Time limit of an attack.
const ATTACK: Duration = Duration::from_secs(120);
/// Time limit of the wait for a sample of the memory.
const SAMPLED: Duration = Duration::from_secs(1);
/// Quiet time after which the plugin has stopped reading.
const STANDSTILL: Duration = Duration::from_secs(3);
/// Quiet time after which everything sent has been read.
const SETTLED: Duration = Duration::from_secs(1);
