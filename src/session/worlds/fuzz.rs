//! Worlds that a fuzzer chooses. It is a program of its own (`compat-tests/fuzz/targets/worlds.rs`), which starts this test
//! binary, sends its bytes through a socket, and gets the events of their world.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fastrand::Rng;

use super::world::{Client, Destination, Ending, Event, Kind, LinkQuality, World};

/// A fuzzer's world: the bytes of its seed, then changes of four bytes each.
pub(super) fn world(bytes: &[u8]) -> World {
    let (seed, changes) = bytes.split_at(bytes.len().min(SEED));
    let mut full = [0; SEED];
    full[..seed.len()].copy_from_slice(seed);
    let mut world = World::draw(u64::from_le_bytes(full));
    for change in changes.chunks_exact(CHANGE).take(MAX_CHANGES) {
        let value = u16::from_le_bytes([change[2], change[3]]);
        world.change(change[0], change[1].into(), value.into());
    }
    world
}

impl World {
    /// Changes one thing, within what may be drawn.
    fn change(&mut self, what: u8, index: usize, value: u64) {
        let mut rng = Rng::with_seed(value);
        match what % 8 {
            0 => self.link = LinkQuality::draw(&mut rng),
            1 => self.add_event(Duration::from_millis(value), Event::draw(&mut Rng::with_seed(index as u64))),
            2 if index < self.events.len() => _ = self.events.remove(index),
            3 if index < self.events.len() => {
                let (_, event) = self.events.remove(index);
                self.add_event(Duration::from_millis(value), event);
            }
            4 if self.kind == Kind::Ports => {
                let (index, is_basic) = (index % self.destinations.len(), self.is_basic());
                self.destinations[index] = Destination::draw(&mut rng, is_basic);
            }
            5 if self.kind == Kind::Ports && !self.is_basic() && self.clients.len() < MAX_CLIENTS => {
                let number = self.clients.len();
                self.clients.push(Client::draw(&mut rng, number, false, &self.destinations));
            }
            6 => self.change_request(index, value as usize),
            7 => self.change_end(index, value),
            _ => {}
        }
    }

    fn change_request(&mut self, index: usize, value: usize) {
        let index = index % self.clients.len();
        let client = &mut self.clients[index];
        (client.request, client.piece, client.pause_ms) = (2 * value, 1 + value / 2, 0);
    }

    fn change_end(&mut self, index: usize, value: u64) {
        let (index, after_ms, is_basic) = (index % self.clients.len(), value / 4, self.is_basic());
        self.clients[index].ending = match value % 4 {
            0 if !is_basic => Ending::HalfClose,
            1 => Ending::Vanish { after_ms },
            2 => Ending::Reset { after_ms },
            _ => Ending::Complete,
        };
    }
}

/// Runs the worlds that come through the socket, until the fuzzer has gone.
pub(super) fn serve(path: &str, run: impl Fn(&World) -> Result<String, String>) -> io::Result<()> {
    let mut fuzzer = UnixStream::connect(path)?;
    let mut length = [0; 4];
    while fuzzer.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        fuzzer.read_exact(&mut bytes)?;
        let world = world(&bytes);
        let (verdict, text) = match run(&world) {
            Ok(text) => (0, text),
            Err(fault) => (1, format!("{world}{fault}")),
        };
        fuzzer.write_all(&[verdict])?;
        fuzzer.write_all(&(text.len() as u32).to_le_bytes())?;
        fuzzer.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Some worlds of random bytes.
pub(super) fn some() -> impl Iterator<Item = World> {
    let mut rng = Rng::with_seed(1);
    (0..RANDOM_WORLDS).map(move |_| {
        let length = rng.usize(0..SEED + CHANGE * MAX_CHANGES);
        world(&(0..length).map(|_| rng.u8(..)).collect::<Vec<u8>>())
    })
}

/// Bytes of a seed, and of a change.
const SEED: usize = 8;
const CHANGE: usize = 4;
const MAX_CHANGES: usize = 16;
const MAX_CLIENTS: usize = 12;
const RANDOM_WORLDS: usize = 40;
