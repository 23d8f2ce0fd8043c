//! Removing a secret from the environment.
#![expect(unsafe_code, reason = "changing the environment is unsafe while other threads may read it")]

use std::ffi::OsString;

/// Returns the variable and removes it, so that no child process (a `credential_process`) inherits
/// it; its bytes are wiped in place, so that `/proc/<pid>/environ` does not show them either.
///
/// For the start of `main`: while the process has other threads the variable is only read. (Where
/// threads cannot be counted, outside Linux, calling it in time is up to the caller.)
pub(crate) fn take_var(name: &str) -> Option<OsString> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    let value = std::env::var_os(name)?;
    if is_single_threaded() {
        wipe(name);
        // SAFETY: no other thread exists that could read the environment.
        unsafe { std::env::remove_var(name) };
    }
    Some(value)
}

/// Overwrites the value where the C environment holds it.
#[cfg(unix)]
fn wipe(name: &str) {
    let Ok(name) = std::ffi::CString::new(name) else { return };
    // SAFETY: `name` is a C string. There is no other thread, so that the value stays a valid, writable
    // C string until `remove_var`; exactly its bytes before the terminator are written.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if !value.is_null() {
            std::ptr::write_bytes(value, b'x', libc::strlen(value));
        }
    }
}

#[cfg(not(unix))]
fn wipe(_name: &str) {}

#[cfg(target_os = "linux")]
pub(super) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_single_threaded() -> bool {
    true
}
