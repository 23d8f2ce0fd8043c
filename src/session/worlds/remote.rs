//! The destinations behind the agent.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use ssm_sim::agent::{Connection, Destinations, Dialing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::log::Log;
use super::world::Destination;
use crate::session::port::MemoryStream;

/// The request's header: the client's number and the length of what follows, as little-endian numbers of four bytes.
pub(super) const HEADER: usize = 8;

/// Numbers of the clients whose header has come to a destination.
pub(super) type Served = Arc<Mutex<BTreeSet<u32>>>;

/// The byte at `at` of what client `number` sends (`way` 0) or gets (1).
pub(super) fn pattern(number: u32, way: u8, at: usize) -> u8 {
    let at = at as u32;
    (at ^ (at >> 8) ^ (at >> 16)).wrapping_mul(31).wrapping_add(number * 17 + u32::from(way) * 101) as u8
}

/// The network of the agents: hosts `d<index>.internal`.
pub(super) fn network(destinations: &[Destination], log: &Log, served: &Served) -> Destinations {
    let (destinations, log, served) = (destinations.to_vec(), log.clone(), Arc::clone(served));
    Destinations::new(move |host: &str, _port: u16| -> Dialing {
        let index = host.strip_prefix('d').and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let destination = index.and_then(|index| destinations.get(index).copied());
        let (host, log, served) = (host.to_owned(), log.clone(), Arc::clone(&served));
        Box::pin(async move {
            log.note(format_args!("dial {host}"));
            sleep(DIAL).await;
            match destination {
                None | Some(Destination::Refuse) => Err(io::ErrorKind::ConnectionRefused.into()),
                Some(Destination::BlackHole) => {
                    sleep(NO_ANSWER).await;
                    Err(io::ErrorKind::TimedOut.into())
                }
                Some(destination) => {
                    let (near, far) = MemoryStream::pair();
                    tokio::spawn(async move {
                        let ended = serve(destination, far, &log, &served).await;
                        log.note(format_args!("{host} ends: {:?}", ended.map_err(|error| error.kind())));
                    });
                    Ok(Box::new(near) as Box<dyn Connection>)
                }
            }
        })
    })
}

async fn serve(
    destination: Destination,
    mut stream: MemoryStream,
    log: &Log,
    served: &Served,
) -> io::Result<()> {
    let mut header = [0; HEADER];
    if let Destination::Slow { asleep_ms } = destination {
        sleep(Duration::from_millis(asleep_ms)).await;
    }
    stream.read_exact(&mut header).await?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (client, length) = (number(0), number(4) as usize);
    if !served.lock().unwrap_or_else(PoisonError::into_inner).insert(client) {
        log.fault(format_args!("client {client} came to its destination twice"));
    }
    let mut request = Request { client, length, read: 0, log };
    match destination {
        Destination::Echo { late_ms } => request.echo(&mut stream, Duration::from_millis(late_ms)).await?,
        Destination::Slow { .. } => request.echo(&mut stream, Duration::ZERO).await?,
        Destination::Answer { think_ms, bytes, closes } => {
            while request.read < length {
                if request.read(&mut stream).await?.is_empty() {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(think_ms)).await;
            send(&mut stream, client, bytes).await?;
            if closes {
                stream.shutdown()?;
            }
        }
        Destination::Source { bytes } => {
            send(&mut stream, client, bytes).await?;
            stream.shutdown()?;
        }
        Destination::Reset { after } => {
            send(&mut stream, client, after).await?;
            stream.reset();
            return Ok(());
        }
        Destination::Refuse | Destination::BlackHole => {}
    }
    // Until the agent closes the connection.
    while !request.read(&mut stream).await?.is_empty() {}
    Ok(())
}

/// The part of a client's request that has been read.
struct Request<'a> {
    client: u32,
    length: usize,
    read: usize,
    log: &'a Log,
}

impl Request<'_> {
    /// Reads some bytes, none at the end, and compares them with what the client sends.
    async fn read(&mut self, stream: &mut MemoryStream) -> io::Result<BytesMut> {
        let mut bytes = BytesMut::with_capacity(16 << 10);
        stream.read_buf(&mut bytes).await?;
        for byte in &bytes {
            if self.read >= self.length || *byte != pattern(self.client, 0, self.read) {
                let Request { client, length, read, log } = self;
                log.fault(format_args!(
                    "byte {read} of {length} of client {client} is wrong at its destination"
                ));
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.read += 1;
        }
        Ok(bytes)
    }

    async fn echo(&mut self, stream: &mut MemoryStream, late: Duration) -> io::Result<()> {
        while self.read < self.length {
            let bytes = self.read(stream).await?;
            if bytes.is_empty() {
                break;
            }
            sleep(late).await;
            stream.write_all(&bytes).await?;
        }
        Ok(())
    }
}

async fn send(stream: &mut MemoryStream, client: u32, count: usize) -> io::Result<()> {
    let bytes: Vec<u8> = (0..count).map(|at| pattern(client, 1, at)).collect();
    stream.write_all(&bytes).await
}

/// Time that a connection within the instance's network takes.
const DIAL: Duration = Duration::from_millis(1);
/// Time after which the system gives up a connection that is not answered: 127 s on Linux.
const NO_ANSWER: Duration = Duration::from_secs(127);
