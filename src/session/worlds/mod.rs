//! A thousand worlds: the whole session layer under one seed each, in virtual time.
//!
//! A [`World`] draws the kind of session (ports, a shell, encrypted or not, an SSH connection, a command), clients,
//! destinations, the agent, the link, the service and the user from its seed. The program runs from [`super::run`] on,
//! against the simulator's service and agent in the same process: real links over websockets in memory, real channels and
//! smux, the real SOCKS handshake; pipes in place of stdin and stdout. In every world
//!
//! - each byte that arrives at a client or a destination is the next one of what was sent;
//! - a connection that ends without an error was complete; in a gentle world each client of a good destination gets all;
//! - each client ends, and so does the program; a session on standard streams ends with them, a command with its exit code;
//! - no client waits longer for a session than the program promises, and on a link that loses nothing for longer than its
//!   bytes and its turns take: a small connection does not starve beside a large one;
//! - the buffers stay within their bounds, which the code under test asserts itself in builds like this one;
//! - each session that was started has been ended at the service unless the user insisted on an end without that, and its
//!   limit of messages was kept;
//! - on a calm link hardly a message comes twice, and none for a destination that takes what comes;
//! - no task is left;
//! - a second run of the seed gives the same events.
//!
//! `scripts/worlds` runs as many as are asked for; `scripts/fuzz` has bytes choose them.

mod cloud;
mod descriptors;
mod draw;
mod found;
mod fuzz;
mod local;
mod log;
mod machine;
mod remote;
mod run;
mod user;
mod wire;
mod world;

use std::process::{Child, Command, Stdio};

use self::world::World;

/// Without the variable: starts a process of its own for each share of the seeds, and reads what they found. With it:
/// runs one share.
#[test]
fn the_rules_hold_in_every_world() {
    if let Ok(share) = std::env::var(SHARE) {
        return run_share(&share);
    }
    let (first, count) = (number("WORLDS_FIRST").unwrap_or(0), number("WORLDS").unwrap_or(WORLDS));
    let begin = std::time::Instant::now();
    let shares = std::thread::available_parallelism().map_or(1, |count| count.get() as u64).min(count);
    let workers: Vec<_> = (0..shares)
        .map(|index| worker(TEST, format!("{} {} {shares}", first + index, first + count)))
        .collect();
    let mut found = String::new();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        if !output.status.success() {
            found += &String::from_utf8_lossy(&output.stdout);
        }
    }
    println!("{count} worlds from {first} on, {:.1} s", begin.elapsed().as_secs_f64());
    assert!(found.is_empty(), "{found}");
}

/// With a fuzzer's socket in the variable: runs the worlds that it sends. Otherwise a few.
#[test]
fn the_rules_hold_in_the_worlds_of_a_fuzzer() {
    const NAME: &str = "session::worlds::the_rules_hold_in_the_worlds_of_a_fuzzer";
    if let Ok(path) = std::env::var("WORLDS_SOCKET") {
        fuzz::serve(&path, events_of).unwrap();
    } else if std::env::var_os(SHARE).is_some() {
        for world in fuzz::some() {
            if let Err(fault) = events_of(&world) {
                panic!("{world}{fault}");
            }
        }
    } else {
        let output = worker(NAME, String::new()).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The number in an environment variable.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Starts this test binary again, for one test, which then runs worlds itself: it forks, so it must be alone.
fn worker(test: &str, share: String) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(SHARE, share)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs one world in the test `name` of `found`.
#[track_caller]
fn assert_rules(name: &str, world: &World) {
    if std::env::var_os(SHARE).is_none() {
        let output = worker(&format!("session::worlds::found::{name}"), String::new());
        let output = output.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    } else if let Err(fault) = try_world(world) {
        panic!("{world}{fault}");
    }
}

/// Runs the seeds from the first to the last, in steps.
fn run_share(share: &str) {
    let numbers: Vec<u64> = share.split(' ').map(|number| number.parse().unwrap()).collect();
    let [first, end, step] = numbers[..] else { panic!("{share}") };
    let mut faults = 0;
    let text = std::env::var("WORLDS_WITH").unwrap_or_default();
    for seed in (first..end).step_by(step as usize) {
        let world = World::draw(seed);
        if !world.to_string().contains(&text) {
            continue;
        }
        let verdict = try_world(&world);
        let repeats = seed % REPEATED != 0 || try_world(&world) == verdict;
        if !repeats {
            println!("{world}  two runs differ");
            faults += 1;
        }
        if let Err(fault) = &verdict {
            let (world, fault) = smallest(world, fault.clone());
            println!("{world}{fault}\n");
            faults += 1;
        }
        if faults >= MOST_FAULTS {
            break;
        }
    }
    assert_eq!(faults, 0);
}

/// Runs a world. Returns its last events, with what the program has printed.
///
/// # Errors
/// The same with the faults.
fn events_of(world: &World) -> Result<String, String> {
    let (report, output) = machine::run(world.seed, || run::run(world.clone()))?;
    let text = format!("{report}\n{output}");
    if report.lines().any(|line| line.starts_with("fault: ")) { Err(text) } else { Ok(text) }
}

/// Runs a world. Returns the digest of its events.
///
/// # Errors
/// As [`events_of`].
fn try_world(world: &World) -> Result<String, String> {
    let text = events_of(world)?;
    let (digest, output) = text.split_once('\n').unwrap_or_default();
    let printed = output.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Ok(format!("{digest} {printed:016x}"))
}

/// The smallest world with a fault that is found by leaving things out.
fn smallest(mut world: World, mut fault: String) -> (World, String) {
    let most_tries = number("WORLDS_TRIES").unwrap_or(MOST_TRIES);
    let mut tries = 0;
    'smaller: loop {
        for less in world.smaller() {
            tries += 1;
            if tries > most_tries {
                return (world, fault);
            }
            if let Err(its) = try_world(&less) {
                (world, fault) = (less, its);
                continue 'smaller;
            }
        }
        return (world, fault);
    }
}

const TEST: &str = "session::worlds::the_rules_hold_in_every_world";
/// The first seed, the end of the seeds and the step between them, for one process.
const SHARE: &str = "WORLDS_SHARE";
/// Seeds that a test run tries.
const WORLDS: u64 = 500;
/// One of so many worlds is run twice.
const REPEATED: u64 = 10;
const MOST_FAULTS: u32 = 8;
/// Attempts to make a failing world smaller; `WORLDS_TRIES` is another number.
const MOST_TRIES: u64 = 60;
