//! Command line and end of a process, on macOS. The reading of `sysctl`'s answer is tested everywhere.
#![cfg_attr(
    target_vendor = "apple",
    expect(unsafe_code, reason = "how another process was started has no safe interface")
)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

#[cfg(target_vendor = "apple")]
pub(super) use self::system::{command, exit_descriptor};

/// The arguments in the answer to `KERN_PROCARGS2`: their number as a C int, the executable's path, NULs up to the next
/// word's boundary, the arguments, the environment, each ended by a NUL.
fn arguments(answer: &[u8]) -> Option<Vec<OsString>> {
    let (count, rest) = answer.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    let path_end = rest.iter().position(|byte| *byte == 0)?;
    let rest = rest.get(path_end..)?;
    let start = rest.iter().position(|byte| *byte != 0)?;
    let words = rest.get(start..)?.split(|byte| *byte == 0);
    Some(words.take(count).map(|word| OsString::from_vec(word.to_vec())).collect())
}

#[cfg(target_vendor = "apple")]
mod system {
    use std::ffi::OsString;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use rustix::event::kqueue::{Event, EventFilter, EventFlags, ProcessEvents, kevent, kqueue};
    use rustix::process::Pid;

    use crate::process::parent::command::Command;

    /// A kqueue, which is readable when the process has ended.
    pub(in crate::process::parent) fn exit_descriptor(id: Pid) -> Option<OwnedFd> {
        let queue = kqueue().ok()?;
        let filter = EventFilter::Proc { pid: id, flags: ProcessEvents::EXIT };
        let change = Event::new(filter, EventFlags::ADD | EventFlags::ONESHOT, std::ptr::null_mut());
        let mut events: [Event; 0] = [];
        // SAFETY: the change names a process, not a descriptor, which could be closed.
        unsafe { kevent(&queue, &[change], &mut events, None) }.ok()?;
        Some(queue)
    }

    pub(in crate::process::parent) fn command(id: Pid) -> Option<Command> {
        Some(Command { executable: executable(id), arguments: arguments(id)? })
    }

    fn executable(id: Pid) -> Option<PathBuf> {
        let mut buffer = vec![0u8; PATH_SIZE as usize];
        // SAFETY: the buffer is as long as said.
        let length = unsafe { libc::proc_pidpath(id.as_raw_pid(), buffer.as_mut_ptr().cast(), PATH_SIZE) };
        buffer.truncate(usize::try_from(length).ok().filter(|length| *length > 0)?);
        Some(PathBuf::from(OsString::from_vec(buffer)))
    }

    fn arguments(id: Pid) -> Option<Vec<OsString>> {
        let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, id.as_raw_pid()];
        let mut buffer = vec![0u8; ARGUMENTS_SIZE];
        let mut length = buffer.len();
        // SAFETY: `name` has 3 elements, and `length` is the buffer's; the call sets it to what it has filled.
        let result = unsafe {
            let (place, nothing) = (buffer.as_mut_ptr().cast(), std::ptr::null_mut());
            libc::sysctl(name.as_mut_ptr(), 3, place, &raw mut length, nothing, 0)
        };
        if result != 0 {
            return None;
        }
        crate::process::parent::macos::arguments(buffer.get(..length)?)
    }

    /// `PROC_PIDPATHINFO_MAXSIZE`.
    const PATH_SIZE: u32 = 4 * 1024;
    /// `ARG_MAX` on macOS.
    const ARGUMENTS_SIZE: usize = 1 << 20;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_behind_the_executable_s_path() {
        let mut answer = 3i32.to_ne_bytes().to_vec();
        answer.extend_from_slice(b"/usr/bin/python3\0\0\0\0python3\0/usr/bin/aws\0ssm\0HOME=/home/u\0");
        assert_eq!(arguments(&answer).unwrap(), ["python3", "/usr/bin/aws", "ssm"]);
        for cut in 0..20 {
            assert!(arguments(&answer[..cut]).is_none_or(|words| words.len() <= 3), "{cut}");
        }
        assert_eq!(arguments(&(-1i32).to_ne_bytes()), None);
    }
}
