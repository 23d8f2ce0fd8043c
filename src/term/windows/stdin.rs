//! Standard input, read by a thread.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::console::{self, CONTROL_Z};
use super::handle::{Event, Handle, Pipe, Standard, is_pipe, wait_for_either};
use super::raw::is_raw;
use crate::term::keys::{Keyboard, Utf16};
use crate::term::limits::{READ_SIZE, STDIN_CHUNKS};

/// Standard input. A console in raw mode is read key by key, so that no key means the end; in line mode ^Z at the
/// beginning of a line does.
#[derive(Debug)]
pub(crate) struct Stdin {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    stop: Arc<Event>,
}

type Chunks = mpsc::Sender<io::Result<Bytes>>;

impl Stdin {
    /// Starts to read. To be called in raw mode if keys are wanted.
    ///
    /// # Errors
    /// If the process has no thread or event left.
    pub(crate) fn open() -> io::Result<Stdin> {
        let (sender, chunks) = mpsc::channel(STDIN_CHUNKS);
        let stop = Arc::new(Event::new()?);
        if let Some(handle) = Standard::Input.get() {
            let mut source = Source::on(handle)?;
            let stop = Arc::clone(&stop);
            let work = move || read_all(&mut source, &stop, &sender);
            thread::Builder::new().name("stdin".to_owned()).spawn(work)?;
        }
        Ok(Stdin { chunks, stop })
    }

    /// The next bytes; empty at the end of input. Cancel-safe.
    ///
    /// # Errors
    /// A read error.
    pub(crate) async fn read(&mut self) -> io::Result<Bytes> {
        self.chunks.recv().await.unwrap_or(Ok(Bytes::new()))
    }
}

impl Drop for Stdin {
    /// Keys that will not be read are left to the console's next user.
    fn drop(&mut self) {
        self.stop.set();
    }
}

/// Hands on what comes until the end, an error, or until the receiver is gone.
fn read_all(source: &mut Source, stop: &Event, chunks: &Chunks) {
    loop {
        let chunk = match source.read(stop) {
            Ok(None) => return,
            Ok(Some(bytes)) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let has_failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || has_failed {
            return;
        }
    }
}

#[derive(Debug)]
enum Source {
    Keys(Handle, Keyboard),
    Lines(Handle, Utf16),
    Pipe(Pipe, Box<[u8]>),
    File(Handle, Box<[u8]>),
}

impl Source {
    fn on(handle: Handle) -> io::Result<Source> {
        let buffer = || vec![0; READ_SIZE].into_boxed_slice();
        Ok(match console::mode(handle) {
            Some(_) if is_raw() => Source::Keys(handle, Keyboard::default()),
            Some(_) => Source::Lines(handle, Utf16::default()),
            None if is_pipe(handle) => Source::Pipe(Pipe::new(handle)?, buffer()),
            None => Source::File(handle, buffer()),
        })
    }

    /// The next bytes, at least one; `None` at the end.
    fn read(&mut self, stop: &Event) -> io::Result<Option<Bytes>> {
        match self {
            Source::Keys(handle, keyboard) => read_keys(*handle, keyboard, stop),
            Source::Lines(handle, text) => read_lines(*handle, text),
            Source::Pipe(pipe, buffer) => {
                let count = pipe.read(buffer, stop)?;
                Ok(filled(buffer, count))
            }
            Source::File(handle, buffer) => {
                let count = handle.as_file().read(buffer)?;
                Ok(filled(buffer, count))
            }
        }
    }
}

fn read_keys(handle: Handle, keyboard: &mut Keyboard, stop: &Event) -> io::Result<Option<Bytes>> {
    let mut bytes = Vec::new();
    while bytes.is_empty() {
        if wait_for_either(stop.raw(), handle.raw()) {
            return Ok(None);
        }
        console::read_keys(handle, |key| keyboard.press(key, &mut bytes))?;
    }
    Ok(Some(bytes.into()))
}

fn read_lines(handle: Handle, text: &mut Utf16) -> io::Result<Option<Bytes>> {
    let mut units = [0; LINE];
    let mut bytes = Vec::new();
    while bytes.is_empty() {
        let count = console::read_line(handle, &mut units)?;
        let read = units.get(..count).unwrap_or_default();
        let (read, is_end) = match read {
            [] | [CONTROL_Z] => (read, true),
            [before @ .., CONTROL_Z] => (before, false),
            whole => (whole, false),
        };
        if is_end {
            return Ok(None);
        }
        for unit in read {
            text.push(*unit, &mut bytes);
        }
    }
    Ok(Some(bytes.into()))
}

fn filled(buffer: &[u8], count: usize) -> Option<Bytes> {
    let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty())?;
    Some(Bytes::copy_from_slice(bytes))
}

/// UTF-16 units that are read of a line at once.
const LINE: usize = 4096;
