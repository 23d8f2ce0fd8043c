//! Standard handles, and reading and writing whatever is behind them.
#![expect(unsafe_code, reason = "the system's calls are C")]

use std::io;
use std::mem::{ManuallyDrop, zeroed};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_HANDLE_EOF, ERROR_IO_PENDING, ERROR_NETNAME_DELETED, ERROR_NO_DATA,
    ERROR_PIPE_NOT_CONNECTED, HANDLE, INVALID_HANDLE_VALUE, WAIT_OBJECT_0,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_PIPE, GetFileType, ReadFile, WriteFile};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::GetNamedPipeInfo;
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects};

/// The three standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standard {
    Input,
    Output,
    Error,
}

/// A handle that the process was started with, and that stays open as long as it lives.
#[derive(Clone, Copy, Debug)]
pub(in crate::term) struct Handle(HANDLE);

// SAFETY: a handle is a number that every thread of the process may use.
unsafe impl Send for Handle {}
// SAFETY: as above; the system orders what several threads do with it.
unsafe impl Sync for Handle {}

impl Standard {
    /// The stream's handle; `None` for a process that was started without.
    pub(crate) fn get(self) -> Option<Handle> {
        let which = match self {
            Standard::Input => STD_INPUT_HANDLE,
            Standard::Output => STD_OUTPUT_HANDLE,
            Standard::Error => STD_ERROR_HANDLE,
        };
        // SAFETY: takes no pointers.
        let handle = unsafe { GetStdHandle(which) };
        (!handle.is_null() && handle != INVALID_HANDLE_VALUE).then_some(Handle(handle))
    }
}

impl Handle {
    pub(crate) fn raw(self) -> HANDLE {
        self.0
    }

    /// Reads and writes as a file, whose place in it the system keeps.
    pub(crate) fn as_file(self) -> ManuallyDrop<std::fs::File> {
        // SAFETY: the handle is open, and stays so, since the file is never dropped.
        ManuallyDrop::new(unsafe { std::fs::File::from_raw_handle(self.0) })
    }
}

/// Returns whether it is a pipe or a socket: something with another end.
pub(super) fn is_pipe(handle: Handle) -> bool {
    // SAFETY: takes no pointers.
    unsafe { GetFileType(handle.0) == FILE_TYPE_PIPE }
}

/// Reads and writes a pipe or socket, opened for overlapped operations or not (OpenSSH for Windows hands over the
/// former, for which a plain read or write is not defined).
#[derive(Debug)]
pub(in crate::term) struct Pipe {
    handle: Handle,
    done: Event,
    is_socket: bool,
}

impl Pipe {
    /// # Errors
    /// If the system has no event left.
    pub(crate) fn new(handle: Handle) -> io::Result<Pipe> {
        // SAFETY: only asks whether it is a pipe: all places for answers may be null.
        let is_named =
            unsafe { GetNamedPipeInfo(handle.0, null_mut(), null_mut(), null_mut(), null_mut()) } != 0;
        Ok(Pipe { handle, done: Event::new()?, is_socket: !is_named })
    }

    /// Reads what there is, at least a byte; 0 at the end, or when `stop` was set (which a handle that is not opened
    /// for overlapped operations sees only when its read is over).
    ///
    /// # Errors
    /// As the system's.
    pub(crate) fn read(&self, buffer: &mut [u8], stop: &Event) -> io::Result<usize> {
        loop {
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let start = |operation: *mut OVERLAPPED| {
                // SAFETY: `buffer` is exclusively ours, at least `length` long, and outlives the operation, which
                // `run` waits for.
                unsafe { ReadFile(self.handle.0, buffer.as_mut_ptr(), length, null_mut(), operation) }
            };
            match self.run(start, Some(stop)) {
                // A write of nothing into the pipe: not the end.
                Ok(0) if !self.is_socket && !stop.is_set() => {}
                Err(error) if is_gone(&error) => return Ok(0),
                done => return done,
            }
        }
    }

    /// Writes some of `bytes`, waiting as long as it takes.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when the other end is closed, in whatever way the system says so.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = |operation: *mut OVERLAPPED| {
            // SAFETY: `bytes` is at least `length` long and outlives the operation, which `run` waits for.
            unsafe { WriteFile(self.handle.0, bytes.as_ptr(), length, null_mut(), operation) }
        };
        self.run(start, None)
            .map_err(|error| if is_gone(&error) { io::ErrorKind::BrokenPipe.into() } else { error })
    }

    /// Starts an operation and waits for its end, or for `stop`, which cancels it.
    fn run(&self, start: impl FnOnce(*mut OVERLAPPED) -> i32, stop: Option<&Event>) -> io::Result<usize> {
        // SAFETY: all zeroes are a valid value: offset 0, no event.
        let mut operation: OVERLAPPED = unsafe { zeroed() };
        operation.hEvent = self.done.raw();
        let operation = &raw mut operation;
        if start(operation) == 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(ERROR_IO_PENDING.cast_signed()) {
                return Err(error);
            }
            if let Some(stop) = stop
                && wait_for_either(stop.raw(), self.done.raw())
            {
                // SAFETY: the operation is ours and has not been collected. That it is over already is no harm.
                unsafe { CancelIoEx(self.handle.0, operation) };
            }
        }
        let mut count = 0;
        // SAFETY: the operation has been started on this handle, and lives until this call has waited for its end.
        if unsafe { GetOverlappedResult(self.handle.0, operation, &raw mut count, 1) } == 0 {
            let error = io::Error::last_os_error();
            return if stop.is_some_and(Event::is_set) { Ok(0) } else { Err(error) };
        }
        Ok(count as usize)
    }
}

/// Returns whether the error says that the other end has been closed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    const GONE: [u32; 5] =
        [ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED, ERROR_HANDLE_EOF, ERROR_NETNAME_DELETED];
    let code = error.raw_os_error().map(i32::cast_unsigned);
    code.is_some_and(|code| GONE.contains(&code))
        || matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Something to wait for that is set once.
#[derive(Debug)]
pub(in crate::term) struct Event(OwnedHandle);

impl Event {
    /// # Errors
    /// If the system has none left.
    pub(crate) fn new() -> io::Result<Event> {
        // SAFETY: the pointers may be null: no attributes, no name.
        let handle = unsafe { CreateEventW(null(), 1, 0, null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is open and owned here.
        Ok(Event(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    pub(crate) fn set(&self) {
        // SAFETY: the handle is open.
        unsafe { SetEvent(self.raw()) };
    }

    pub(crate) fn is_set(&self) -> bool {
        let handle = self.raw();
        // SAFETY: one open handle, no wait.
        unsafe { WaitForMultipleObjects(1, &raw const handle, 0, 0) == WAIT_OBJECT_0 }
    }

    pub(crate) fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }
}

/// Waits until one of them is signalled, and says whether `first` is. A wait that fails counts as `second`.
pub(super) fn wait_for_either(first: HANDLE, second: HANDLE) -> bool {
    let handles = [first, second];
    // SAFETY: two handles, open as long as their owners, whom the callers hold.
    unsafe { WaitForMultipleObjects(2, handles.as_ptr(), 0, INFINITE) == WAIT_OBJECT_0 }
}
