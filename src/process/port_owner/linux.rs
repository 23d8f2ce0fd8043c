//! The owner of a listener, by `/proc/net/tcp` and the descriptors below `/proc/<pid>/fd` (man 5 proc).

use std::ffi::OsStr;
use std::fs;

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
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {id})", name.trim_end()));
        }
    }
    None
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
