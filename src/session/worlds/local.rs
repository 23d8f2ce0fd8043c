//! The clients at the local ports.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::log::Log;
use super::remote::{HEADER, pattern};
use super::world::{Client, Destination, Ending, World};
use crate::session::port::{MemoryPorts, MemoryStream};

/// The local port of destination `index`.
pub(super) fn port_of(index: usize) -> u16 {
    FIRST_PORT + index as u16
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
pub(super) async fn run(
    number: u32,
    world: &World,
    ports: &MemoryPorts,
    log: &Log,
    is_over: &Cell<bool>,
) -> Fate {
    let client = world.clients[number as usize];
    sleep(Duration::from_millis(client.at_ms)).await;
    let port = if client.socks { SOCKS_PORT } else { port_of(client.destination) };
    let mut stream = loop {
        match ports.connect(port) {
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
    let fate = match client.ending {
        Ending::Vanish { after_ms } | Ending::Reset { after_ms } => {
            let left = tokio::time::timeout(Duration::from_millis(after_ms), ended).await;
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
        let sent = send(number, client, stream).await;
        has_sent.set(sent.is_ok());
        // A client that cannot send any more still reads.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let way = u8::from(!matches!(destination, Destination::Echo { .. } | Destination::Slow { .. }));
        let mut received = 0;
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
            let _ = tokio::time::timeout(LOOK, arrived).await;
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
                if received >= expected || *byte != pattern(number, way, received) {
                    log.fault(format_args!("byte {received} of {expected} for client {number} is wrong"));
                    return Fate::Broken(received);
                }
                received += 1;
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

async fn send(number: u32, client: Client, stream: &MemoryStream) -> io::Result<()> {
    let mut request = Vec::with_capacity(HEADER + client.request);
    request.extend(number.to_le_bytes());
    request.extend((client.request as u32).to_le_bytes());
    request.extend((0..client.request).map(|at| pattern(number, 0, at)));
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
pub(super) fn judge(world: &World, fates: &[Option<Fate>], served: impl Fn(u32) -> bool, log: &Log) {
    for (number, fate) in fates.iter().enumerate() {
        let client = world.clients[number];
        let destination = world.destinations[client.destination];
        let fault = |what: &dyn fmt::Display| log.fault(format_args!("client {number} {what}"));
        // An answer that comes later than the wait after half-close is lost with this agent.
        let is_late = client.ending == Ending::HalfClose && matches!(destination, Destination::Slow { .. });
        let is_good = destination.is_good() && !is_late;
        match fate {
            None => fault(&"still waits"),
            Some(Fate::EarlyEnd(received)) if is_good && (*received > 0 || served(number as u32)) => {
                fault(&format_args!("takes {received} bytes for the whole"));
            }
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
