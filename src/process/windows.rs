//! The same interface on Windows.
#![expect(unsafe_code, reason = "the system reports changes of the network through callbacks")]

use std::ffi::c_void;
use std::io;
use std::sync::Arc;

use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};
use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{HANDLE, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    CancelMibChangeNotify2, MIB_IPFORWARD_ROW2, MIB_NOTIFICATION_TYPE, MIB_UNICASTIPADDRESS_ROW,
    NotifyRouteChange2, NotifyUnicastIpAddressChange,
};
use windows_sys::Win32::Networking::WinSock::AF_UNSPEC;

use super::Signal;

/// The console's control events.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: CtrlC,
    quit: CtrlBreak,
    close: CtrlClose,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        Ok(Signals { interrupt: ctrl_c()?, quit: ctrl_break()?, close: ctrl_close()? })
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.close.recv() => Signal::Hangup,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.quit.recv() => Signal::Quit,
            else => std::future::pending().await,
        }
    }
}

/// How many sockets the process may have open: the system has no small limit.
pub(crate) fn descriptor_limit() -> usize {
    usize::MAX
}

/// Sockets have no such limit here.
pub(crate) fn raise_descriptor_limit() {}

/// Sockets have no such limit here.
///
/// # Errors
/// None.
pub(crate) fn check_descriptors() -> io::Result<()> {
    Ok(())
}

/// There are none, but for what an administrator switches on in the registry.
pub(crate) fn forbid_core_dumps() {}

/// A stream of changes to the machine's addresses and routes.
#[derive(Debug)]
pub(crate) struct NetworkEvents {
    changed: Arc<Notify>,
    handles: Vec<HANDLE>,
}

// SAFETY: the handles are only numbers, which any thread may pass to the system.
unsafe impl Send for NetworkEvents {}

impl NetworkEvents {
    /// Starts to listen.
    ///
    /// # Errors
    /// The system's error number.
    pub(crate) fn open() -> io::Result<NetworkEvents> {
        let mut events = NetworkEvents { changed: Arc::new(Notify::new()), handles: Vec::new() };
        let context: *const c_void = Arc::as_ptr(&events.changed).cast();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context outlives the registration, which `drop` cancels first.
        let status = unsafe {
            NotifyUnicastIpAddressChange(AF_UNSPEC, Some(address_changed), context, false, &mut handle)
        };
        events.add(status, handle)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: as above.
        let status =
            unsafe { NotifyRouteChange2(AF_UNSPEC, Some(route_changed), context, false, &mut handle) };
        events.add(status, handle)?;
        Ok(events)
    }

    /// Resolves after one or more changes. Cancel-safe.
    ///
    /// # Errors
    /// None.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        self.changed.notified().await;
        Ok(())
    }

    fn add(&mut self, status: u32, handle: HANDLE) -> io::Result<()> {
        if status != NO_ERROR {
            return Err(io::Error::from_raw_os_error(status as i32));
        }
        self.handles.push(handle);
        Ok(())
    }
}

impl Drop for NetworkEvents {
    fn drop(&mut self) {
        for handle in self.handles.drain(..) {
            // SAFETY: it was registered by `open`, and is cancelled once. The call waits for callbacks under way.
            unsafe { CancelMibChangeNotify2(handle) };
        }
    }
}

unsafe extern "system" fn address_changed(
    context: *const c_void,
    _row: *const MIB_UNICASTIPADDRESS_ROW,
    _kind: MIB_NOTIFICATION_TYPE,
) {
    // SAFETY: the context of `open`, which lives as long as the registration.
    unsafe { &*context.cast::<Notify>() }.notify_one();
}

unsafe extern "system" fn route_changed(
    context: *const c_void,
    _row: *const MIB_IPFORWARD_ROW2,
    _kind: MIB_NOTIFICATION_TYPE,
) {
    // SAFETY: as above.
    unsafe { &*context.cast::<Notify>() }.notify_one();
}
