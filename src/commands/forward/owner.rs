//! The process that listens on a port, where the system reports it.

/// Name and number of the process that listens on a TCP port. Only for processes that this user may look at.
#[cfg(target_os = "linux")]
pub(super) fn of_port(port: u16) -> Option<String> {
    use std::fs;
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let owns = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        if owns.into_iter().any(|link| links.iter().any(|wanted| link.as_os_str() == wanted.as_str())) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name: String = name.trim().chars().filter(|char| !char.is_control()).collect();
            return Some(format!("{name} (process {id})"));
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of_port(_port: u16) -> Option<String> {
    None
}

/// The inodes of the sockets that listen on a port, from the kernel's table (proc(5)).
#[cfg(target_os = "linux")]
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let rows = table.lines().skip(1).filter_map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = cells.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(hex, 16).ok()? == port && *cells.get(3)? == LISTEN;
        is_it.then(|| cells.get(9).map(|inode| (*inode).to_owned())).flatten()
    });
    rows.collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = of_port(listener.local_addr().unwrap().port()).unwrap();
        assert!(owner.ends_with(&format!("(process {})", std::process::id())), "{owner}");
    }
}
