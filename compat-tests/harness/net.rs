//! TCP servers and clients on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::output::Output;
use super::retry::uninterrupted;

/// A server that runs `serve` for each connection on its own thread, until dropped.
pub struct Server {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Server { port, ended }
    }

    /// Sends back what comes, until the other side has ended.
    pub fn echo() -> Server {
        Server::start(|mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = uninterrupted(|| stream.read(&mut buffer)) {
                if stream.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers `request` with `the answer`, which takes longer than the end of the request takes to arrive.
    pub fn late_answer() -> Server {
        Server::start(|mut stream| {
            let mut request = [0; 7];
            if stream.read_exact(&mut request).is_ok() {
                std::thread::sleep(Duration::from_millis(300));
                let _ = stream.write_all(b"the answer");
            }
        })
    }

    /// Sends `line` as soon as a client connects, then closes.
    pub fn greeting(line: &'static str) -> Server {
        Server::start(move |mut stream| {
            let _ = stream.write_all(line.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            // Reading to the end avoids a reset that could overtake the greeting.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// A port of 127.0.0.1 without a listener: connections are refused.
///
/// While it lives, the system does not hand the port out as a free one. A program that asks for this number gets it,
/// if with SO_REUSEADDR, as servers do: two sockets may share an address as long as at most one of them listens.
pub struct FreePort {
    _socket: Socket,
    number: u16,
}

impl FreePort {
    /// Takes a port.
    pub fn new() -> FreePort {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bind");
        let address = socket.local_addr().expect("address").as_socket().expect("an IP address");
        FreePort { _socket: socket, number: address.port() }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Connects, with deadlines on reads and writes.
#[track_caller]
pub fn connect(port: u16) -> TcpStream {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect to {address}: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
    stream
}

/// Waits until there is something to read, which is left there.
#[track_caller]
pub fn await_byte(stream: &TcpStream) {
    match uninterrupted(|| stream.peek(&mut [0; 1])) {
        Ok(1) => {}
        other => panic!("nothing to read: {other:?}"),
    }
}

/// Sends `bytes` on a connection to an echo server and reads as many back.
#[track_caller]
pub fn echo_through(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let mut writer = stream.try_clone().expect("clone");
    let sent = bytes.to_vec();
    let feeder = std::thread::spawn(move || writer.write_all(&sent));
    let mut answer = vec![0; bytes.len()];
    if let Err(error) = stream.read_exact(&mut answer) {
        panic!("the echo of {} bytes did not come back: {error}", bytes.len());
    }
    feeder.join().expect("feeder").expect("write");
    answer
}

/// Waits for `Port <n> opened` and answers n.
#[track_caller]
pub fn opened_port(stdout: &Output) -> u16 {
    stdout.wait_for("Port ");
    let number = stdout.wait_for(" opened for sessionId");
    number.trim_end_matches(" opened for sessionId").parse().expect("a port number")
}

/// Polls `condition` until it holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `n` random bytes, the same for the same seed.
pub fn random_bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
