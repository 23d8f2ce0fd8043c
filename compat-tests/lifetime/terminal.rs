//! A terminal that outlives what runs on it, so that the modes left behind can be compared.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use portable_pty::{Child, ExitStatus, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::harness::output::Output;
use crate::harness::pty::builder;
use crate::lifetime::processes;

/// A program that leads a session on a pty. The other end stays open until this is dropped: the kernel resets the
/// modes of a pty that is not open.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    _slave: Box<dyn SlavePty + Send>,
    child: Box<dyn Child + Send + Sync>,
    before: String,
    /// Output on it.
    pub screen: Output,
    ended: bool,
}

impl Terminal {
    /// Starts `command` on a terminal of 80 columns and 24 rows.
    #[track_caller]
    pub fn spawn(command: &Command) -> Terminal {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pty");
        let before = modes(&*pair.master);
        let child = pair.slave.spawn_command(builder(command)).expect("start on a pty");
        let screen = Output::read(pair.master.try_clone_reader().expect("pty reader"));
        let writer = pair.master.take_writer().expect("pty writer");
        Terminal { master: pair.master, writer, _slave: pair.slave, child, before, screen, ended: false }
    }

    /// Types.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).expect("type");
        self.writer.flush().expect("type");
    }

    /// Takes the keyboard, for a thread that types.
    pub fn keyboard(&mut self) -> Box<dyn Write + Send> {
        std::mem::replace(&mut self.writer, Box::new(std::io::sink()))
    }

    /// Waits for `text` on the screen, after the last match.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.screen.wait_for(text)
    }

    /// The device's name.
    pub fn name(&self) -> String {
        self.master.tty_name().expect("a name").display().to_string()
    }

    /// The program's process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.process_id().expect("a process")
    }

    /// Sends a signal to the program alone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(to_pid(self.pid()), signal).expect("signal the program");
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn finish_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("try_wait") {
                self.ended = true;
                return status;
            }
            if Instant::now() >= deadline {
                panic!("still running after {limit:?}; the screen:\n{}", self.screen.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every mode and special character as they are now.
    pub fn modes(&self) -> String {
        modes(&*self.master)
    }

    /// Returns whether the modes differ from those before the start.
    pub fn is_changed(&self) -> bool {
        self.modes() != self.before
    }

    /// The modes are those from before the start.
    #[track_caller]
    pub fn assert_restored(&self) {
        assert_eq!(self.modes(), self.before, "the screen:\n{}", self.screen.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(pid) = self.child.process_id() {
            for member in processes::of_session(pid) {
                let _ = kill_process(to_pid(member), Signal::KILL);
            }
            let _ = kill_process_group(to_pid(pid), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every mode and special character. The same on both ends of a pty.
fn modes(master: &(dyn MasterPty + Send)) -> String {
    format!("{:?}", master.get_termios().expect("a terminal has modes"))
}

pub fn to_pid(pid: u32) -> Pid {
    pid.try_into().ok().and_then(Pid::from_raw).expect("a process id")
}
