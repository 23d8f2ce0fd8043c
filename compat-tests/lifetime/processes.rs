//! Processes as the system sees them, through `/proc`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::output::find;
use crate::harness::{World, plugin};

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    #[expect(dead_code, reason = "shown by the test that fails")]
    words: Vec<String>,
    session: u32,
    /// CPU time used so far, in ticks of 10 ms.
    ticks: u64,
}

/// Every process that was started in this world: they carry its home in their environment. Zombies have none.
pub fn of(world: &World) -> Vec<Process> {
    let mark = format!("HOME={}\0", world.home().display());
    all()
        .filter(|pid| environment(*pid).is_some_and(|env| find(&env, mark.as_bytes()).is_some()))
        .filter_map(read)
        .collect()
}

/// The plugin's processes of this world.
pub fn plugins(world: &World) -> Vec<Process> {
    of(world).into_iter().filter(Process::is_plugin).collect()
}

/// Members of a terminal session.
pub fn of_session(leader: u32) -> Vec<u32> {
    all().filter_map(read).filter(|process| process.session == leader).map(|process| process.pid).collect()
}

/// Polls until `left` answers nothing, or answers what is left after `limit`.
pub fn left_after(limit: Duration, mut left: impl FnMut() -> Vec<Process>) -> Vec<Process> {
    let deadline = Instant::now() + limit;
    loop {
        let processes = left();
        if processes.is_empty() || Instant::now() >= deadline {
            return processes;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process by its id.
pub fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Process {
        pid,
        parent: u32::try_from(field(1)?).ok()?,
        words: words
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
        session: u32::try_from(field(3)?).ok()?,
        ticks: field(11)? + field(12)?,
    })
}

impl Process {
    /// Returns whether it is the plugin, however it was named.
    pub fn is_plugin(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid));
        program.is_ok_and(|program| fs::canonicalize(plugin()).is_ok_and(|plugin| program == plugin))
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        Duration::from_secs_f64(self.ticks as f64 / TICKS_PER_SECOND)
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(Path::new("/proc")).expect("/proc");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn environment(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// `USER_HZ`, the same on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
