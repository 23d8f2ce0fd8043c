//! The sessions that SOCKS clients may have at a time, and which of them makes room for another destination.
//!
//! A destination's first session may take any free place; additional ones (`SSM_PLUGIN_SESSIONS`) only one of the first half,
//! so that a few destinations cannot take all. When there is none, the session that has been idle longest makes room, if
//! it has been idle for [`MIN_IDLE`]: a client that comes back at once finds its session. A session that is being started is
//! not idle; one whose connections are all half-closed and quiet, or kept for another request of HTTP, is.

use std::time::{Duration, Instant};

/// A destination's need for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It has none, and clients wait.
    First,
    /// It has some; another would be faster.
    Additional,
}

/// True if a destination gets a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat<K> {
    Free,
    /// This session has to end for it.
    InsteadOf(K),
    /// Not now. `Some`: from then on a session will make room if it stays idle.
    Wait(Option<Instant>),
}

/// Decides about one more session. `idle`: the sessions that are idle, since when.
pub(super) fn seat<K>(
    now: Instant,
    need: Need,
    taken: usize,
    idle: impl Iterator<Item = (Instant, K)>,
) -> Seat<K> {
    match need {
        Need::First if taken < MAX_SESSIONS => Seat::Free,
        Need::Additional if taken < MAX_SESSIONS / 2 => Seat::Free,
        Need::Additional => Seat::Wait(None),
        Need::First => match idle.min_by_key(|(since, _)| *since) {
            Some((since, key)) if since + MIN_IDLE <= now => Seat::InsteadOf(key),
            Some((since, _)) => Seat::Wait(Some(since + MIN_IDLE)),
            None => Seat::Wait(None),
        },
    }
}

/// Sessions of all SOCKS clients together.
pub(super) const MAX_SESSIONS: usize = 32;
/// Idle time of a session after which another destination gets its place.
const MIN_IDLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_session_of_a_destination_takes_any_place_and_an_additional_one_half_of_them() {
        let now = Instant::now();
        let free = |need, taken| seat::<u8>(now, need, taken, std::iter::empty());
        assert_eq!(free(Need::First, 31), Seat::Free);
        assert_eq!(free(Need::First, 32), Seat::Wait(None));
        assert_eq!(free(Need::Additional, 15), Seat::Free);
        assert_eq!(free(Need::Additional, 16), Seat::Wait(None));
    }

    #[test]
    fn the_session_that_is_idle_longest_makes_room_but_not_for_an_additional_one() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let idle = [(begin + 2 * second, 'b'), (begin + second, 'a'), (begin + 3 * second, 'c')];
        let full = |at, need| seat(begin + at * second, need, MAX_SESSIONS, idle.into_iter());
        assert_eq!(full(5, Need::First), Seat::Wait(Some(begin + 6 * second)));
        assert_eq!(full(6, Need::First), Seat::InsteadOf('a'));
        assert_eq!(full(60, Need::Additional), Seat::Wait(None));
    }
}
