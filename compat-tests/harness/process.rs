//! Child processes on pipes, each leading a process group that is killed with its guard.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
pub use super::group::{Pid, Signal};
use super::group::{describe_end, kill_group, lead_group, signal_group, signal_process};
use super::output::Output;

/// Returns whether the plugin under test is a program for Windows, which `scripts/windows` runs under wine.
pub fn is_for_windows() -> bool {
    cfg!(windows) || std::env::var_os("WINDOWS_RUNNER").is_some()
}

/// Returns whether the plugin under test has the signal SIGUSR1, which Windows lacks.
pub fn has_usr1() -> bool {
    !is_for_windows()
}

/// Words of the system under the plugin for a port that is in use.
pub fn port_in_use() -> &'static str {
    if is_for_windows() {
        "Only one usage of each socket address (protocol/network address/port) is normally permitted."
    } else {
        "address already in use"
    }
}

/// A running child. Dropping it kills its whole process group.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its stdout.
    pub stdout: Output,
    /// Its stderr.
    pub stderr: Output,
    ended: bool,
}

/// A child that has ended.
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

/// A child that has ended, or was still running and has been killed.
pub struct Outcome {
    /// Exit status; `None` while it runs.
    pub status: Option<ExitStatus>,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Finished {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless the status is 0 and nothing says that a thread panicked.
    #[track_caller]
    pub fn assert_ok(&self) -> &Finished {
        let (text, errors) = (self.text(), self.errors());
        assert!(self.status.success(), "{}\nstdout: {text}\nstderr: {errors}", self.status);
        assert!(!errors.contains("panicked at"), "a panic:\n{errors}");
        self
    }
}

impl Running {
    /// Starts `command` with all three streams on pipes.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Running {
        command.stdin(Stdio::piped());
        Running::start(command)
    }

    /// Starts `command` with an empty stdin.
    #[track_caller]
    pub fn spawn_without_stdin(command: &mut Command) -> Running {
        command.stdin(Stdio::null());
        Running::start(command)
    }

    #[track_caller]
    fn start(command: &mut Command) -> Running {
        lead_group(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        let stdout = Output::read(child.stdout.take().expect("piped stdout"));
        let stderr = Output::read(child.stderr.take().expect("piped stderr"));
        let stdin = child.stdin.take();
        Running { child, stdin, stdout, stderr, ended: false }
    }

    /// Writes to its stdin.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes.as_ref()).expect("write to stdin");
        stdin.flush().expect("flush stdin");
    }

    /// Closes its stdin: end of file.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Takes its stdin, for a thread that feeds it.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is open")
    }

    /// Sends a signal to its whole process group, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        signal_group(self.pid(), signal);
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Waits for its end within [`PATIENCE`].
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// Waits for its end, or kills it after `limit`.
    pub fn finish_or_give_up(mut self, limit: Duration) -> Outcome {
        let status = self.wait_within(limit);
        if status.is_none() {
            kill_group(self.pid());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.ended = true;
        kill_group(self.pid());
        Outcome { status, stdout: self.stdout.wait_closed(), stderr: self.stderr.wait_closed() }
    }

    /// Waits for its end and the end of both streams.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let Some(status) = self.wait_within(limit) else {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            panic!("still running after {limit:?}\nstdout: {stdout}\nstderr: {stderr}");
        };
        self.ended = true;
        // What it left behind would keep the pipes open.
        kill_group(self.pid());
        Finished { status, stdout: self.stdout.wait_closed(), stderr: self.stderr.wait_closed() }
    }

    fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("try_wait") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The child's process id.
    pub fn pid(&self) -> Pid {
        super::group::pid(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            kill_group(self.pid());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end without a stdin.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    Running::spawn_without_stdin(command).finish()
}

/// Runs `command` with `input` as its whole stdin.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Finished {
    let mut running = Running::spawn(command);
    let mut stdin = running.take_stdin();
    let input = input.to_vec();
    // A reader that ends early breaks the pipe: its output then tells the test.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let finished = running.finish();
    let _ = feeder.join();
    finished
}

/// A status as one word: `exit 0` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit {code}"),
        None => describe_end(status),
    }
}
