//! Detection of system sleep.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Notices that the machine was asleep: the wall clock went on, the monotonic one did not.
pub(super) struct WallClock {
    looked: Instant,
    wall: SystemTime,
}

impl WallClock {
    pub fn start(now: Instant) -> WallClock {
        WallClock { looked: now, wall: SystemTime::now() }
    }

    /// Whether it was asleep since the last look.
    pub fn has_jumped(&mut self, now: Instant) -> bool {
        let passed = now - self.looked;
        if passed < WALL_CLOCK_LOOK {
            return false;
        }
        let wall = SystemTime::now();
        let wall_passed = wall.duration_since(self.wall).unwrap_or_default();
        (self.looked, self.wall) = (now, wall);
        wall_passed > passed + SLEEP
    }
}

/// The wall clock is not looked at more often.
const WALL_CLOCK_LOOK: Duration = Duration::from_secs(1);
/// A wall clock that is so much ahead was not merely set right.
const SLEEP: Duration = Duration::from_secs(10);
