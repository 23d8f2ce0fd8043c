//! The machine's sleep, as its clocks show it.

use std::time::{Duration, Instant, SystemTime};

/// Both clocks at their last comparison. The monotonic one stands still while the machine sleeps.
#[derive(Debug)]
pub(super) struct Clocks {
    now: Instant,
    wall: SystemTime,
}

impl Clocks {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Clocks {
        Clocks { now, wall }
    }

    /// Returns whether the wall clock has left the monotonic one behind since the last comparison.
    pub(super) fn have_diverged(&mut self, now: Instant, wall: SystemTime) -> bool {
        let passed = now.saturating_duration_since(self.now);
        if passed < COMPARE_AFTER {
            return false;
        }
        let wall_passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Clocks { now, wall };
        wall_passed > passed + SLEEP
    }
}

/// Interval between comparisons of the clocks.
const COMPARE_AFTER: Duration = Duration::from_secs(1);
/// A wall clock that is this much ahead was not merely corrected.
const SLEEP: Duration = Duration::from_secs(10);
