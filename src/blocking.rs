//! Work that blocks, on separate threads.
//!
//! tokio's pool panics if the system refuses a thread (`ulimit -u`, a container's limit of processes). Here that is an error,
//! and an attempt to connect that fails with it is made again.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::thread;

use tokio::sync::oneshot;

/// Runs `work` on a new thread and returns its result. If the future is dropped, the thread goes on.
///
/// # Errors
/// When the system refuses a thread, or `work` has panicked.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_owned());
    thread
        .spawn(move || drop(sender.send(work())))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread: {error}")))?;
    result.await.map_err(|_| io::Error::other("internal error"))
}

/// Returns the addresses of a host: a name, or an address without brackets. Sets no time limit.
///
/// # Errors
/// The resolver's, or those of [`run`].
pub(crate) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    run("resolver", move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names() {
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        assert_eq!(addresses("127.0.0.2", 80).await.unwrap(), [at("127.0.0.2:80")]);
        assert_eq!(addresses("::1", 80).await.unwrap(), [at("[::1]:80")]);
        let found = addresses("localhost", 80).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(addresses("a name", 80).await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        assert!(run("test", || std::panic::resume_unwind(Box::new(()))).await.is_err());
        assert_eq!(run("test", || 7).await.unwrap(), 7);
    }
}
