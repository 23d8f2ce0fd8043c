#![expect(unsafe_code, reason = "a pseudo terminal pair for the tests comes from C")]

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::*;

mod output;
mod raw;
mod stdin;

/// A new pseudo terminal: master and slave.
fn pty() -> (std::fs::File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: `openpty` fills the two descriptors, and null stands for no name, settings and size.
    let result = unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: both are new and ours alone.
    unsafe { (std::fs::File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

/// Raw mode without the guard, for tests that are not about it.
fn make_raw(slave: &OwnedFd) {
    let mut mode = tcgetattr(slave).unwrap();
    mode.make_raw();
    tcsetattr(slave, OptionalActions::Now, &mode).unwrap();
}

fn is_nonblocking(fd: impl std::os::fd::AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

fn set_nonblocking(fd: impl std::os::fd::AsFd) {
    let flags = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).unwrap();
}

/// Reads exactly `count` bytes in another thread, so that the test itself never waits forever.
fn read_in_background(mut from: impl Read + Send + 'static, count: usize) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    receiver
}

/// More than any of these tests should take.
const LONG: Duration = Duration::from_secs(20);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

#[test]
fn a_terminal_s_size() {
    use std::os::fd::AsFd;
    let (master, slave) = pty();
    assert_eq!(size::of(slave.as_fd()), None, "a new terminal says 0 by 0");
    for (cols, rows, expected) in
        [(80, 24, Some(TerminalSize { cols: 80, rows: 24 })), (80, 0, None), (0, 24, None)]
    {
        let size = Winsize { ws_col: cols, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        assert_eq!(size::of(slave.as_fd()), expected);
    }
    assert_eq!(size::of(tempfile::tempfile().unwrap().as_fd()), None);
}
