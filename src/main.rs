//! The executable; everything is in the library.

use std::process::ExitCode;

#[cfg(not(windows))]
fn main() -> ExitCode {
    session_manager_plugin::main()
}

/// On a separate thread: Windows gives the first one [1 MiB of stack][size], and a session's futures, not optimized,
/// overflow that.
///
/// [size]: https://learn.microsoft.com/en-us/windows/win32/procthread/thread-stack-size
#[cfg(windows)]
fn main() -> ExitCode {
    let thread = std::thread::Builder::new().name("main".to_owned()).stack_size(STACK);
    match thread.spawn(session_manager_plugin::main) {
        // The panic has been reported.
        Ok(thread) => thread.join().unwrap_or(ExitCode::from(101)),
        Err(_) => session_manager_plugin::main(),
    }
}

/// Bytes, as Linux and macOS have it.
#[cfg(windows)]
const STACK: usize = 8 * 1024 * 1024;
