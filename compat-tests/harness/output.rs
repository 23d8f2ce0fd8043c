//! Output of a process, collected by a thread, and waiting for what it contains.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::PATIENCE;
use super::retry::uninterrupted;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Up to where [`Output::wait_for`] has matched.
    seen: usize,
    closed: bool,
}

/// Everything a reader has given so far. Clones look at the same bytes.
#[derive(Clone)]
pub struct Output {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Output {
    /// Reads `reader` to its end on a thread.
    pub fn read(mut reader: impl Read + Send + 'static) -> Output {
        let output = Output { shared: Arc::default() };
        let shared = Arc::clone(&output.shared);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // A pty whose other side is gone answers EIO: the end, too.
                let n = uninterrupted(|| reader.read(&mut buffer)).unwrap_or(0);
                let mut state = shared.0.lock().expect("output lock");
                if n == 0 {
                    state.closed = true;
                } else {
                    state.bytes.extend_from_slice(&buffer[..n]);
                }
                shared.1.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Waits until `text` appears after the last match, and returns what came up to and with it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let found = self.wait(|state| {
            let rest = &state.bytes[state.seen..];
            find(rest, text.as_bytes()).map(|at| {
                let end = at + text.len();
                let before = String::from_utf8_lossy(&rest[..end]).into_owned();
                state.seen += end;
                before
            })
        });
        match found {
            Ok(before) => before,
            Err(why) => panic!("{why} while waiting for {text:?} in:\n{}", self.text()),
        }
    }

    /// Waits until all the bytes so far satisfy `condition`.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[u8]) -> bool) {
        if let Err(why) = self.wait(|state| condition(&state.bytes).then_some(())) {
            panic!("{why} while waiting for {what} in:\n{}", self.text());
        }
    }

    /// Waits for the end of the stream and returns all of it.
    #[track_caller]
    pub fn wait_closed(&self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let (lock, condvar) = &*self.shared;
        let mut state = lock.lock().expect("output lock");
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the stream did not end:\n{}", String::from_utf8_lossy(&state.bytes));
            state = condvar.wait_timeout(state, left).expect("output lock").0;
        }
        state.bytes.clone()
    }

    /// Output so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.shared.0.lock().expect("output lock").bytes.clone()
    }

    /// Output so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn wait<T>(&self, mut probe: impl FnMut(&mut State) -> Option<T>) -> Result<T, &'static str> {
        let deadline = Instant::now() + PATIENCE;
        let (lock, condvar) = &*self.shared;
        let mut state = lock.lock().expect("output lock");
        loop {
            if let Some(found) = probe(&mut state) {
                return Ok(found);
            }
            if state.closed {
                return Err("the stream ended");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("time ran out");
            }
            state = condvar.wait_timeout(state, left).expect("output lock").0;
        }
    }
}

/// Position of the first `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}
