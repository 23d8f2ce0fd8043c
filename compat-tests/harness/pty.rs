//! A program on a terminal of its own.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process_group};

use super::PATIENCE;
use super::output::Output;

/// A program on a pty. Dropping it kills the program's session.
pub struct Pty {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    /// Output on the terminal.
    pub screen: Output,
    ended: bool,
}

impl Pty {
    /// Starts `command` on a terminal of 80 columns and 24 rows.
    #[track_caller]
    pub fn spawn(command: &Command) -> Pty {
        let pair = native_pty_system().openpty(size(80, 24)).expect("a pty");
        let child = pair.slave.spawn_command(builder(command)).expect("start on a pty");
        drop(pair.slave);
        let screen = Output::read(pair.master.try_clone_reader().expect("pty reader"));
        let writer = pair.master.take_writer().expect("pty writer");
        Pty { master: pair.master, writer, child, screen, ended: false }
    }

    /// Types.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).expect("type");
        self.writer.flush().expect("type");
    }

    /// Changes the window's size, with the signal that goes with it.
    pub fn resize(&self, cols: u16, rows: u16) {
        self.master.resize(size(cols, rows)).expect("resize");
    }

    /// Waits for `text` on the screen, after the last match.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.screen.wait_for(text)
    }

    /// Waits for the program's end within [`PATIENCE`].
    #[track_caller]
    pub fn finish(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("try_wait") {
                self.ended = true;
                return status;
            }
            assert!(Instant::now() < deadline, "still running; the screen:\n{}", self.screen.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let pid = self.child.process_id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `command` for a pty: its words, directory and environment, and nothing of ours.
pub fn builder(command: &Command) -> CommandBuilder {
    let mut builder = CommandBuilder::new(command.get_program());
    builder.args(command.get_args());
    builder.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            builder.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        builder.cwd(dir);
    }
    builder
}

fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}
