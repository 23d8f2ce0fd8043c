//! The clients at the local ports.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::log::Log;
use super::remote::{Pattern, Served, header};
use super::world::{Client, Destination, Ending, HEADER, Kind, World};
use crate::session::port::{MemoryPorts, MemoryStream};

/// The local port of destination `index`.
pub(super) fn port_of(index: usize) -> u16 {
    FIRST_PORT + index as u16
}

/// The ways into a program.
pub(super) struct Doors {
    pub ports: MemoryPorts,
    /// Its standard streams, where the session is on them.
    pub standard: RefCell<Option<MemoryStream>>,
    pub served: Served,
}

/// The end of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It got all that it expected.
    Complete,
    /// Its connection ended as if complete, after so many bytes.
    EarlyEnd(usize),
    /// Its connection broke, after so many bytes.
    Broken(usize),
    /// The SOCKS proxy refused.
    Refused,
    /// Nothing listened any more.
    NeverConnected,
    /// It went away by itself.
    Left,
}

/// Runs a client to its end.
pub(super) async fn run(number: u32, world: &World, doors: &Doors, log: &Log, is_over: &Cell<bool>) -> Fate {
    let client = world.clients[number as usize];
    sleep(Duration::from_millis(client.at_ms)).await;
    let port = if client.socks { SOCKS_PORT } else { port_of(client.destination) };
    let standard = doors.standard.borrow_mut().take();
    let mut stream = loop {
        if let Some(stream) = standard {
            break stream;
        }
        match doors.ports.connect(port) {
            Ok(stream) => break stream,
            Err(_) if is_over.get() => return Fate::NeverConnected,
            // Until the program listens.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    log.note(format_args!("client {number} connects"));
    let ended = async {
        if client.socks {
            match shake_hands(&mut stream, client.destination).await {
                Ok(0) => {}
                Ok(reply) => {
                    log.note(format_args!("client {number}: SOCKS reply {reply}"));
                    return Fate::Refused;
                }
                Err(_) => return Fate::Refused,
            }
        }
        talk(number, client, world, &stream, log).await
    };
    let ended = async {
        let mut ended = std::pin::pin!(ended);
        if let Ok(fate) = timeout(LONGEST_WAIT, &mut ended).await {
            return fate;
        }
        let is_served = doors.served.lock().unwrap_or_else(PoisonError::into_inner).contains(&number);
        // An agent that carries one connection, or waits for a destination that does not answer, lets others wait.
        let may_wait = world.is_basic() || world.destinations.contains(&Destination::BlackHole);
        if !is_served && !may_wait && client.request > 0 && client.pause_ms == 0 {
            log.fault(format_args!("client {number} waits for a session for too long"));
        }
        ended.await
    };
    let fate = match client.ending {
        Ending::Vanish { after_ms } | Ending::Reset { after_ms } => {
            let left = timeout(Duration::from_millis(after_ms), ended).await;
            left.unwrap_or(Fate::Left)
        }
        Ending::Complete | Ending::HalfClose => ended.await,
    };
    if matches!(client.ending, Ending::Reset { .. }) {
        stream.reset();
    }
    log.note(format_args!("client {number} ends: {fate:?}"));
    fate
}

/// Asks the SOCKS proxy for a destination. Returns its reply.
async fn shake_hands(stream: &mut MemoryStream, destination: usize) -> io::Result<u8> {
    stream.write_all(&[5, 1, 0]).await?;
    let mut method = [0; 2];
    stream.read_exact(&mut method).await?;
    let host = format!("d{destination}.internal");
    let mut request = vec![5, 1, 0, 3, host.len() as u8];
    request.extend(host.bytes());
    request.extend(1000_u16.to_be_bytes());
    stream.write_all(&request).await?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await?;
    Ok(reply[1])
}

/// Sends the request and reads the answer.
async fn talk(number: u32, client: Client, world: &World, stream: &MemoryStream, log: &Log) -> Fate {
    let destination = world.destinations[client.destination];
    let (has_sent, expected) = (Cell::new(false), destination.answer(client.request));
    let sending = async {
        let sent =
            if world.is_command() { Ok(()) } else { send(number, client, world.is_text(), stream).await };
        has_sent.set(sent.is_ok());
        // A client that cannot send any more still reads.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let is_request = matches!(destination, Destination::Echo { .. } | Destination::Slow { .. });
        let pattern = Pattern { client: number, is_request, is_text: world.is_text() };
        let mut received = 0;
        let (begin, bound) = (Instant::now(), world.bound(number as usize));
        sleep(Duration::from_millis(client.stall_ms)).await;
        let mut bytes = BytesMut::new();
        // Agents that carry one connection do not say that the destination has closed.
        let waits_for_end = !world.is_basic()
            && (client.ending == Ending::HalfClose
                || matches!(
                    destination,
                    Destination::Source { .. } | Destination::Answer { closes: true, .. }
                )
                || !destination.is_good());
        loop {
            if received == expected && has_sent.get() && !waits_for_end {
                return Fate::Complete;
            }
            let arrived = async {
                let _ = stream.readable().await;
            };
            // The request's end may be all that is waited for.
            let _ = timeout(LOOK, arrived).await;
            bytes.clear();
            bytes.reserve(READ);
            match stream.try_read_buf(&mut bytes) {
                Ok(0) if received == expected => return Fate::Complete,
                Ok(0) => return Fate::EarlyEnd(received),
                Ok(count) => log.note(format_args!("client {number} reads {count}")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return Fate::Broken(received),
            }
            for byte in &bytes {
                if received >= expected || *byte != pattern.at(received) {
                    log.fault(format_args!("byte {received} of {expected} for client {number} is wrong"));
                    return Fate::Broken(received);
                }
                received += 1;
            }
            if received == expected
                && let Some(bound) = bound.filter(|bound| begin.elapsed() > *bound)
            {
                let taken = begin.elapsed();
                log.fault(format_args!("client {number} waited {taken:?} for its last byte, not {bound:?}"));
            }
            sleep(Duration::from_millis(client.read_pause_ms)).await;
        }
    };
    tokio::select! {
        biased;
        fate = reading => fate,
        () = sending => Fate::Left,
    }
}

async fn send(number: u32, client: Client, is_text: bool, stream: &MemoryStream) -> io::Result<()> {
    let mut request = Vec::with_capacity(HEADER + client.request);
    request.extend(header(number, client.request));
    request.extend(Pattern { client: number, is_request: true, is_text }.take(client.request));
    for piece in request.chunks(client.piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        sleep(Duration::from_millis(client.pause_ms)).await;
    }
    if client.ending == Ending::HalfClose {
        stream.shutdown()?;
    }
    Ok(())
}

/// Compares the clients' ends with what their world promises.
pub(super) fn judge(world: &World, fates: &[Option<Fate>], log: &Log) {
    for (number, fate) in fates.iter().enumerate() {
        let client = world.clients[number];
        let destination = world.destinations[client.destination];
        let fault = |what: &dyn fmt::Display| log.fault(format_args!("client {number} {what}"));
        // An answer that comes later than the wait after half-close is lost. A shell does not end by itself.
        let is_late = client.ending == Ending::HalfClose
            && match destination {
                Destination::Slow { .. } => !matches!(world.kind, Kind::Shell { .. }),
                Destination::Answer { think_ms, .. } => world.kind == Kind::Ssh && think_ms > 1500,
                _ => false,
            };
        let is_good = destination.is_good() && !is_late;
        // Half-closed connections are the first whose descriptors are freed, whatever their destinations still had to say. Their
        // clients see that.
        let may_be_reset = client.ending == Ending::HalfClose && world.needs_descriptor_of(number);
        match fate {
            None => fault(&"still waits"),
            // Nothing is no answer either.
            Some(Fate::EarlyEnd(received)) if is_good => {
                fault(&format_args!("takes {received} bytes for the whole"));
            }
            Some(Fate::Broken(_)) if may_be_reset => {}
            Some(Fate::EarlyEnd(_) | Fate::Broken(_) | Fate::Refused | Fate::NeverConnected)
                if is_good && world.is_gentle() =>
            {
                fault(&format_args!("got less than it should: {fate:?}"));
            }
            Some(_) => {}
        }
    }
}

/// Local port of the SOCKS proxy.
pub(super) const SOCKS_PORT: u16 = 1080;
const FIRST_PORT: u16 = 5000;
const READ: usize = 16 << 10;
const LOOK: Duration = Duration::from_millis(500);
/// Virtual time in which a connection has a session or is closed: 300 s, and time for a link that is being opened again.
const LONGEST_WAIT: Duration = Duration::from_secs(450);
