//! The share of each session in the memory for early messages.
//!
//! A channel keeps messages that arrive before their turn, and a gateway that carries many sessions could fill each
//! one's limit. So the sessions of a run share [`ALL_EARLY`]: each may hold what it holds and an equal part of what is left.

/// Returns the limit for each session, in bytes, given the bytes that each holds. However they are used up
/// until the next call, all hold [`ALL_EARLY`] at most, apart from [`MIN_EARLY`] for each.
pub(super) fn early_limits(held: &[usize]) -> impl Iterator<Item = usize> {
    let left = ALL_EARLY.saturating_sub(held.iter().sum());
    let part = left.checked_div(held.len()).unwrap_or_default();
    held.iter().map(move |held| (held + part).max(MIN_EARLY))
}

/// Bytes of early messages for all sessions: the limit of a channel for four of them.
const ALL_EARLY: usize = 64 << 20;
/// Bytes of early messages for a session in any case, so that others cannot keep it from having any.
const MIN_EARLY: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(held: &[usize]) -> Vec<usize> {
        early_limits(held).collect()
    }

    #[test]
    fn a_few_sessions_have_what_a_channel_may_hold() {
        assert!(limits(&[]).is_empty());
        for count in 1..=4 {
            assert!(limits(&vec![0; count]).iter().all(|limit| *limit >= 16 << 20), "{count}");
        }
    }

    /// Any number of sessions, each of which takes all that it may, one after the other or at once.
    #[test]
    fn all_together_hold_no_more_than_the_limit_and_their_least_shares() {
        for count in [5, 32, 100] {
            let mut held = vec![0; count];
            for round in 0..1000 {
                let limits = limits(&held);
                if round % 2 == 0 {
                    held.clone_from(&limits);
                } else {
                    held[round % count] = limits[round % count];
                }
                let all: usize = held.iter().sum();
                assert!(all <= ALL_EARLY + count * MIN_EARLY, "{count} sessions hold {all} bytes");
            }
            assert!(held.iter().sum::<usize>() > ALL_EARLY / 10 * 9, "the memory is used");
        }
    }

    #[test]
    fn a_session_has_its_least_share_when_others_hold_all() {
        assert_eq!(limits(&[ALL_EARLY, 0]), [ALL_EARLY, MIN_EARLY]);
    }
}
