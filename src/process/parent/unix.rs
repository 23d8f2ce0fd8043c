//! The parent on UNIX: its number, and a descriptor that becomes readable at its end.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, getpid, getppid};
use tokio::io::unix::AsyncFd;

use super::command::Command;
use super::system;
use crate::process::{group, group_of, watch_readable};

/// A process that is or was our parent.
#[derive(Debug)]
pub(super) struct Process {
    id: Pid,
    end: End,
}

/// Means of noticing its end.
#[derive(Debug)]
enum End {
    /// A descriptor, not yet with the runtime, which does not exist when the parent is looked at.
    Descriptor(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
    /// The kernel is too old, or a sandbox does not allow it.
    Polled,
}

impl Process {
    /// The parent now; `None` when it is in another PID namespace (`docker exec`, `unshare --pid`).
    pub(super) fn parent() -> Option<Process> {
        let id = getppid()?;
        Some(Process { id, end: system::exit_descriptor(id).map_or(End::Polled, End::Descriptor) })
    }

    /// Returns its command line; `None` if it is gone or hidden.
    pub(super) fn command(&self) -> Option<Command> {
        system::command(self.id)
    }

    /// Returns whether it is still our parent.
    pub(super) fn is_parent(&self) -> bool {
        getppid() == Some(self.id)
    }

    /// Returns whether it is in another process group than the one we were born into: a child is born into its
    /// parent's.
    pub(super) fn may_have_adopted_us(&self) -> bool {
        let ours = group();
        ours != getpid().as_raw_pid() && group_of(self.id) != Some(ours)
    }

    /// Resolves when it has died. Cancel-safe.
    pub(super) async fn exit(&mut self) {
        if let End::Descriptor(_) = self.end
            && let End::Descriptor(descriptor) = std::mem::replace(&mut self.end, End::Polled)
            && let Ok(watched) = watch_readable(descriptor)
        {
            self.end = End::Watched(watched);
        }
        if let End::Watched(descriptor) = &self.end
            && descriptor.readable().await.is_ok()
        {
            return;
        }
        while self.is_parent() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Interval of polling where there is no descriptor.
const POLL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any of these should take.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = Pid::from_child(&child);
        let descriptor = system::exit_descriptor(id).expect("this system has one");
        let mut process = Process { id, end: End::Descriptor(descriptor) };
        let early = tokio::time::timeout(Duration::from_millis(50), process.exit()).await;
        assert!(early.is_err(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        tokio::time::timeout(LONG, process.exit()).await.expect("in time");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_descriptor_the_parent_is_looked_for() {
        let id = getppid().expect("a parent");
        let mut parent = Process { id, end: End::Polled };
        assert!(tokio::time::timeout(LONG, parent.exit()).await.is_err(), "it lives");
        let mut stranger = Process { id: getpid(), end: End::Polled };
        tokio::time::timeout(LONG, stranger.exit()).await.expect("no parent of ours");
    }

    /// Found with a caller that was killed while we looked: what it had been could not be seen any more, and it was taken
    /// for another program.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_is_exiting_has_no_command() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = Pid::from_child(&child);
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + LONG;
        while !system::command(id).expect("it is not waited for").is_blank() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!system::command(getpid()).expect("this process").is_blank());
    }

    #[test]
    fn how_a_process_was_started() {
        let command = system::command(getpid()).expect("this process");
        assert_eq!(command.executable, std::env::current_exe().ok());
        assert_eq!(command.arguments, std::env::args_os().collect::<Vec<_>>());
        assert!(!command.is_aws_cli());
    }
}
