//! Groups of processes, which end with a test, and signals to them.

#[cfg(unix)]
pub use self::unix::{Pid, Signal, describe_end, kill_group, lead_group, pid, signal_group, signal_process};
#[cfg(windows)]
pub use self::windows::{
    Pid, Signal, describe_end, kill_group, lead_group, pid, signal_group, signal_process,
};

#[cfg(unix)]
mod unix {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, ExitStatus};

    pub use rustix::process::{Pid, Signal};
    use rustix::process::{kill_process, kill_process_group};

    /// The child will lead a group of its own.
    pub fn lead_group(command: &mut Command) {
        command.process_group(0);
    }

    /// The child's process id.
    pub fn pid(child: &Child) -> Pid {
        Pid::from_child(child)
    }

    /// Sends a signal to a whole group, as a terminal does.
    pub fn signal_group(pid: Pid, signal: Signal) {
        kill_process_group(pid, signal).expect("signal the group");
    }

    /// Sends a signal to one process.
    pub fn signal_process(pid: Pid, signal: Signal) {
        kill_process(pid, signal).expect("signal the child");
    }

    /// Kills what is left of a group.
    pub fn kill_group(pid: Pid) {
        let _ = kill_process_group(pid, Signal::KILL);
    }

    /// Description of the end of a process that did not exit.
    pub fn describe_end(status: ExitStatus) -> String {
        format!("signal {}", status.signal().unwrap_or_default())
    }
}

/// Windows has no signals: Ctrl-Break stands for those that end a process, as its users have it.
#[cfg(windows)]
mod windows {
    #![expect(unsafe_code, reason = "the system's calls are C")]

    use std::os::windows::process::CommandExt;
    use std::process::{Child, Command, ExitStatus};

    use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
    use windows_sys::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;

    /// A process id.
    pub type Pid = u32;

    /// Signals that the tests send.
    #[expect(clippy::upper_case_acronyms, reason = "the names that UNIX's have")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Signal {
        /// Ctrl-Break.
        INT,
        /// Ctrl-Break, too.
        QUIT,
        /// Ctrl-Break, too.
        TSTP,
        /// Ctrl-Break, too.
        TERM,
        /// The process is ended at once.
        KILL,
    }

    /// The child will lead a group of its own.
    pub fn lead_group(command: &mut Command) {
        command.creation_flags(CREATE_NEW_PROCESS_GROUP);
    }

    /// The child's process id.
    pub fn pid(child: &Child) -> Pid {
        child.id()
    }

    /// Sends an event to a whole group.
    pub fn signal_group(pid: Pid, signal: Signal) {
        signal_process(pid, signal);
    }

    /// Sends an event to the group that a process leads, or ends the process.
    pub fn signal_process(pid: Pid, signal: Signal) {
        if signal == Signal::KILL {
            let killed = Command::new("taskkill").args(["/F", "/PID", &pid.to_string()]).output();
            assert!(killed.expect("taskkill").status.success(), "{pid} is not killed");
            return;
        }
        // SAFETY: takes no pointers.
        let sent = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, pid) } != 0;
        assert!(sent, "Ctrl-Break: {}", std::io::Error::last_os_error());
    }

    /// The child alone is killed, by its guard.
    pub fn kill_group(_pid: Pid) {}

    /// There is always a code.
    pub fn describe_end(status: ExitStatus) -> String {
        status.to_string()
    }
}
