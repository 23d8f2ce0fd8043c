//! A session: streams, their beginnings and ends, what arrives for them.

mod invariants;
mod sending;
mod tentative;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::{Config, Role};
use super::error::{Error, OpenError, SendError};
use super::frame::{Decoder, Frame, OpenFrame, StreamId};
use super::keepalive::{Due, Timers};
use super::schedule::{Schedule, Turn};
use super::stream::{ReceiveState, SendState, Stream};

/// Events of a session, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream (server only).
    Accepted(StreamId),
    /// Bytes arrived, never none.
    Data(StreamId, Bytes),
    /// The peer sends no more on this stream. An agent has also stopped listening.
    Fin(StreamId),
}

/// Counters of ignored frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// SYN frames to a client, for a known stream, with id 0 or above the bound on streams.
    pub ignored_syns: u64,
    /// FIN frames and parts of PSH frames for streams that are unknown, ended or given up. They come in
    /// numbers after each [`Session::reset`], as the peer learns of it late.
    pub dropped_frames: u64,
    /// Payload bytes in those.
    pub dropped_bytes: u64,
}

/// One end of a smux session.
///
/// A `Session` owns no socket, clock or task. Its methods are of three kinds.
///
/// **Input** is passed to [`handle_bytes`](Self::handle_bytes), the carrier's bytes in their order and cut
/// anywhere, and with [`handle_timeout`](Self::handle_timeout). After each call the events are drained with
/// [`poll_event`](Self::poll_event): nothing else bounds them.
///
/// **What goes** is asked for with [`poll_transmit`](Self::poll_transmit) whenever the carrier has room: after each of
/// the other calls, and when room comes back. Data that it returns counts as sent; every byte must arrive, in order.
/// Without keepalive [`poll_timeout`](Self::poll_timeout) is `None` and there is no clock to mind; with it,
/// `handle_timeout` is due then, and `poll_transmit` after that. `now` never goes back.
///
/// **What is done with streams**: [`open`](Self::open), [`send`](Self::send) as much as
/// [`send_capacity`](Self::send_capacity) says, and one of the endings: [`finish`](Self::finish) (data still arrives),
/// [`close`](Self::close) (what is queued still goes), [`reset`](Self::reset) (nothing more, either way). An id is good
/// until then and until [`Event::Fin`]; afterwards calls with it do nothing.
///
/// It lasts until any method returns an [`Error`]: from then on opening and all `handle_*` return the same one, and there is
/// nothing to send. The protocol has no message for its end: when a session is dropped, its carrier must be closed as well.
///
/// With keepalive, [`set_reading`](Self::set_reading) says when the owner stops taking bytes, so that the silence that it
/// causes itself is not taken for a dead peer.
///
/// ```
/// use std::time::Instant;
///
/// use session_manager_plugin::smux::{Config, Event, Role, Session};
///
/// let now = Instant::now();
/// let mut client = Session::new(Config::new(Role::Client), now);
/// let mut server = Session::new(Config::new(Role::Server), now);
///
/// let id = client.open()?;
/// client.send(id, b"hello")?;
/// client.finish(id);
///
/// // The carrier: messages of at most 1,024 bytes.
/// while let Some(bytes) = client.poll_transmit(1024) {
///     server.handle_bytes(now, bytes)?;
/// }
/// assert_eq!(server.poll_event(), Some(Event::Accepted(id)));
/// assert_eq!(server.poll_event(), Some(Event::Data(id, "hello".into())));
/// assert_eq!(server.poll_event(), Some(Event::Fin(id)));
/// assert_eq!(server.poll_event(), None);
///
/// // The other direction is still open.
/// server.send(id, b"goodbye")?;
/// server.finish(id);
/// while let Some(bytes) = server.poll_transmit(1024) {
///     client.handle_bytes(now, bytes)?;
/// }
/// assert_eq!(client.poll_event(), Some(Event::Data(id, "goodbye".into())));
/// assert_eq!(client.poll_event(), Some(Event::Fin(id)));
/// assert_eq!(client.stream_count() + server.stream_count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    config: Config,
    streams: BTreeMap<StreamId, Stream>,
    next_id: Option<u32>,
    decoder: Decoder,
    events: VecDeque<Event>,
    schedule: Schedule,
    turn: Option<Turn>,
    frame: OpenFrame,
    /// Frames of tentative messages.
    tentative: BytesMut,
    /// Their repetition, as far as it is still to be sent.
    repetition: Bytes,
    is_settled: bool,
    /// A NOP is to be sent.
    nop: bool,
    timers: Option<Timers>,
    /// Sum of all streams' queues, in bytes.
    buffered: usize,
    counters: Counters,
    failure: Option<Error>,
}

