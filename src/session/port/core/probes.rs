//! Clients, told apart from probes of whether a port is open (`nc -z`, wait loops, load balancers).
//!
//! A connection needs a session when it has sent a byte, or when it is still there after [`PROBE_TIME`]: in many protocols
//! the server speaks first. One that has gone by then wanted to know whether the port is open, and it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::lane::ConnectionNumber;
use super::super::local::FromConnection;

/// The connections of which it is not known yet whether they are clients'.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    fresh: BTreeMap<ConnectionNumber, Instant>,
}

impl Probes {
    /// Takes a new connection.
    pub(crate) fn open(&mut self, now: Instant, number: ConnectionNumber) {
        self.fresh.insert(number, now + PROBE_TIME);
    }

    /// Takes what a connection's task reports. Returns whether the connection is known as a client's since now.
    pub(crate) fn handle_report(&mut self, number: ConnectionNumber, report: &FromConnection) -> bool {
        self.fresh.remove(&number).is_some() && matches!(report, FromConnection::Data(_))
    }

    /// Returns how many connections are known as clients' since they have stayed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> usize {
        self.fresh.extract_if(.., |_, until| *until <= now).count()
    }

    /// When [`Probes::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.fresh.values().min().copied()
    }

    /// Number of connections that may be probes.
    pub(crate) fn len(&self) -> usize {
        self.fresh.len()
    }

    /// Returns whether the connection may be a probe.
    pub(crate) fn is_fresh(&self, number: ConnectionNumber) -> bool {
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
        (1..=4).for_each(|number| probes.open(now, number));
        assert!(probes.handle_report(1, &FromConnection::Data(Bytes::from_static(b"x"))));
        assert!(!probes.handle_report(1, &FromConnection::Data(Bytes::from_static(b"y"))), "once");
        assert!(!probes.handle_report(2, &FromConnection::InputEnded));
        assert!(!probes.handle_report(3, &FromConnection::Reset));
        assert!(probes.is_fresh(4) && !probes.is_fresh(2));
        assert_eq!(probes.handle_timeout(now + PROBE_TIME / 2), 0);
        assert_eq!(probes.next_timeout(), Some(now + PROBE_TIME));
        assert_eq!(probes.handle_timeout(now + PROBE_TIME), 1);
        assert_eq!(probes.next_timeout(), None);
    }
}
