//! The owner of one socket: the system reports its process, and the process's token the user.
#![expect(unsafe_code, reason = "the system's calls for sockets, processes and tokens are C")]

use std::net::SocketAddr;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_INSUFFICIENT_BUFFER, ERROR_INVALID_PARAMETER, GetLastError, HANDLE, NO_ERROR,
};
use windows_sys::Win32::NetworkManagement::IpHelper::{GetExtendedTcpTable, TCP_TABLE_OWNER_PID_CONNECTIONS};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};
use windows_sys::Win32::Security::{
    EqualSid, GetTokenInformation, IsWellKnownSid, PSID, TOKEN_QUERY, TOKEN_USER, TokenUser,
    WinLocalSystemSid,
};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcess, OpenProcessToken, PROCESS_QUERY_LIMITED_INFORMATION,
};

use super::owner::{PeerOwner, Stranger, canonical};
use super::tcp_table;

pub(super) fn peer_owner(local: SocketAddr, peer: SocketAddr) -> PeerOwner {
    let (local, peer) = (canonical(local), canonical(peer));
    let family = if peer.is_ipv4() { AF_INET } else { AF_INET6 };
    let Some(table) = table(u32::from(family)) else { return PeerOwner::Unknown };
    // Wine's has no processes.
    if tcp_table::process(&table, local, peer) != Some(std::process::id()) {
        return PeerOwner::Unknown;
    }
    match tcp_table::process(&table, peer, local) {
        None => PeerOwner::Unknown,
        Some(NOBODY) => PeerOwner::Gone,
        Some(KERNEL) => PeerOwner::Trusted,
        Some(process) if process == std::process::id() => PeerOwner::Trusted,
        Some(process) => judge(process),
    }
}

fn judge(process: u32) -> PeerOwner {
    // SAFETY: takes no pointers; the answer needs no closing.
    let Some(own) = User::of(unsafe { GetCurrentProcess() }) else { return PeerOwner::Unknown };
    // SAFETY: takes no pointers. What is opened is ours to close.
    let opened = unsafe {
        let handle = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, process);
        (!handle.is_null()).then(|| OwnedHandle::from_raw_handle(handle))
    };
    // SAFETY: takes no pointers.
    if opened.is_none() && unsafe { GetLastError() } == ERROR_INVALID_PARAMETER {
        // It has ended.
        return PeerOwner::Gone;
    }
    match opened.and_then(|handle| User::of(handle.as_raw_handle())) {
        Some(user) if user.is(&own) || user.is_system() => PeerOwner::Trusted,
        Some(_) => PeerOwner::Other(Stranger::Process(process)),
        // The token of an elevated process cannot be read from one that is not elevated, of the same user either. Users who
        // log on have sessions of their own; services share the first.
        None => match session(process) {
            Some(number) if number != SERVICES && Some(number) == session(std::process::id()) => {
                PeerOwner::Unknown
            }
            _ => PeerOwner::Other(Stranger::Process(process)),
        },
    }
}

/// The table of all TCP connections of an address family.
fn table(family: u32) -> Option<Vec<u32>> {
    let mut table: Vec<u32> = Vec::new();
    // It may grow between two calls.
    for _ in 0..ATTEMPTS {
        let mut length = u32::try_from(size_of_val(table.as_slice())).ok()?;
        // SAFETY: the table is a place of `length` bytes, aligned for its words; the length that is needed is written to
        // `length`.
        let status = unsafe {
            let place = table.as_mut_ptr();
            GetExtendedTcpTable(place.cast(), &raw mut length, 0, family, TCP_TABLE_OWNER_PID_CONNECTIONS, 0)
        };
        match status {
            NO_ERROR => return Some(table),
            ERROR_INSUFFICIENT_BUFFER => table = vec![0_u32; length as usize / size_of::<u32>() + SLACK],
            _ => return None,
        }
    }
    None
}

/// The user of a process.
struct User {
    /// A `TOKEN_USER` and, behind it, the SID that it points to. As u64, so that it is aligned.
    answer: Vec<u64>,
}

impl User {
    /// `None` if the token cannot be read.
    fn of(process: HANDLE) -> Option<User> {
        let mut token = std::ptr::null_mut();
        // SAFETY: the process's handle is open, and `token` a place for an answer, which is ours to close.
        let token = unsafe {
            (OpenProcessToken(process, TOKEN_QUERY, &raw mut token) != 0)
                .then(|| OwnedHandle::from_raw_handle(token))
        }?;
        let mut answer = vec![0_u64; USER_SIZE / 8];
        let mut length = 0;
        // SAFETY: the token is open, the answer a place of that length.
        let is_read = unsafe {
            let place = answer.as_mut_ptr().cast();
            GetTokenInformation(token.as_raw_handle(), TokenUser, place, USER_SIZE as u32, &raw mut length)
        };
        (is_read != 0).then_some(User { answer })
    }

    fn sid(&self) -> PSID {
        // SAFETY: the system has put a TOKEN_USER there.
        unsafe { self.answer.as_ptr().cast::<TOKEN_USER>().read() }.User.Sid
    }

    fn is(&self, other: &User) -> bool {
        // SAFETY: both point to SIDs in memory that lives as long.
        unsafe { EqualSid(self.sid(), other.sid()) != 0 }
    }

    fn is_system(&self) -> bool {
        // SAFETY: points to a SID.
        unsafe { IsWellKnownSid(self.sid(), WinLocalSystemSid) != 0 }
    }
}

/// The session of Windows in which a process runs.
fn session(process: u32) -> Option<u32> {
    let mut session = 0;
    // SAFETY: `session` is a place for the answer.
    (unsafe { ProcessIdToSessionId(process, &raw mut session) } != 0).then_some(session)
}

/// Owner of connections whose process has closed them.
const NOBODY: u32 = 0;
/// Process of the kernel's own connections.
const KERNEL: u32 = 4;
/// Session of services, in which users do not log on.
const SERVICES: u32 = 0;
/// Calls until the table fits.
const ATTEMPTS: usize = 4;
/// Words for connections that are made between two calls.
const SLACK: usize = 1024;
/// Bytes of a `TOKEN_USER` with the longest SID (68 bytes), and some more.
const USER_SIZE: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_client_of_this_process_is_this_user_s() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let served = listener.accept().unwrap().0;
        let (local, peer) = (served.local_addr().unwrap(), served.peer_addr().unwrap());
        let table = table(u32::from(AF_INET)).unwrap();
        let process = tcp_table::process(&table, local, peer).expect("our own end");
        assert_eq!(tcp_table::process(&table, peer, local), Some(process));
        let is_known = process == std::process::id();
        assert_eq!(peer_owner(local, peer), if is_known { PeerOwner::Trusted } else { PeerOwner::Unknown });
        assert_eq!(judge(std::process::id()), PeerOwner::Trusted, "by its token");
        drop(client);
    }
}
