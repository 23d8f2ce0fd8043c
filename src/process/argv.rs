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
/// For the start of `main`, after the arguments have been read: [`std::env::args_os`] returns the overwritten ones from
/// then on. Only on Linux and Windows. On Linux only while the process has a single thread, and only if the place that the
/// kernel reports agrees with its copy of the arguments. Otherwise nothing happens, and the result is false.
pub(crate) fn hide_argument(position: usize) -> bool {
    #[cfg(target_os = "linux")]
    return linux::hide(position).is_some();
    #[cfg(windows)]
    return command_line::hide(position).is_some();
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = position;
        false
    }
}

/// Task managers and `wmic` read the command line from the process's own memory. What records each start of a process
/// (event 4688, Sysmon) has it before we run.
#[cfg(any(windows, test))]
mod command_line {
    use std::ops::Range;

    #[cfg(windows)]
    pub(super) fn hide(position: usize) -> Option<()> {
        crate::process::windows::with_command_line(|line| {
            let argument = nth(line, position)?;
            line.get_mut(argument)?.fill(u16::from(b'x'));
            Some(())
        })?
    }

    /// The place of the argument at `position`, quotes included, by the rules of CommandLineToArgvW: a quote opens or closes
    /// a part in which spaces do not separate, unless an odd number of backslashes stands before it. In the program's
    /// name they do not count.
    pub(super) fn nth(line: &[u16], position: usize) -> Option<Range<usize>> {
        let is_space = |unit: u16| unit == u16::from(b' ') || unit == u16::from(b'\t');
        let mut at = 0;
        for index in 0.. {
            if index > 0 {
                at += line.get(at..)?.iter().take_while(|unit| is_space(**unit)).count();
                line.get(at)?;
            }
            let (start, mut is_quoted, mut backslashes) = (at, false, 0);
            while let Some(unit) = line.get(at).filter(|unit| is_quoted || !is_space(**unit)) {
                if *unit == u16::from(b'"') && backslashes % 2 == 0 {
                    is_quoted = !is_quoted;
                }
                let counts = *unit == u16::from(b'\\') && index > 0;
                backslashes = if counts { backslashes + 1 } else { 0 };
                at += 1;
            }
            if index == position {
                return Some(start..at);
            }
        }
        None
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
        // that could read it. The terminating NUL is not touched, so that it stays a list of C strings.
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

    /// Range of the argument at `position` among arguments that each end with a NUL.
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

#[cfg(test)]
mod command_line_tests {
    use super::command_line::nth;

    fn argument(line: &str, position: usize) -> Option<String> {
        let units: Vec<u16> = line.encode_utf16().collect();
        nth(&units, position).map(|place| String::from_utf16_lossy(&units[place]))
    }

    #[test]
    fn arguments_of_a_command_line() {
        let line = r#""C:\Program Files\p.exe"  "{\"TokenValue\":\"a b\"}" us-east-1	StartSession "" end\"#;
        for (position, expected) in [
            (0, r#""C:\Program Files\p.exe""#),
            (1, r#""{\"TokenValue\":\"a b\"}""#),
            (2, "us-east-1"),
            (3, "StartSession"),
            (4, r#""""#),
            (5, r"end\"),
        ] {
            assert_eq!(argument(line, position).as_deref(), Some(expected));
        }
        assert_eq!(argument(line, 6), None);
        assert_eq!(argument("p.exe ", 1), None);
        assert_eq!(argument("", 1), None);
        // An even number of backslashes belongs to the text before the quote.
        assert_eq!(argument(r#"p "a\\" b"#, 1).as_deref(), Some(r#""a\\""#));
        assert_eq!(argument(r#""C:\p\" a"#, 1).as_deref(), Some("a"));
    }

    /// In a process of its own, since all its threads see the change.
    #[cfg(windows)]
    #[test]
    fn an_argument_is_hidden_from_other_processes() {
        const SECRET: &str = "very-secret token";
        let own = "process::argv::command_line_tests::an_argument_is_hidden_from_other_processes";
        if std::env::args().any(|argument| argument == SECRET) {
            let position = std::env::args().position(|argument| argument == SECRET).unwrap();
            assert!(crate::process::argv::hide_argument(position));
            let line: Vec<String> = std::env::args().collect();
            assert!(line[position].chars().all(|letter| letter == 'x'), "{line:?}");
            assert_eq!(line[position + 1], "StartSession");
            // Wine does not show command lines.
            if let Some(shown) = crate::process::parent::shown_command_line() {
                assert!(!shown.contains("secret") && shown.contains("StartSession"), "{shown}");
            }
            return;
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", own, SECRET, "StartSession"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
