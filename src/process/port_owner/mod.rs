//! The process that listens on a TCP port of this machine.

#[cfg(target_os = "linux")]
mod linux;

/// Returns the name and the id of the process that listens on `port`. `None` where the system does not report it, or
/// where this user may not see it.
#[cfg(target_os = "linux")]
pub(crate) fn port_owner(port: u16) -> Option<String> {
    linux::port_owner(port)
}

/// The system does not report it without another program.
#[cfg(not(target_os = "linux"))]
pub(crate) fn port_owner(_port: u16) -> Option<String> {
    None
}