impl Event {
    /// The stream concerned.
    pub fn id(&self) -> StreamId {
        match *self {
            Event::Accepted(id) | Event::Data(id, _) | Event::Fin(id) => id,
        }
    }
}

impl Session {
    /// A session with nothing sent or received. [`Config::max_frame`] 0 counts as 1.
    pub fn new(mut config: Config, now: Instant) -> Self {
        config.max_frame = config.max_frame.max(1);
        let timers = config.keepalive.map(|keepalive| Timers::new(keepalive, now));
        let next_id = Some(match config.role {
            Role::Client => 3,
            Role::Server => 2,
        });
        Self {
            config,
            streams: BTreeMap::new(),
            next_id,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            schedule: Schedule::default(),
            turn: None,
            frame: OpenFrame::default(),
            tentative: BytesMut::new(),
            repetition: Bytes::new(),
            is_settled: false,
            nop: false,
            timers,
            buffered: 0,
            counters: Counters::default(),
            failure: None,
        }
    }

    /// Opens a stream. Its SYN is sent at its first turn, together with what is queued by then.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(&mut self) -> Result<StreamId, OpenError> {
        self.check()?;
        if self.streams.len() >= self.config.max_streams {
            return Err(OpenError::TooManyStreams(self.config.max_streams));
        }
        let number = self.next_id.ok_or(OpenError::IdsExhausted)?;
        self.next_id = number.checked_add(2);
        let id = StreamId(number);
        self.streams.insert(id, Stream::opened());
        self.wake(id);
        self.assert_invariants();
        Ok(id)
    }

    /// Returns whether there is an id for another stream: a session has 2^31 of them.
    pub fn has_ids(&self) -> bool {
        self.next_id.is_some()
    }

    /// Leaves ids for so many streams only.
    #[cfg(test)]
    pub(crate) fn leave_ids(&mut self, count: u32) {
        self.next_id = Some(u32::MAX - 2 * (count - 1));
    }

    /// Returns the number of bytes that [`send`](Self::send) takes now; 0 also if the stream is not open for
    /// sending. Read the local socket only when it is more.
    pub fn send_capacity(&self, id: StreamId) -> usize {
        match self.streams.get(&id) {
            Some(stream) if stream.send == SendState::Open => {
                self.config.send_buffer.saturating_sub(stream.queued())
            }
            _ => 0,
        }
    }

    /// Queues data. How it is cut into frames is decided when it is sent.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing is queued then.
    pub fn send(&mut self, id: StreamId, data: &[u8]) -> Result<(), SendError> {
        let capacity = self.send_capacity(id);
        let stream = self.streams.get_mut(&id).filter(|stream| stream.send == SendState::Open);
        let stream = stream.ok_or(SendError::NotOpen(id))?;
        if data.len() > capacity {
            return Err(SendError::Full { id, capacity, length: data.len() });
        }
        if !data.is_empty() {
            stream.push(data);
            self.buffered += data.len();
            self.wake(id);
        }
        self.assert_invariants();
        Ok(())
    }

    /// Ends the sending direction: FIN follows what is queued. Data still arrives until [`Event::Fin`]. No
    /// effect on a stream that is not open for sending.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.send == SendState::Open
        {
            stream.send = SendState::Finishing;
            self.wake(id);
        }
        self.assert_invariants();
    }

    /// Ends both directions: FIN follows what is queued, and there are no more events of this stream.
    pub fn close(&mut self, id: StreamId) {
        self.events.retain(|event| event.id() != id);
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.receive == ReceiveState::Open
        {
            stream.receive = ReceiveState::GivenUp;
        }
        self.remove_if_over(id);
        self.finish(id);
    }

    /// Ends both directions at once: what is queued is dropped, but for the rest of a frame already begun. A
    /// stream of which the peer has not heard yet leaves no trace.
    pub fn reset(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let begun = self.frame.payload().filter(|&(owner, _)| owner == id).map_or(0, |(_, left)| left);
            self.buffered -= stream.discard(begun);
            if stream.is_unsent() {
                self.schedule.remove(id);
                self.streams.remove(&id);
            }
        }
        self.close(id);
    }

    /// Takes bytes from the peer. Drain the events before the next call: they are bounded by `bytes` only.
    ///
    /// Payloads are slices of `bytes`, except for small ones, which are copied so that a few undelivered
    /// bytes do not keep a whole message in memory.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Events of earlier frames remain available.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: Bytes) -> Result<(), Error> {
        self.check()?;
        if let Some(timers) = &mut self.timers
            && !bytes.is_empty()
        {
            timers.heard(now);
        }
        let shared = bytes.len();
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Some(frame)) => self.handle_frame(frame, shared),
                Ok(None) => break,
                Err(error) => return Err(self.fail(error.into())),
            }
        }
        self.assert_invariants();
        Ok(())
    }

    /// Returns the next event, oldest first.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Payload bytes queued in a stream.
    pub(crate) fn queued(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, Stream::queued)
    }

    /// Payload bytes queued in all streams; their headers come on top.
    pub fn buffered_out(&self) -> usize {
        self.buffered
    }

    /// Streams that exist, counted against [`Config::max_streams`].
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Returns the counters of ignored frames.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tells whether the caller takes bytes from the carrier. While it does not, silence is no failure; Go's
    /// smux makes the same exception. Reading is the initial state.
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        if let Some(timers) = &mut self.timers {
            timers.set_reading(now, reading);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why; only with keepalive.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.as_ref().filter(|_| self.failure.is_none()).map(Timers::next)
    }

    /// Does what is due at `now`; may be called at any time.
    ///
    /// # Errors
    ///
    /// [`Error::Silent`], or the failure that came before.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.check()?;
        match self.timers.as_mut().map_or(Due::Nothing, |timers| timers.handle(now)) {
            Due::Nothing => {}
            Due::Nop => self.nop = true,
            Due::Silence(timeout) => return Err(self.fail(Error::Silent(timeout))),
        }
        Ok(())
    }

    fn handle_frame(&mut self, frame: Frame, shared: usize) {
        match frame {
            Frame::Syn(id) => self.handle_syn(id),
            Frame::Push(id, part) => match self.streams.get(&id).map(|stream| stream.receive) {
                Some(ReceiveState::Open) => self.events.push_back(Event::Data(id, compact(part, shared))),
                _ => self.count_dropped(part.len()),
            },
            Frame::Fin(id) => match self.streams.get_mut(&id) {
                Some(stream) if stream.receive != ReceiveState::Finished => {
                    if stream.receive == ReceiveState::Open {
                        self.events.push_back(Event::Fin(id));
                    }
                    stream.receive = ReceiveState::Finished;
                    self.remove_if_over(id);
                }
                _ => self.count_dropped(0),
            },
            Frame::Nop => {}
        }
    }

    fn handle_syn(&mut self, id: StreamId) {
        let welcome = self.config.role == Role::Server
            && id.get() != 0
            && !self.streams.contains_key(&id)
            && self.streams.len() < self.config.max_streams;
        if welcome {
            self.streams.insert(id, Stream::accepted());
            self.events.push_back(Event::Accepted(id));
        } else {
            self.counters.ignored_syns += 1;
        }
    }

    fn count_dropped(&mut self, bytes: usize) {
        self.counters.dropped_frames += 1;
        self.counters.dropped_bytes += bytes as u64;
    }

    fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failure = Some(error);
        error
    }
}

/// Copies a part that is small against the `shared` bytes it would otherwise keep in memory.
fn compact(part: Bytes, shared: usize) -> Bytes {
    if part.len() < shared / COMPACT_BELOW { Bytes::copy_from_slice(&part) } else { part }
}

/// A slice keeps at most this many times its length in memory.
const COMPACT_BELOW: usize = 4;

// It sees private fields.
#[cfg(test)]
#[path = "../tests/session.rs"]
mod tests;
