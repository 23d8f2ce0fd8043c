//! Clients, distinguished from probes of whether a port is open (`nc -z`, wait loops, load balancers).
//!
//! A connection needs a session when it has sent a byte, or when it is still there after [`PROBE_TIME`]: in many protocols
//! the server speaks first. One that has gone by then wanted to know whether the port is open, and it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::api::{ConnectionId, Report};

/// The connections of which it is not known yet whether they are clients'.
#[derive(Debug, Default)]
pub(super) struct Probes {
    fresh: BTreeMap<ConnectionId, Instant>,
}

impl Probes {
    /// Takes a new connection.
    pub(super) fn open(&mut self, now: Instant, number: ConnectionId) {
        self.fresh.insert(number, now + PROBE_TIME);
    }

    /// Takes what a connection's task reports. Returns whether the connection is known as a client's since now.
    pub(super) fn handle_report(&mut self, number: ConnectionId, report: &Report) -> bool {
        self.fresh.remove(&number).is_some() && matches!(report, Report::Data(_))
    }

    /// Returns how many connections are known as clients' since they have stayed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> usize {
        self.fresh.extract_if(.., |_, until| *until <= now).count()
    }

    /// When [`Probes::handle_timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.fresh.values().min().copied()
    }

    /// Number of connections that may be probes.
    pub(super) fn len(&self) -> usize {
        self.fresh.len()
    }

    /// Returns whether the connection may be a probe.
    pub(super) fn is_fresh(&self, number: ConnectionId) -> bool {
        self.fresh.contains_key(&number)
    }
}

/// Time that a connection without data may be a probe. Those of tools are gone after a round trip on loopback;
/// a client waits as long for its session, once.
const PROBE_TIME: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_byte_or_time_makes_a_client_and_an_end_makes_a_probe() {
        let now = Instant::now();
        let mut probes = Probes::default();
        (1..=4).for_each(|number| probes.open(now, ConnectionId(number)));
        assert!(probes.handle_report(ConnectionId(1), &Report::Data(Bytes::from_static(b"x"))));
        assert!(!probes.handle_report(ConnectionId(1), &Report::Data(Bytes::from_static(b"y"))), "once");
        assert!(!probes.handle_report(ConnectionId(2), &Report::InputEnded));
        assert!(!probes.handle_report(ConnectionId(3), &Report::Reset));
        assert!(probes.is_fresh(ConnectionId(4)) && !probes.is_fresh(ConnectionId(2)));
        assert_eq!(probes.handle_timeout(now + PROBE_TIME / 2), 0);
        assert_eq!(probes.next_timeout(), Some(now + PROBE_TIME));
        assert_eq!(probes.handle_timeout(now + PROBE_TIME), 1);
        assert_eq!(probes.next_timeout(), None);
    }
}
