//! The same interface on Windows.
#![expect(
    unsafe_code,
    reason = "the system's calls for sockets, sessions, jobs, networks and the command line are C"
)]

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle as _, AsRawSocket, FromRawHandle as _, OwnedHandle};
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff,
    ctrl_shutdown,
};
use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{HANDLE, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    CancelMibChangeNotify2, MIB_IPFORWARD_ROW2, MIB_NOTIFICATION_TYPE, MIB_UNICASTIPADDRESS_ROW,
    NotifyRouteChange2, NotifyUnicastIpAddressChange,
};
#[cfg(test)]
use windows_sys::Win32::Networking::WinSock::getsockopt;
use windows_sys::Win32::Networking::WinSock::{
    AF_UNSPEC, SO_EXCLUSIVEADDRUSE, SOCKET, SOL_SOCKET, setsockopt,
};
use windows_sys::Win32::System::Environment::GetCommandLineW;
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_LIMIT_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Threading::CREATE_SUSPENDED;

use super::signal::Signal;

/// The console's control events.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: CtrlC,
    quit: CtrlBreak,
    close: CtrlClose,
    /// A service gets the logoff of any user, and runs on: it does not listen.
    logoff: Option<CtrlLogoff>,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: ctrl_c()?,
            quit: ctrl_break()?,
            close: ctrl_close()?,
            logoff: if is_service() { None } else { Some(ctrl_logoff()?) },
            shutdown: ctrl_shutdown()?,
        })
    }

    /// The next event. Cancel-safe.
    ///
    /// Ctrl-Break is an interrupt, as in Go's runtime and so in the official plugin. The system ends the process some
    /// seconds after the other three, which is enough to end the session.
    pub(crate) async fn recv(&mut self) -> Signal {
        let Signals { interrupt, quit, close, logoff, shutdown } = self;
        let logoff = async {
            match logoff {
                Some(logoff) => logoff.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = shutdown.recv() => Signal::Terminate,
            Some(()) = logoff => Signal::Hangup,
            Some(()) = close.recv() => Signal::Hangup,
            Some(()) = interrupt.recv() => Signal::Interrupt,
            Some(()) = quit.recv() => Signal::Interrupt,
            else => std::future::pending().await,
        }
    }
}

/// Services run in session 0, where no user logs on.
fn is_service() -> bool {
    let mut session = u32::MAX;
    // SAFETY: `session` is a valid place for the answer.
    unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) != 0 && session == 0 }
}

