//! Binding of local TCP ports, and the text of its errors.
//!
//! Callers parse the official plugin's text, which is Go's: on UNIX Go's own, on Windows the system's in English.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Listens on `address`. On Windows no other process can bind the same port while this listener exists.
///
/// # Errors
/// As the system reports them.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(windows)]
    if let Err(error) = crate::process::bind_exclusively(&socket) {
        tracing::info!(%address, %error, "other processes may bind the same port");
    }
    // The end of a listener leaves its port free at once. On Windows this would let other processes bind it, too.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Go's text for a system error, where callers are known to parse it; else the system's.
pub(crate) fn error_text(error: &io::Error) -> String {
    if cfg!(windows)
        && let Some(code) = error.raw_os_error()
    {
        return windows_text(code).map_or_else(|| without_code(&error.to_string(), code), str::to_owned);
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => UNIX_IN_USE.into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        io::ErrorKind::NotFound => "no such file or directory".into(),
        _ => error.to_string(),
    }
}

/// Returns whether an error text of [`error_text`] is about an address that another socket has.
pub(crate) fn is_in_use(text: &str) -> bool {
    [UNIX_IN_USE, IN_USE].contains(&text)
}

/// Advice for an error text of [`error_text`].
pub(crate) fn advice(text: &str) -> Option<&'static str> {
    (text == FORBIDDEN).then_some(EXCLUDED_PORTS)
}

fn windows_text(code: i32) -> Option<&'static str> {
    Some(match code {
        10_013 => FORBIDDEN,
        10_048 => IN_USE,
        10_049 => NOT_VALID,
        _ => return None,
    })
}

/// The standard library puts the code behind the system's text.
fn without_code(text: &str, code: i32) -> String {
    text.strip_suffix(&format!(" (os error {code})")).unwrap_or(text).to_owned()
}

/// Connections that wait to be accepted, as many as one session carries, where the system allows so many. A client beyond
/// them tries again after a second.
const BACKLOG: u32 = 1024;
/// EADDRINUSE in Go's words.
const UNIX_IN_USE: &str = "address already in use";
/// WSAEACCES: another process holds the port exclusively, or the system has excluded it.
const FORBIDDEN: &str =
    "An attempt was made to access a socket in a way forbidden by its access permissions.";
/// WSAEADDRINUSE.
const IN_USE: &str =
    "Only one usage of each socket address (protocol/network address/port) is normally permitted.";
/// WSAEADDRNOTAVAIL.
const NOT_VALID: &str = "The requested address is not valid in its context.";
/// Hyper-V and WSL reserve hundreds of ports, differently after each start.
const EXCLUDED_PORTS: &str = "Windows may have excluded this port (Hyper-V and WSL reserve ranges); \
    list them with: netsh int ipv4 show excludedportrange protocol=tcp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_errors_have_gos_text() {
        assert_eq!(windows_text(10_048), Some(IN_USE));
        assert_eq!(windows_text(10_013), Some(FORBIDDEN));
        assert_eq!(windows_text(10_055), None);
        assert_eq!(without_code("No buffer space. (os error 10055)", 10_055), "No buffer space.");
        assert_eq!(without_code("No buffer space.", 10_055), "No buffer space.");
    }

    #[test]
    fn a_port_that_windows_excludes_has_advice() {
        assert!(advice(FORBIDDEN).is_some_and(|text| text.contains("netsh int ipv4 show excludedportrange")));
        assert_eq!(advice(IN_USE), None);
        assert_eq!(advice("permission denied"), None);
    }

    /// The standard library has room for 128.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_burst_of_clients_connects_before_any_is_accepted() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = most.trim().parse().unwrap_or(0).min(300);
        let limit = std::time::Duration::from_secs(10);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, limit).unwrap();
        let clients: Vec<_> = (0..count).map(connect).collect();
        assert_eq!(clients.len(), count);
    }

    /// The system lets another process bind a port with `SO_REUSEADDR` unless it is held exclusively.
    #[cfg(windows)]
    #[tokio::test]
    async fn a_port_is_taken_exclusively() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // Wine refuses the other with and without it.
        assert!(crate::process::is_exclusive(&listener).unwrap());
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        other.set_reuseaddr(true).unwrap();
        let error = other.bind(address).and_then(|()| other.listen(1)).unwrap_err();
        let text = error_text(&error);
        assert!([IN_USE, FORBIDDEN].contains(&text.as_str()), "{text}");
        let error = bind(address).unwrap_err();
        assert_eq!(error_text(&error), IN_USE);
    }

    #[cfg(not(windows))]
    #[test]
    fn unix_errors_have_gos_text() {
        for (kind, text) in [
            (io::ErrorKind::AddrInUse, "address already in use"),
            (io::ErrorKind::PermissionDenied, "permission denied"),
            (io::ErrorKind::AddrNotAvailable, "cannot assign requested address"),
        ] {
            assert_eq!(error_text(&kind.into()), text);
        }
    }
}
