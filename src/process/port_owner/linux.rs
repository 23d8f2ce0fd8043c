//! The owner of a listener, by `/proc/net/tcp` and the descriptors below `/proc/<pid>/fd` (man 5 proc).

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub(super) fn port_owner(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let has_one =
            fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().any(|descriptor| {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                sockets.iter().any(|socket| target.as_os_str() == OsStr::new(socket))
            });
        if has_one {
            return Some(format!("{} (process {id})", name_of(&process.path())));
        }
    }
    None
}

/// The name of the process with this folder in `/proc`.
fn name_of(process: &Path) -> String {
    let comm = fs::read(process.join("comm")).unwrap_or_default();
    let program = fs::read_link(process.join("exe")).unwrap_or_default();
    let mut arguments = Vec::new();
    if let Ok(file) = fs::File::open(process.join("cmdline")) {
        // What cannot be read names nothing.
        let _ = file.take(MAX_ARGUMENTS).read_to_end(&mut arguments);
    }
    complete_name(comm.trim_ascii_end(), &program, &arguments)
}

/// The name whose beginning is `comm`, which has at most [`MAX_COMM`] bytes: the program's or, for a script, that of one of
/// its interpreter's arguments.
fn complete_name(comm: &[u8], program: &Path, arguments: &[u8]) -> String {
    let program = program.as_os_str().as_bytes();
    // Appended by the kernel when the program was replaced, as in an upgrade.
    let program = program.strip_suffix(b" (deleted)").unwrap_or(program);
    let names = std::iter::once(program)
        .chain(arguments.split(|byte| *byte == 0))
        .map(|path| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
    let complete = names.filter(|_| comm.len() == MAX_COMM).find(|name| name.starts_with(comm));
    String::from_utf8_lossy(complete.unwrap_or(comm)).into_owned()
}

/// The sockets that listen on `port`, as the links of descriptors name them.
fn listening(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, _, state, inode) = (columns.next()?, columns.next()?, columns.next()?, columns.nth(5)?);
        (local.ends_with(&suffix) && state == LISTEN).then(|| format!("socket:[{inode}]"))
    });
    sockets.collect()
}

/// `TCP_LISTEN`.
const LISTEN: &str = "0A";
/// `TASK_COMM_LEN` without its NUL: the kernel cuts longer names.
const MAX_COMM: usize = 15;
/// Bytes of the arguments that may have the name.
const MAX_ARGUMENTS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = port_owner(listener.local_addr().unwrap().port()).unwrap();
        assert!(owner.ends_with(&format!("(process {})", std::process::id())), "{owner}");
    }

    #[test]
    fn names_are_complete() {
        let (plugin, python) = ("/usr/bin/session-manager-plugin", "/usr/bin/python3.11");
        for (comm, program, arguments, expected) in [
            ("session-manager", plugin, "session-manager-plugin\0forward", "session-manager-plugin"),
            ("session-manager", "/b/session-manager-plugin (deleted)", "", "session-manager-plugin"),
            ("session-manager", "", "./session-manager-plugin\0", "session-manager-plugin"),
            ("session-manager", "/b/session-manager", "session-manager-x", "session-manager"),
            (
                "serve-the-tests",
                python,
                "/usr/bin/python3\0-u\0/b/serve-the-tests.py\0",
                "serve-the-tests.py",
            ),
            ("a-thread-s-name", python, "python3\0", "a-thread-s-name"),
            ("nginx", "/usr/sbin/nginx-debug", "nginx: master process\0", "nginx"),
            ("", "", "", ""),
        ] {
            let found = complete_name(comm.as_bytes(), Path::new(program), arguments.as_bytes());
            assert_eq!(found, expected, "{comm} {arguments:?}");
        }
        let long = "ä".repeat(20);
        let cut = &long.as_bytes()[..15];
        assert_eq!(complete_name(cut, Path::new(&long), b""), long, "cut within a character");
    }

    #[test]
    fn only_listeners_count() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let row = |state: &str| {
            format!(
                "{head}   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n"
            )
        };
        assert_eq!(listening(&row("0A"), 8080), ["socket:[4711]"]);
        assert!(listening(&row("01"), 8080).is_empty() && listening(&row("0A"), 80).is_empty());
        assert!(listening("", 1).is_empty() && listening("one\ntwo three\n", 1).is_empty());
    }
}
