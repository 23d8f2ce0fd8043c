//! The owner of one socket, from the kernel's `sock_diag` (man 7 sock_diag). It looks the socket up by its addresses, so
//! the cost does not depend on how many there are, unlike that of `/proc/net/tcp`.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

use super::owner::{PeerOwner, Stranger, canonical};
use super::users;

pub(super) fn peer_owner(local: SocketAddr, peer: SocketAddr) -> PeerOwner {
    let (local, peer) = (canonical(local), canonical(peer));
    match query(peer, local) {
        Some(found) => judge(found, &Namespace::current()),
        None => PeerOwner::Unknown,
    }
}

/// The kernel's report on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    uid: u32,
    /// 0 when no process has it open.
    inode: u32,
}

/// This process's users.
struct Namespace {
    own: [Option<u32>; 3],
    /// Numbers are those of the system, not of a user namespace.
    is_initial: bool,
}

impl Namespace {
    fn current() -> Namespace {
        static IS_INITIAL: OnceLock<bool> = OnceLock::new();
        let is_initial = *IS_INITIAL.get_or_init(|| {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
        });
        Namespace { own: users::own(), is_initial }
    }
}

fn judge(found: Found, namespace: &Namespace) -> PeerOwner {
    match found {
        Found { uid: 0, inode: 0 } => PeerOwner::Gone,
        Found { uid: 0, .. } => PeerOwner::Trusted,
        Found { uid, .. } if namespace.own.contains(&Some(uid)) => PeerOwner::Trusted,
        // It stands for every user that has no number in a user namespace, the one outside that started it included.
        Found { uid: OVERFLOW, .. } if !namespace.is_initial => PeerOwner::Unknown,
        Found { uid, .. } => PeerOwner::Other(Stranger::User(uid)),
    }
}

/// Asks for the socket with these two ends. `None` if there is none or the kernel does not answer.
fn query(from: SocketAddr, to: SocketAddr) -> Option<Found> {
    let diag = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG)).ok()?;
    send(&diag, &request(from, to)?, SendFlags::empty()).ok()?;
    // The answer is there when `send` returns.
    let mut answer = [0_u8; 512];
    let (_, length) = recv(&diag, &mut answer, RecvFlags::DONTWAIT).ok()?;
    parse(answer.get(..length)?)
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
fn request(from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    let (family, source, destination) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (AF_INET, wide(&from.octets()), wide(&to.octets())),
        (IpAddr::V6(from), IpAddr::V6(to)) => (AF_INET6, wide(&from.octets()), wide(&to.octets())),
        _ => return None,
    };
    let mut bytes = Vec::with_capacity(REQUEST_LENGTH as usize);
    bytes.extend(REQUEST_LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(ALL_STATES.to_ne_bytes());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(ANY_INTERFACE.to_ne_bytes());
    bytes.extend(NO_COOKIE);
    Some(bytes)
}

fn wide(octets: &[u8]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..octets.len()].copy_from_slice(octets);
    wide
}

/// `struct nlmsghdr`, then `struct inet_diag_msg`.
fn parse(answer: &[u8]) -> Option<Found> {
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    (kind == SOCK_DIAG_BY_FAMILY).then_some(())?;
    Some(Found { uid: word(UID)?, inode: word(INODE)? })
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const ALL_STATES: u32 = u32::MAX;
const ANY_INTERFACE: u32 = 0;
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// 16 bytes of header, 56 of request.
const REQUEST_LENGTH: u32 = 72;
/// Offsets behind the header, four bytes of family and state, 48 of addresses, and three counters.
const UID: usize = 16 + 4 + 48 + 12;
const INODE: usize = UID + 4;
/// `/proc/sys/kernel/overflowuid` of every distribution.
const OVERFLOW: u32 = 65_534;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use rustix::process::geteuid;

    use super::*;

    fn pair(address: IpAddr) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((address, 0)).ok()?;
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    fn owner(served: &TcpStream) -> PeerOwner {
        peer_owner(served.local_addr().unwrap(), served.peer_addr().unwrap())
    }

    #[test]
    fn a_client_of_this_process_is_this_user_s() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let Some((client, served)) = pair(address) else { continue };
            let found = query(served.peer_addr().unwrap(), served.local_addr().unwrap())
                .expect("the client's socket");
            assert!(found.uid == geteuid().as_raw() && found.inode != 0, "{found:?}");
            assert_eq!(owner(&served), PeerOwner::Trusted);
            drop(client);
            assert_ne!(owner(&served), PeerOwner::Unknown, "it is still in the system's table");
        }
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(peer_owner(address, address), PeerOwner::Unknown);
        assert_eq!(parse(&[0; 20]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn users() {
        let namespace = |is_initial| Namespace { own: [Some(1000), Some(1000), Some(1001)], is_initial };
        let judge = |uid, inode, is_initial| judge(Found { uid, inode }, &namespace(is_initial));
        assert_eq!(judge(1000, 7, true), PeerOwner::Trusted);
        assert_eq!(judge(1001, 7, true), PeerOwner::Trusted, "who called sudo");
        assert_eq!(judge(0, 7, true), PeerOwner::Trusted);
        assert_eq!(judge(0, 0, true), PeerOwner::Gone);
        assert_eq!(judge(1002, 7, true), PeerOwner::Other(Stranger::User(1002)));
        assert_eq!(
            judge(1002, 0, true),
            PeerOwner::Other(Stranger::User(1002)),
            "newer kernels keep the owner"
        );
        assert_eq!(judge(OVERFLOW, 7, true), PeerOwner::Other(Stranger::User(OVERFLOW)));
        assert_eq!(judge(OVERFLOW, 7, false), PeerOwner::Unknown);
    }
}
