//! Programs of sessions: what they are started with, and ending them together with what they have started.

use std::ffi::OsString;

#[cfg(unix)]
pub(super) use self::unix::{kill_group, kill_session, signal};
#[cfg(not(unix))]
pub(super) use self::windows::{kill_group, signal};

/// The environment of a session's program: what a real agent's shells have, which a service manager has started. The
/// simulator itself is started by tests and people, whose environment holds credentials and settings.
pub(super) fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let own = OWN.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    // The agent sets both (agent source, `StartCommandExecutor`), the second unless there is one.
    let language = std::env::var_os("LANG").filter(|value| !value.is_empty());
    own.chain([("TERM", "xterm-256color".into()), ("LANG", language.unwrap_or_else(|| "C.UTF-8".into()))])
}

/// Variables that name the user and the home. (The agent gives its shells the home of their own user.)
const OWN: [&str; 6] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"];

/// Effect of a control character on a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interrupt {
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-\.
    Quit,
}

#[cfg(unix)]
mod unix {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};

    use crate::agent::process::Interrupt;

    /// Kills a program's process group.
    pub(in super::super) fn kill_group(pid: u32) {
        if let Some(pid) = to_pid(pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Kills all processes of the session that the program leads: a shell with its jobs, each a group of its own.
    pub(in super::super) fn kill_session(leader: u32) {
        kill_group(leader);
        for pid in members(leader).into_iter().filter_map(to_pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Sends a signal to one process.
    pub(in super::super) fn signal(pid: u32, interrupt: Interrupt) -> bool {
        let signal = match interrupt {
            Interrupt::Interrupt => Signal::INT,
            Interrupt::Quit => Signal::QUIT,
        };
        to_pid(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    fn to_pid(pid: u32) -> Option<Pid> {
        i32::try_from(pid).ok().and_then(Pid::from_raw)
    }

    /// The processes of a session; none where there is no `/proc`.
    fn members(leader: u32) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| session_of(*pid) == Some(leader)).collect()
    }

    fn session_of(pid: u32) -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; after it come state, parent, group and session.
        stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
    }
}

/// The runtime kills the program itself; what it has started stays, and signals there are none.
#[cfg(not(unix))]
mod windows {
    use crate::agent::process::Interrupt;

    pub(in super::super) fn kill_group(_pid: u32) {}

    pub(in super::super) fn signal(_pid: u32, _interrupt: Interrupt) -> bool {
        false
    }
}
