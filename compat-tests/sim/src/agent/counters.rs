//! Counters of one session's agent.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one session's agent, written by the agent and read by anybody.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Data messages received from the client, duplicates included.
    messages_up,
    /// Payload bytes of data messages received from the client, duplicates included.
    bytes_up,
    /// Data messages sent to the client the first time.
    messages_down,
    /// Payload bytes of data messages sent to the client the first time.
    bytes_down,
    /// Data messages received a second time.
    duplicates_received,
    /// Data messages that came before an earlier one.
    early_received,
    /// Frames dropped: not a message, or not one for an agent.
    bad_received,
    /// Among the dropped ones, those with a digest that is not that of the payload.
    bad_digest_received,
    /// Data messages sent again.
    resends_sent,
    /// Acknowledgements sent.
    acks_sent,
    /// Acknowledgements received.
    acks_received,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