/// Keeps the socket's port from other processes: on Windows another one may bind the same port with `SO_REUSEADDR`, and
/// get a part of the clients. To be called before the socket is bound.
///
/// # Errors
/// If the system does not support the option.
pub(crate) fn bind_exclusively(socket: &impl AsRawSocket) -> io::Result<()> {
    let on = 1i32;
    let (value, length) = ((&raw const on).cast(), size_of::<i32>() as i32);
    // SAFETY: the socket is open; `value` points to `length` bytes.
    let result = unsafe {
        setsockopt(socket.as_raw_socket() as SOCKET, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether [`bind_exclusively`] holds for the socket.
#[cfg(test)]
pub(crate) fn is_exclusive(socket: &impl AsRawSocket) -> io::Result<bool> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as i32);
    // SAFETY: the socket is open; `value` has room for `length` bytes.
    let result = unsafe {
        getsockopt(
            socket.as_raw_socket() as SOCKET,
            SOL_SOCKET,
            SO_EXCLUSIVEADDRUSE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value != 0) } else { Err(io::Error::last_os_error()) }
}

/// Runs `change` on this process's command line, in the memory that the system shows to other processes.
pub(super) fn with_command_line<T>(change: impl FnOnce(&mut [u16]) -> T) -> Option<T> {
    // SAFETY: takes no pointers.
    let start = unsafe { GetCommandLineW() }.cast_mut();
    if start.is_null() {
        return None;
    }
    // SAFETY: the system keeps the command line as a terminated string for the whole life of the process, in memory that
    // the process may write to (its parameters, which it gets at its start). Only the standard library and the C runtime
    // read it, at the start of `main` or when asked for arguments, and copy it; no other thread does so, since
    // this is called before any other exists. The terminator is not part of the slice.
    unsafe {
        let length = (0..MAX_COMMAND_LINE).take_while(|at| *start.add(*at) != 0).count();
        Some(change(std::slice::from_raw_parts_mut(start, length)))
    }
}

/// The number of sockets that the process may have open: the system has no small limit.
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

/// A write beyond a quota is an error on Windows.
pub(crate) fn survive_file_size_limit() {}

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

/// Bond between a command and this process: a job, which the system ends with its last handle. The commands that the
/// command starts are in it, too.
#[derive(Debug)]
pub(crate) struct Tie(#[expect(dead_code, reason = "held, not used")] OwnedHandle);

/// Spawns a command that ends when this process does, however that ends.
///
/// # Errors
/// As the system's. A command that cannot be tied is ended.
pub(crate) fn spawn_tied(command: &mut Command) -> io::Result<(Child, Tie)> {
    let job = new_job()?;
    // Suspended, so that it neither ends, after which it cannot be tied, nor starts others before it is in the job.
    let mut child = command.creation_flags(CREATE_SUSPENDED).spawn()?;
    match tie(&child, &job) {
        Ok(()) => Ok((child, Tie(job))),
        Err(error) => {
            let _ = child.start_kill();
            Err(error)
        }
    }
}

/// Puts a suspended process in the job, and lets it run.
fn tie(child: &Child, job: &OwnedHandle) -> io::Result<()> {
    let process = child.raw_handle().ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: both handles are open: the child's as long as `child` has not been waited for.
    if unsafe { AssignProcessToJobObject(job.as_raw_handle(), process) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let status = unsafe { NtResumeProcess(process) };
    if status >= 0 { Ok(()) } else { Err(io::Error::other(format!("not resumed: {status:#x}"))) }
}

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    // In all versions of Windows, and documented in none. The documented call needs a handle of the thread, which the
    // standard library closes.
    fn NtResumeProcess(process: HANDLE) -> i32;
}

fn new_job() -> io::Result<OwnedHandle> {
    // SAFETY: without attributes and name, both pointers may be null.
    let job = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
    if job.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is new and has no other owner.
    let job = unsafe { OwnedHandle::from_raw_handle(job) };
    let limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION {
        BasicLimitInformation: JOBOBJECT_BASIC_LIMIT_INFORMATION {
            LimitFlags: JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
            ..Default::default()
        },
        ..Default::default()
    };
    let size = size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32;
    let pointer = (&raw const limits).cast::<c_void>();
    // SAFETY: the pointer leads to a structure of the class and of the size that are named.
    let set = unsafe {
        SetInformationJobObject(job.as_raw_handle(), JobObjectExtendedLimitInformation, pointer, size)
    };
    if set == 0 { Err(io::Error::last_os_error()) } else { Ok(job) }
}

/// The console sends its events to the commands itself.
pub(crate) fn pass_on(_id: u32, _signal: Signal) {}

/// There is no job control.
pub(crate) fn stop() {}

/// Returns whether the console sends its events to the commands, too.
pub(crate) fn is_in_foreground() -> bool {
    true
}

/// UTF-16 units of a command line, the most that CreateProcess accepts.
const MAX_COMMAND_LINE: usize = 32_767;

#[cfg(test)]
mod tests {
    use super::*;

    /// As when this process is killed: the system closes its handles.
    #[tokio::test]
    async fn a_tied_command_ends_with_its_job() {
        let mut command = Command::new("cmd");
        command.args(["/c", "ping -n 60 127.0.0.1 >nul"]);
        let (mut child, tie) = spawn_tied(&mut command).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(tie);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
        assert!(ended.is_ok(), "still running");
    }

    #[tokio::test]
    async fn a_program_with_a_console_listens_to_all_events() {
        assert!(!is_service());
        let mut signals = Signals::install().unwrap();
        assert!(signals.logoff.is_some());
        let early = tokio::time::timeout(std::time::Duration::from_millis(10), signals.recv()).await;
        assert!(early.is_err(), "no event has come");
    }
}
