//! Local connections: their sockets, the bytes that wait for their readers, their journal.

mod buffer;
mod connection;
mod gauge;
mod journal;
mod memory;
mod stream;

pub(crate) use self::connection::Connection;
pub(crate) use self::gauge::{Budget, Gauge, Limits};
pub(crate) use self::journal::Journal;
pub(crate) use self::memory::MemoryStream;
pub(crate) use self::stream::LocalStream;
