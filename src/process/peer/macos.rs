//! The owner of one socket, from the kernel's list of all of them.
#![expect(unsafe_code, reason = "the list has no safe interface")]

use std::net::SocketAddr;

use rustix::process::geteuid;

use super::owner::{PeerOwner, canonical};
use super::{pcb_list, users};

pub(super) fn peer_owner(local: SocketAddr, peer: SocketAddr) -> PeerOwner {
    let Some(list) = read() else { return PeerOwner::Unknown };
    let ends = (canonical(local), canonical(peer));
    pcb_list::judge(&list, ends, geteuid().as_raw(), users::own())
}

fn read() -> Option<Vec<u8>> {
    // It may grow between two calls.
    for _ in 0..ATTEMPTS {
        let mut length = 0;
        // SAFETY: the name is a C string; without a place for the list only its length is written.
        let status = unsafe {
            libc::sysctlbyname(NAME.as_ptr(), std::ptr::null_mut(), &raw mut length, std::ptr::null_mut(), 0)
        };
        if status != 0 {
            return None;
        }
        length += length / 8;
        let mut list = vec![0_u8; length];
        // SAFETY: as above, and the list is a place of `length` bytes; what was filled of it is written to `length`.
        let status = unsafe {
            libc::sysctlbyname(
                NAME.as_ptr(),
                list.as_mut_ptr().cast(),
                &raw mut length,
                std::ptr::null_mut(),
                0,
            )
        };
        if status == 0 {
            list.truncate(length);
            return Some(list);
        }
    }
    None
}

const NAME: &std::ffi::CStr = c"net.inet.tcp.pcblist_n";
/// Calls until the list fits.
const ATTEMPTS: usize = 3;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_client_of_this_process_is_this_user_s() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let served = listener.accept().unwrap().0;
        let owner = peer_owner(served.local_addr().unwrap(), served.peer_addr().unwrap());
        assert_eq!(owner, PeerOwner::Trusted);
    }
}
