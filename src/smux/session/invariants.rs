//! Invariants of a session.

use super::Session;
use crate::smux::stream::Stream;

impl Session {
    /// Asserts the invariants that hold between calls, whatever the peer sends. Checked in debug builds.
    pub(super) fn assert_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let streams = || self.streams.values();
        assert_eq!(
            self.buffered,
            streams().map(Stream::queued).sum::<usize>(),
            "the total is the sum of the queues"
        );
        assert!(self.streams.len() <= self.config.max_streams, "streams are bounded");
        assert!(streams().all(|stream| stream.queued() <= self.config.send_buffer), "queues are bounded");
        assert!(!streams().any(Stream::is_over), "a stream that is over is forgotten");
        assert!(
            streams().all(|stream| stream.scheduled || !stream.has_transmit()),
            "a stream with something to send will have its turn"
        );
        assert_eq!(
            self.schedule.len() + usize::from(self.turn.is_some()),
            streams().filter(|stream| stream.scheduled).count(),
            "a stream is lined up once"
        );
        if let Some((id, left)) = self.frame.payload() {
            let queued = self.streams.get(&id).map_or(0, Stream::queued);
            assert!(left <= queued, "a frame that was begun can be completed");
        }
    }
}
