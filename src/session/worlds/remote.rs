//! The destinations behind the agent.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use ssm_sim::agent::{Connection, Destinations, Dialing, Program, Programs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::log::Log;
use super::world::{Destination, HEADER, Kind, World};
use crate::session::port::MemoryStream;

/// The first bytes of a program's output, and of a server behind stdin and stdout.
pub(super) const PROMPT: &[u8] = b"$ ";

/// Numbers of the clients whose header has come to a destination.
pub(super) type Served = Arc<Mutex<BTreeSet<u32>>>;

/// The bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    pub client: u32,
    /// From the client; otherwise to it.
    pub is_request: bool,
    /// Small letters, which mean nothing to a terminal; otherwise any byte.
    pub is_text: bool,
}

impl Pattern {
    /// The byte at `at`.
    pub(super) fn at(self, at: usize) -> u8 {
        let at = at as u32;
        let start = self.client * 17 + u32::from(!self.is_request) * 101;
        let number = (at ^ (at >> 8) ^ (at >> 16)).wrapping_mul(31).wrapping_add(start);
        if self.is_text { b'a' + (number % 26) as u8 } else { number as u8 }
    }

    /// So many bytes from the start.
    pub(super) fn take(self, count: usize) -> Vec<u8> {
        (0..count).map(|at| self.at(at)).collect()
    }
}

/// Returns whether a byte may be one of a text.
pub(super) fn is_text(byte: u8) -> bool {
    byte.is_ascii_lowercase()
}

/// The request's header: the client's number and the length of what follows.
pub(super) fn header(client: u32, length: usize) -> [u8; HEADER] {
    let text = format!("{client:08x}{length:08x}");
    text.into_bytes().try_into().expect("two numbers")
}

/// The network of the agents: hosts `d<index>.internal`.
pub(super) fn network(world: &World, log: &Log, served: &Served) -> Destinations {
    let (destinations, log, served) = (world.destinations.clone(), log.clone(), Arc::clone(served));
    let is_text = world.is_text();
    Destinations::new(move |host: &str, _port: u16| -> Dialing {
        let index = host.strip_prefix('d').and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let index = index.or((host == "localhost").then_some(0));
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
                    Ok(Box::new(start(destination, is_text, host, log, served)) as Box<dyn Connection>)
                }
            }
        })
    })
}

/// The programs of shells and commands, which behave as the first destination.
pub(super) fn programs(world: &World, log: &Log, served: &Served) -> Programs {
    let (destination, log, served) = (world.destinations[0], log.clone(), Arc::clone(served));
    let is_command = matches!(world.kind, Kind::Command { .. });
    Programs::new(move |_command: &str| {
        log.note("start a program");
        let near = start(destination, true, "program".to_owned(), log.clone(), Arc::clone(&served));
        if is_command {
            // A command reads nothing; its output is all there is.
            near.try_write(&header(0, 0)).expect("room");
        }
        Program { stream: Box::new(near), exit_code: EXIT_CODE }
    })
}

/// Starts a destination or program. Returns the agent's end of its stream.
fn start(destination: Destination, is_text: bool, name: String, log: Log, served: Served) -> MemoryStream {
    let (near, mut far) = MemoryStream::pair();
    tokio::spawn(async move {
        if is_text {
            let _ = far.write_all(PROMPT).await;
        }
        let ended = serve(destination, is_text, far, &log, &served).await;
        log.note(format_args!("{name} ends: {:?}", ended.map_err(|error| error.kind())));
    });
    near
}

async fn serve(
    destination: Destination,
    is_text: bool,
    mut stream: MemoryStream,
    log: &Log,
    served: &Served,
) -> io::Result<()> {
    let mut header = [0; HEADER];
    if let Destination::Slow { asleep_ms } = destination {
        sleep(Duration::from_millis(asleep_ms)).await;
    }
    stream.read_exact(&mut header).await?;
    let number = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let (Some(client), Some(length)) = (number(&header[..8]), number(&header[8..])) else {
        // The end of input, or an interrupt, before the header was typed.
        if !(is_text && header.iter().any(|byte| is_control(*byte))) {
            log.fault(format_args!("{header:?} came to a destination as the header"));
        }
        return Ok(());
    };
    let length = length as usize;
    if !served.lock().unwrap_or_else(PoisonError::into_inner).insert(client) {
        log.fault(format_args!("client {client} came to its destination twice"));
    }
    let request = Pattern { client, is_request: true, is_text };
    let answer = Pattern { is_request: false, ..request };
    let mut request = Request { pattern: request, length, read: 0, has_ended: false, log };
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
            stream.write_all(&answer.take(bytes)).await?;
            if closes {
                stream.shutdown()?;
            }
        }
        Destination::Source { bytes } => {
            stream.write_all(&answer.take(bytes)).await?;
            stream.shutdown()?;
        }
        Destination::Reset { after } => {
            stream.write_all(&answer.take(after)).await?;
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
    pattern: Pattern,
    length: usize,
    read: usize,
    /// The end of input was typed.
    has_ended: bool,
    log: &'a Log,
}

impl Request<'_> {
    /// Reads some bytes, none at the end, and compares them with what the client sends.
    async fn read(&mut self, stream: &mut MemoryStream) -> io::Result<BytesMut> {
        let mut bytes = BytesMut::with_capacity(16 << 10);
        if self.has_ended {
            return Ok(bytes);
        }
        stream.read_buf(&mut bytes).await?;
        // A terminal's end of input, after a return if a line was begun, or an interrupt.
        if self.pattern.is_text
            && let Some(at) = bytes.iter().position(|byte| is_control(*byte))
        {
            bytes.truncate(at);
            self.has_ended = true;
        }
        for byte in &bytes {
            if self.read >= self.length || *byte != self.pattern.at(self.read) {
                let Request { pattern: Pattern { client, .. }, length, read, log, .. } = self;
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

fn is_control(byte: u8) -> bool {
    matches!(byte, b'\r' | 3 | 4)
}

/// Time that a connection within the instance's network takes.
const DIAL: Duration = Duration::from_millis(1);
/// Time after which the system gives up a connection that is not answered: 127 s on Linux.
const NO_ANSWER: Duration = Duration::from_secs(127);
/// Exit code of a command.
pub(super) const EXIT_CODE: i32 = 7;
