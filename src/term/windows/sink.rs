//! Stdout and stderr as sinks. All writes go through the writer thread.

use std::io::{self, IoSlice, Write};
use std::sync::{Mutex, PoisonError};

use super::console;
use super::handle::{Handle, Pipe, Standard, is_pipe};
use crate::term::utf8::Utf8;

#[derive(Debug)]
pub(in crate::term) enum Sink {
    /// A console takes text alone.
    Console(Handle, Mutex<Utf8>),
    Pipe(Pipe),
    File(Handle),
    /// The process was started without this stream: all that is written is dropped.
    Nothing,
}

impl Sink {
    pub(crate) fn stdout() -> io::Result<Sink> {
        Sink::on(Standard::Output)
    }

    pub(crate) fn stderr() -> io::Result<Sink> {
        Sink::on(Standard::Error)
    }

    fn on(stream: Standard) -> io::Result<Sink> {
        Ok(match stream.get() {
            None => Sink::Nothing,
            Some(handle) if console::mode(handle).is_some() => Sink::Console(handle, Mutex::default()),
            Some(handle) if is_pipe(handle) => Sink::Pipe(Pipe::new(handle)?),
            Some(handle) => Sink::File(handle),
        })
    }

    /// Nothing says here whether a write would block.
    pub(crate) fn write_now(&self, _bytes: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// The system reports that the other end is closed to writers alone.
    pub(crate) fn is_hung_up(&self) -> bool {
        false
    }

    /// Writes some of `batch`, waiting as long as it takes.
    pub(crate) fn write(&self, batch: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined;
        let bytes = match batch {
            [] => return Ok(0),
            [piece] => &**piece,
            pieces => {
                joined = pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>();
                joined.as_slice()
            }
        };
        match self {
            Sink::Console(handle, utf8) => {
                let text = utf8.lock().unwrap_or_else(PoisonError::into_inner).text(bytes);
                console::write(*handle, &text)?;
                Ok(bytes.len())
            }
            Sink::Pipe(pipe) => match pipe.write(bytes)? {
                0 => Err(io::ErrorKind::WriteZero.into()),
                count => Ok(count),
            },
            Sink::File(handle) => handle.as_file().write(bytes),
            Sink::Nothing => Ok(bytes.len()),
        }
    }
}
