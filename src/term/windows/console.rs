//! The console behind a standard handle: mode, size, text, keys.
#![expect(unsafe_code, reason = "the console API is C")]

use std::io;
use std::ptr::null;

use windows_sys::Win32::Foundation::{ERROR_OPERATION_ABORTED, GetLastError, SetLastError};
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, CONSOLE_READCONSOLE_CONTROL, CONSOLE_SCREEN_BUFFER_INFO, GetConsoleMode,
    GetConsoleScreenBufferInfo, INPUT_RECORD, KEY_EVENT, ReadConsoleInputW, ReadConsoleW, SetConsoleMode,
    WriteConsoleW,
};

use super::handle::{Handle, Standard};
use crate::protocol::TerminalSize;
use crate::term::keys::Key;

/// The window's size, not the buffer's behind it.
pub(in crate::term) fn size() -> Option<TerminalSize> {
    [Standard::Output, Standard::Error].into_iter().find_map(|stream| window_of(stream.get()?))
}

fn window_of(handle: Handle) -> Option<TerminalSize> {
    let mut info = CONSOLE_SCREEN_BUFFER_INFO::default();
    // SAFETY: the handle is open; `info` is a valid place for the answer.
    let known = unsafe { GetConsoleScreenBufferInfo(handle.raw(), &raw mut info) } != 0;
    let window = info.srWindow;
    let span = |low: i16, high: i16| u16::try_from(i32::from(high) - i32::from(low) + 1).ok();
    let (cols, rows) = (span(window.Left, window.Right)?, span(window.Top, window.Bottom)?);
    (known && cols > 0 && rows > 0).then_some(TerminalSize { cols, rows })
}

/// The mode; `None` if no console is behind the handle.
pub(super) fn mode(handle: Handle) -> Option<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the handle is open; `mode` is a valid place for the answer.
    (unsafe { GetConsoleMode(handle.raw(), &raw mut mode) } != 0).then_some(mode)
}

/// # Errors
/// If the console does not take the mode.
pub(super) fn set_mode(handle: Handle, mode: CONSOLE_MODE) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { SetConsoleMode(handle.raw(), mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Waits for key events and hands them to `take`.
///
/// # Errors
/// If the console is gone.
pub(super) fn read_keys(handle: Handle, mut take: impl FnMut(Key)) -> io::Result<()> {
    let mut records = [INPUT_RECORD::default(); RECORDS];
    let mut count = 0;
    // SAFETY: the handle is open; `records` has room for as many as are asked for, `count` is a valid place.
    let read =
        unsafe { ReadConsoleInputW(handle.raw(), records.as_mut_ptr(), RECORDS as u32, &raw mut count) };
    if read == 0 {
        return Err(io::Error::last_os_error());
    }
    for record in records.get(..count as usize).unwrap_or_default() {
        if u32::from(record.EventType) != KEY_EVENT {
            continue;
        }
        // SAFETY: the type says which member of the union it is; in the inner one both are the same 16 bits.
        let (event, unit) = unsafe { (record.Event.KeyEvent, record.Event.KeyEvent.uChar.UnicodeChar) };
        take(Key {
            is_down: event.bKeyDown != 0,
            repeats: event.wRepeatCount,
            code: event.wVirtualKeyCode,
            unit,
            state: event.dwControlKeyState,
        });
    }
    Ok(())
}

/// Reads UTF-16 units of a line, which the console lets the user edit; ^Z ends the read, too.
///
/// # Errors
/// If the console is gone.
pub(super) fn read_line(handle: Handle, units: &mut [u16]) -> io::Result<usize> {
    let length = u32::try_from(units.len()).unwrap_or(u32::MAX);
    let control = CONSOLE_READCONSOLE_CONTROL {
        nLength: size_of::<CONSOLE_READCONSOLE_CONTROL>() as u32,
        nInitialChars: 0,
        dwCtrlWakeupMask: 1 << CONTROL_Z,
        dwControlKeyState: 0,
    };
    loop {
        let mut count = 0;
        // SAFETY: the handle is open, `units` has room for `length`, `control` and `count` are valid.
        let (read, error) = unsafe {
            SetLastError(0);
            let units = units.as_mut_ptr().cast();
            let read = ReadConsoleW(handle.raw(), units, length, &raw mut count, &raw const control);
            (read != 0, GetLastError())
        };
        match (read, count) {
            // Ctrl-C, which its handler has seen.
            (true, 0) if error == ERROR_OPERATION_ABORTED => {}
            (true, count) => return Ok(count as usize),
            (false, _) => return Err(io::Error::from_raw_os_error(error.cast_signed())),
        }
    }
}

/// Writes text, whatever the code page is (smp#115).
///
/// # Errors
/// If the console is gone.
pub(super) fn write(handle: Handle, text: &str) -> io::Result<()> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut rest = units.as_slice();
    while !rest.is_empty() {
        let piece = rest.get(..AT_ONCE).unwrap_or(rest);
        // The halves of a character belong together.
        let length = match piece.last() {
            Some(0xd800..0xdc00) if piece.len() > 1 => piece.len() - 1,
            _ => piece.len(),
        };
        let mut count = 0;
        // SAFETY: the handle is open, `piece` has at least `length` units, `count` is a valid place.
        let written =
            unsafe { WriteConsoleW(handle.raw(), piece.as_ptr(), length as u32, &raw mut count, null()) };
        if written == 0 || count == 0 {
            return Err(io::Error::last_os_error());
        }
        rest = rest.get(count as usize..).unwrap_or_default();
    }
    Ok(())
}

/// The control character that ends input at the beginning of a line, where the console edits lines.
pub(super) const CONTROL_Z: u16 = 0x1a;
/// Events that are read at once.
const RECORDS: usize = 512;
/// UTF-16 units that are written at once; old consoles take no more than 64 KiB.
const AT_ONCE: usize = 8 * 1024;
