//! The machine that a world runs on: a process of its own, whose clocks and randomness come from the seed.
//!
//! The standard library takes the time and the keys of its hash maps from `clock_gettime` and `getrandom`, which this test
//! binary defines (as madsim does): in a world they follow tokio's paused clock and the seed; otherwise they ask the system.
//! So neither the product nor tokio knows of the simulation. Tokio chooses the branch of a `select!` by a generator that it
//! seeds from such keys and from the number of runtimes before; a new process for each world makes that number the same.
#![expect(unsafe_code, reason = "replacing functions of the C library and forking have no safe interface")]

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

/// True from the start of a world on.
static IS_WORLD: AtomicBool = AtomicBool::new(false);
/// Nanoseconds of the monotonic clock.
static MONOTONIC: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds that the machine has slept, by which the wall clock is ahead.
static ASLEEP: AtomicU64 = AtomicU64::new(0);
/// State of the random source.
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// Start of the world by tokio's clock.
static START: OnceLock<tokio::time::Instant> = OnceLock::new();
/// When signals that may end the program were raised.
static END_SIGNALS: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

thread_local! {
    /// The clock is being read; tokio's may read it again.
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Moves the wall clock ahead of the monotonic one.
pub(super) fn sleep(time: Duration) {
    ASLEEP.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
}

/// Time since the start of the world.
pub(super) fn elapsed() -> Duration {
    START.get().map(tokio::time::Instant::elapsed).unwrap_or_default()
}

/// Raises a signal in this process.
pub(super) fn raise(signal: libc::c_int) {
    if matches!(signal, libc::SIGINT | libc::SIGTERM) {
        END_SIGNALS.lock().unwrap_or_else(PoisonError::into_inner).push(elapsed());
    }
    // SAFETY: it takes a number.
    unsafe { libc::raise(signal) };
}

/// Returns whether a second signal has ended the program just now: the user did not want to wait for the end that the first one
/// had begun.
pub(super) fn is_insisted() -> bool {
    let signals = END_SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((last, earlier)) = signals.split_last() else { return false };
    let is_last_now = elapsed().saturating_sub(*last) < JUST_NOW;
    is_last_now && earlier.iter().any(|at| (SAME_REQUEST..LONGEST_END).contains(&last.saturating_sub(*at)))
}

/// Puts pipes in place of stdin and stdout. Returns their other ends. The second one has room for all that a world prints, so
/// that the program needs no thread for it.
pub(super) fn replace_streams() -> [OwnedFd; 2] {
    let ((stdin, keyboard), (screen, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    // SAFETY: plain system calls on descriptors that are open.
    unsafe {
        libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, STDOUT_ROOM);
        libc::dup2(stdin.as_raw_fd(), 0);
        libc::dup2(stdout.as_raw_fd(), 1);
    }
    [keyboard.into(), screen.into()]
}

/// Runs `world` in a process of its own, in a runtime with a paused clock. Returns what it returns, and what the program has
/// printed on stdout and stderr.
///
/// # Errors
/// The panic or the signal that ended the process.
pub(super) fn run<F>(seed: u64, world: impl FnOnce() -> F + Send) -> Result<(String, String), String>
where
    F: Future<Output = String>,
{
    let [mut report, output] =
        [(); 2].map(|()| File::from(memfd_create("world", MemfdFlags::empty()).unwrap()));
    // SAFETY: the child calls nothing that another thread may have locked: a world's tests have a process to themselves,
    // whose other thread waits for this one.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let text = inside(seed, &output, world);
            report.write_all(text.as_bytes()).unwrap();
        }));
        // SAFETY: nothing of the child is left to be run.
        unsafe { libc::_exit(if is_well.is_ok() { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is written.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {}
    let [text, output] = [report, output].map(|mut file| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    if libc::WIFSIGNALED(status) {
        return Err(format!(
            "the process was ended by signal {} (14: it took {LIMIT} s)\n{output}",
            libc::WTERMSIG(status)
        ));
    }
    if libc::WEXITSTATUS(status) != 0 {
        return Err(format!("panicked\n{output}"));
    }
    Ok((text, output))
}

/// The child's side.
fn inside<F>(seed: u64, output: &File, world: impl FnOnce() -> F + Send) -> String
where
    F: Future<Output = String>,
{
    let (input, _kept) = std::io::pipe().unwrap();
    // SAFETY: plain system calls on descriptors that are open.
    unsafe {
        libc::alarm(LIMIT);
        libc::dup2(input.as_raw_fd(), 0);
        libc::dup2(output.as_raw_fd(), 1);
        libc::dup2(output.as_raw_fd(), 2);
    }
    RANDOM.store(seed, Ordering::Relaxed);
    MONOTONIC.store(1_000_000_000_000, Ordering::Relaxed);
    IS_WORLD.store(true, Ordering::Relaxed);
    // A new thread has new keys for its hash maps.
    let thread = std::thread::Builder::new().stack_size(8 << 20);
    let running = move || {
        fastrand::seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            START.set(tokio::time::Instant::now()).unwrap();
            world().await
        })
    };
    let text = std::thread::scope(|scope| thread.spawn_scoped(scope, running).unwrap().join());
    text.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Replaces the C library's. See the module.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if !IS_WORLD.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    }
    if !IS_READING.replace(true) {
        if let Some(start) = START.get() {
            let passed = tokio::time::Instant::now().saturating_duration_since(*start);
            MONOTONIC.fetch_max(1_000_000_000_000 + passed.as_nanos() as u64, Ordering::Relaxed);
        }
        IS_READING.set(false);
    }
    let mut nanos = MONOTONIC.load(Ordering::Relaxed);
    if clock == libc::CLOCK_REALTIME {
        nanos += ASLEEP.load(Ordering::Relaxed) + EPOCH * 1_000_000_000;
    }
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    // SAFETY: the caller passes a place for it.
    unsafe { time.write(libc::timespec { tv_sec: seconds as i64, tv_nsec: rest as i64 }) };
    0
}

/// Replaces the C library's. See the module.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: usize, flags: libc::c_uint) -> isize {
    if !IS_WORLD.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as isize;
    }
    // SAFETY: the caller passes so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        let mut word = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
    }
    length as isize
}

/// Seconds of real time that one world may take. The slowest take eight on a busy machine.
const LIMIT: u32 = 60;
/// Time in which the program ends after a second signal.
const JUST_NOW: Duration = Duration::from_millis(50);
/// Time in which a second signal is a copy of the first, for the program.
const SAME_REQUEST: Duration = Duration::from_millis(500);
/// Time after a signal in which the program waits for its sessions.
const LONGEST_END: Duration = Duration::from_secs(2);
/// Bytes in the pipe that is stdout.
const STDOUT_ROOM: libc::c_int = 1 << 20;
/// The wall clock at the start, less the monotonic one: in 2026.
const EPOCH: u64 = 1_790_000_000;
