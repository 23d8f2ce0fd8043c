//! Files that are not the place where stdout leads to.
//!
//! stdout carries the session's bytes and the lines that callers parse. Nothing else may be written there, whatever name it
//! is opened by: `/dev/stdout`, the name of the file that it is redirected to, the terminal's own.

use std::fs::File;
use std::io::{self, IsTerminal as _};

/// Checks that what is written to `file` does not appear between the session's output.
///
/// # Errors
/// A sentence that says so, or the system's error.
pub(super) fn check_is_elsewhere(file: &File) -> io::Result<()> {
    let is_same = if file.is_terminal() { is_terminal_of_stdout(file)? } else { is_file_of_stdout(file)? };
    if is_same { Err(io::Error::other("the session's output goes there")) } else { Ok(()) }
}

/// A file or a pipe. Devices that are not terminals (`/dev/null`) mix nothing up.
#[cfg(unix)]
fn is_file_of_stdout(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let found = file.metadata()?;
    let stdout = stdout()?;
    let is_same = (found.dev(), found.ino()) == (stdout.dev(), stdout.ino());
    Ok(is_same && !found.file_type().is_char_device())
}

/// The terminal that stdout is, by its own name or as the controlling terminal.
#[cfg(unix)]
fn is_terminal_of_stdout(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    if !io::stdout().is_terminal() {
        return Ok(false);
    }
    let device = file.metadata()?.rdev();
    let controlling = std::fs::metadata("/dev/tty").map(|found| found.rdev()).ok();
    Ok(device == stdout()?.rdev() || Some(device) == controlling)
}

#[cfg(unix)]
fn stdout() -> io::Result<std::fs::Metadata> {
    use std::os::fd::AsFd as _;
    File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()
}

/// Not looked up: `cmd` opens the file of a redirection for itself only, and PowerShell's output is a pipe.
#[cfg(not(unix))]
fn is_file_of_stdout(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// There is one console.
#[cfg(not(unix))]
fn is_terminal_of_stdout(_file: &File) -> io::Result<bool> {
    Ok(io::stdout().is_terminal())
}
