//! Agent versions and their capabilities.

use std::cmp::Ordering;

/// An agent's version as its handshake request gives it, `3.3.987.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentVersion(Vec<u64>);

impl AgentVersion {
    /// Reads a dotted number; anything else is `None`, and such an agent is taken for the oldest.
    pub fn parse(text: &str) -> Option<AgentVersion> {
        text.trim().split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>().map(AgentVersion)
    }

    fn is_after(&self, other: [u64; 4]) -> bool {
        let part = |parts: &[u64], at: usize| parts.get(at).copied().unwrap_or(0);
        let longest = self.0.len().max(other.len());
        (0..longest)
            .map(|at| part(&self.0, at).cmp(&part(&other, at)))
            .find(|order| order.is_ne())
            .is_some_and(|order| order == Ordering::Greater)
    }
}

/// The abilities that depend on the agent's version. `Default` is an agent of unknown version: none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Understands [`Flag::TerminateSession`](super::Flag); others are ended by the TerminateSession API.
    pub terminate_flag: bool,
    /// Forwards many connections at once, with smux.
    pub multiplexing: bool,
    /// Does without smux keepalives. Sending them would keep an idle session alive against its policy (smp#57).
    pub smux_keepalive_off: bool,
}

impl Capabilities {
    /// The abilities of an agent of this version (`None`: unknown).
    pub fn of(version: Option<&AgentVersion>) -> Capabilities {
        let after = |bound| version.is_some_and(|v| v.is_after(bound));
        Capabilities {
            terminate_flag: after(TERMINATE_FLAG_AFTER),
            multiplexing: after(MULTIPLEXING_AFTER),
            smux_keepalive_off: after(SMUX_KEEPALIVE_OFF_AFTER),
        }
    }
}

// The official plugin's gates; each ability came with the version after the one named.
const TERMINATE_FLAG_AFTER: [u64; 4] = [2, 3, 722, 0];
const MULTIPLEXING_AFTER: [u64; 4] = [3, 0, 196, 0];
const SMUX_KEEPALIVE_OFF_AFTER: [u64; 4] = [3, 1, 1511, 0];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (bool, bool, bool) {
        let c = Capabilities::of(AgentVersion::parse(text).as_ref());
        (c.terminate_flag, c.multiplexing, c.smux_keepalive_off)
    }

    #[test]
    fn each_gate_opens_after_its_version() {
        assert_eq!(of("2.3.722.0"), (false, false, false));
        assert_eq!(of("2.3.722.1"), (true, false, false));
        assert_eq!(of("3.0.196.0"), (true, false, false));
        assert_eq!(of("3.0.197.0"), (true, true, false));
        assert_eq!(of("3.1.1511.0"), (true, true, false));
        assert_eq!(of("3.1.1512.0"), (true, true, true));
        assert_eq!(of("3.3.0.0"), (true, true, true));
        assert_eq!(of("10.0"), (true, true, true));
    }

    #[test]
    fn an_unreadable_version_is_the_oldest() {
        for text in ["", "three", "3..1", "-1.0", "3.3.0.0-beta"] {
            assert_eq!(of(text), (false, false, false), "{text}");
        }
    }
}
