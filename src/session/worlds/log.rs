//! The events of a world, and the faults found in it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine;

/// Takes events and faults; shared by all that is in the world.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// FNV-1a of all lines.
    digest: u64,
    count: u64,
    lines: Vec<String>,
    faults: Vec<String>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { digest: 0xcbf2_9ce4_8422_2325, count: 0, lines: Vec::new(), faults: Vec::new() }
    }
}

impl Log {
    /// Notes something that has happened now.
    pub(super) fn note(&self, what: impl fmt::Display) {
        let line = format!("{:>9.3} {what}", machine::elapsed().as_secs_f64());
        let inner = &mut *self.lock();
        for byte in line.bytes() {
            inner.digest = (inner.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.count += 1;
        inner.lines.push(line);
    }

    /// Notes that a rule does not hold.
    pub(super) fn fault(&self, what: impl fmt::Display) {
        self.note(format_args!("FAULT: {what}"));
        self.lock().faults.push(what.to_string());
    }

    /// The digest of the events, their number, the faults, and the last events.
    pub(super) fn report(&self, last: usize) -> (String, Vec<String>, Vec<String>) {
        let inner = self.lock();
        let lines = inner.lines[inner.lines.len().saturating_sub(last)..].to_vec();
        (format!("{:016x}/{}", inner.digest, inner.count), inner.faults.clone(), lines)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
