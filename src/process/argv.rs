//! Hiding a secret argument from the process list.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "the command line that the kernel shows is memory of ours without an owner in Rust"
    )
)]

/// Overwrites the argument at `position` (0 is the program's name) where `ps` and `/proc/<pid>/cmdline` read it.
/// `aws ecs execute-command` and old AWS CLIs pass the session's token as an argument (smp#60).
///
/// For the start of `main`, after the arguments have been read: [`std::env::args_os`] gives the overwritten ones from
/// then on. Only on Linux, only while the process has a single thread, and only if the kernel's word about the place
/// agrees with its copy of the arguments; else nothing happens and the answer is false.
pub(crate) fn hide_argument(position: usize) -> bool {
    #[cfg(target_os = "linux")]
    return linux::hide(position).is_some();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = position;
        false
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ops::Range;

    pub(super) fn hide(position: usize) -> Option<()> {
        let line = std::fs::read("/proc/self/cmdline").ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let place = place(&stat)?;
        if place.len() != line.len() || !crate::process::env::is_single_threaded() {
            return None;
        }
        let argument = nth(&line, position)?;
        let start = place.start.checked_add(argument.start)?;
        // SAFETY: the kernel says that the arguments it put on the initial stack, mapped writable for the whole life
        // of the process, lie at `place`, which is as long as its copy of them; `argument` lies within. No reference
        // to that memory exists: the standard library reads it through raw pointers and copies. No other thread exists
        // that could read it meanwhile. The terminating NUL is not touched, so that it stays a list of C strings.
        unsafe {
            let pointer = std::ptr::with_exposed_provenance_mut::<u8>(start);
            std::ptr::write_bytes(pointer, b'x', argument.len());
        }
        Some(())
    }

    /// `arg_start` and `arg_end`, fields 48 and 49 of proc_pid_stat(5). The second field may hold spaces and brackets.
    pub(super) fn place(stat: &str) -> Option<Range<usize>> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace().skip(48 - 3);
        let mut next = || fields.next()?.parse::<usize>().ok();
        let (start, end) = (next()?, next()?);
        (start > 0 && start < end).then_some(start..end)
    }

    /// Where the argument at `position` lies among arguments that each end with a NUL.
    pub(super) fn nth(line: &[u8], position: usize) -> Option<Range<usize>> {
        let mut start = 0;
        for (index, argument) in line.split(|byte| *byte == 0).enumerate() {
            let end = start + argument.len();
            if index == position {
                return (end < line.len()).then_some(start..end);
            }
            start = end + 1;
        }
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::{nth, place};

    #[test]
    fn arguments_end_with_a_nul() {
        let line = b"name\0{secret}\0\0last\0";
        assert_eq!(nth(line, 0), Some(0..4));
        assert_eq!(nth(line, 1), Some(5..13));
        assert_eq!(nth(line, 2), Some(14..14));
        assert_eq!(nth(line, 3), Some(15..19));
        assert_eq!(nth(line, 4), None);
        assert_eq!(nth(b"", 0), None);
    }

    #[test]
    fn the_kernel_s_word() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let line = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(place(&stat).unwrap().len(), line.len());
        assert_eq!(place("1 (a) b) R"), None);
        assert_eq!(place(""), None);
    }
}
