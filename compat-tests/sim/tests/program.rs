//! `ssm-sim` as a program: how it says where it is, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Program {
    fn start(args: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ssm-sim"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let port = line.trim_end().strip_prefix("LISTENING http://127.0.0.1:").expect("the address");
        let port = port.parse().expect("a port");
        Program { child, stdout, port }
    }

    fn sessions(&self) -> String {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        tcp.write_all(b"GET /sim/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writes");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("reads");
        answer
    }

    /// Waits for a good end, with nothing more on stdout.
    fn ends_well(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("reads");
        assert_eq!(rest, "");
        assert!(TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ends_with_its_stdin() {
    let mut program = Program::start(&["--exit-with-stdin"]);
    assert!(program.sessions().ends_with("[]"));
    drop(program.child.stdin.take());
    program.ends_well();
}

#[cfg(unix)]
#[test]
fn ends_on_signals() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut program = Program::start(&["--agent", "2.3", "--message-limit", "off"]);
        let pid = rustix::process::Pid::from_child(&program.child);
        rustix::process::kill_process(pid, signal).expect("signals");
        program.ends_well();
    }
}

#[test]
fn ends_when_idle() {
    let mut program = Program::start(&["--idle-exit", "1"]);
    program.ends_well();
}
