//! The client's end of the virtual network.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::{Channel, Event, Transmit};

/// A packet on a websocket of the virtual network, except for the opening frame.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Frame(Bytes),
    Ping,
    Pong,
}

/// A client that the virtual network drives.
pub(crate) trait Client {
    /// The channel inside, for its input and its counters.
    fn channel(&mut self) -> &mut Channel;
    /// Returns whether it opens a websocket now; the outcome is reported to it at once.
    fn poll_attempt(&mut self, now: Instant) -> bool;
    /// Returns whether the attempt is still wanted.
    fn is_opening(&self) -> bool {
        true
    }
    /// The websocket is open.
    fn handle_opened(&mut self, now: Instant);
    /// There is no websocket now.
    fn handle_refused(&mut self, _now: Instant) {}
    /// The websocket is gone, and that shows.
    fn handle_cut(&mut self, now: Instant);
    /// The machine was asleep until now: the wall clock advances by that much.
    fn handle_sleep(&mut self, _length: Duration) {}
    /// Something has come.
    fn handle_packet(&mut self, now: Instant, packet: Packet);
    /// Returns the next packet.
    fn poll_packet(&mut self, now: Instant) -> Option<Packet>;
    /// When it wants to be called again.
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// That time has come.
    fn handle_timeout(&mut self, now: Instant);
    /// Returns the channel's next event.
    fn poll_event(&mut self) -> Option<Event>;
    /// Returns whether it has given up.
    fn is_over(&self) -> bool {
        false
    }
}

/// A channel to which each socket is reported as soon as it exists.
pub(crate) struct BareChannel {
    channel: Channel,
    is_open: bool,
}

impl BareChannel {
    pub(crate) fn new(channel: Channel) -> BareChannel {
        BareChannel { channel, is_open: false }
    }
}

impl Client for BareChannel {
    fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    fn poll_attempt(&mut self, _now: Instant) -> bool {
        !self.is_open
    }

    fn handle_opened(&mut self, now: Instant) {
        self.is_open = true;
        self.channel.handle_open(now, 0, "token");
    }

    fn handle_cut(&mut self, now: Instant) {
        self.is_open = false;
        self.channel.handle_lost(now);
    }

    fn handle_packet(&mut self, now: Instant, packet: Packet) {
        if let Packet::Frame(frame) = packet {
            self.channel.handle_frame(now, frame);
        }
    }

    fn poll_packet(&mut self, now: Instant) -> Option<Packet> {
        loop {
            if let Transmit::Binary(frame) = self.channel.poll_transmit(now)? {
                return Some(Packet::Frame(frame));
            }
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.channel.poll_timeout().map(|(at, _)| at)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.channel.handle_timeout(now);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.channel.poll_event()
    }
}
