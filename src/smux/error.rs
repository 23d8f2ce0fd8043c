//! Errors.

use std::time::Duration;

use thiserror::Error;

use super::frame::{FrameError, StreamId};

/// The session has failed. It sends nothing more; opening and all `handle_*` return the same error again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The peer does not speak smux version 1.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Keepalive is on and nothing arrived for its timeout.
    #[error("nothing received over smux for {} s", .0.as_secs())]
    Silent(Duration),
}

/// A stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// [`Config::max_streams`](super::Config::max_streams) are in use; try again once one has ended.
    #[error("{0} smux streams are open, no more are allowed")]
    TooManyStreams(usize),
    /// 32-bit ids do not wrap around.
    #[error("all smux stream ids are used up")]
    IdsExhausted,
    /// The session has failed before.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Data cannot be queued; none of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// More than [`Session::send_capacity`](super::Session::send_capacity).
    #[error("smux stream {id} has room for {capacity} bytes, not {length}")]
    Full {
        /// The stream.
        id: StreamId,
        /// Bytes that would have fitted.
        capacity: usize,
        /// Bytes given.
        length: usize,
    },
    /// The stream is unknown, finished or closed.
    #[error("smux stream {0} is not open for sending")]
    NotOpen(StreamId),
}
