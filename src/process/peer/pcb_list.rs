//! The kernel's list of TCP sockets on macOS (`net.inet.tcp.pcblist_n`), which `netstat` reads, too.
//!
//! A header, then records (XNU, `bsd/netinet/in_pcblist.c`), each with its length and kind, packed to 4 bytes and padded to
//! 8. The records of one socket follow each other, addresses (`struct xinpcb_n`) before owner (`struct xsocket_n`). Apple
//! publishes neither as an interface: a list in which our own end is not ours reports nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::owner::{PeerOwner, Stranger};

/// Returns the owner of the end `peer` of a connection whose end `local` belongs to `user`. `own` are the users to trust.
pub(super) fn judge(
    list: &[u8],
    (local, peer): (SocketAddr, SocketAddr),
    user: u32,
    own: [Option<u32>; 3],
) -> PeerOwner {
    if uid(list, local, peer) != Some(user) {
        return PeerOwner::Unknown;
    }
    match uid(list, peer, local) {
        None => PeerOwner::Unknown,
        Some(ROOT) => PeerOwner::Trusted,
        Some(uid) if own.contains(&Some(uid)) => PeerOwner::Trusted,
        Some(uid) => PeerOwner::Other(Stranger::User(uid)),
    }
}

/// Returns the user of the socket with these ends.
fn uid(list: &[u8], from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let mut rest = after(list, word(list, 0)?)?;
    let mut is_wanted = false;
    while let (Some(length), Some(kind)) = (word(rest, 0), word(rest, 4)) {
        let record = rest.get(..length as usize)?;
        match kind {
            ADDRESSES => is_wanted = ends(record) == Some((from, to)),
            OWNER if is_wanted => return word(record, UID),
            _ => {}
        }
        rest = after(rest, length)?;
    }
    None
}

/// The list behind a record of `length` bytes.
fn after(list: &[u8], length: u32) -> Option<&[u8]> {
    // A length of zero would never end.
    let length = (length as usize).next_multiple_of(PADDING).max(PADDING);
    list.get(length..)
}

/// Local and foreign end.
fn ends(record: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(record.get(port..port + 2)?.try_into().ok()?);
        let address: [u8; 16] = record.get(address..address + 16)?.try_into().ok()?;
        let [.., a, b, c, d] = address;
        let version = *record.get(VERSIONS)?;
        let ip = match version & IPV4 {
            IPV4 => IpAddr::from(Ipv4Addr::new(a, b, c, d)),
            _ => IpAddr::from(Ipv6Addr::from(address)),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some((end(LOCAL_PORT, LOCAL_ADDRESS)?, end(FOREIGN_PORT, FOREIGN_ADDRESS)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

const ROOT: u32 = 0;
/// Bytes to a multiple of which records are padded.
const PADDING: usize = 8;
/// `XSO_INPCB`.
const ADDRESSES: u32 = 0x10;
/// `XSO_SOCKET`.
const OWNER: u32 = 0x01;
/// `inp_fport` and the fields behind it, in `struct xinpcb_n`.
const FOREIGN_PORT: usize = 16;
const LOCAL_PORT: usize = 18;
const VERSIONS: usize = 44;
const FOREIGN_ADDRESS: usize = 48;
const LOCAL_ADDRESS: usize = 64;
/// `INP_IPV4`, the bit that a socket has while it carries IPv4.
const IPV4: u8 = 1;
/// `so_uid` in `struct xsocket_n`.
const UID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: usize, kind: u32, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(PADDING)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        for (at, field) in fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    fn socket(local: &str, foreign: &str, uid: u32) -> Vec<u8> {
        let (local, foreign) = (address(local), address(foreign));
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_compatible().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let version = if local.is_ipv4() { IPV4 } else { 2 };
        let addresses = record(
            104,
            ADDRESSES,
            &[
                (FOREIGN_PORT, &foreign.port().to_be_bytes()),
                (LOCAL_PORT, &local.port().to_be_bytes()),
                (VERSIONS, &[version]),
                (FOREIGN_ADDRESS, &octets(foreign)),
                (LOCAL_ADDRESS, &octets(local)),
            ],
        );
        let owner = record(76, OWNER, &[(UID, &uid.to_ne_bytes())]);
        [
            addresses,
            owner,
            record(36, 2, &[]),
            record(36, 4, &[]),
            record(148, 8, &[]),
            record(204, 0x20, &[]),
        ]
        .concat()
    }

    fn list(sockets: &[Vec<u8>]) -> Vec<u8> {
        // The number of sockets stands where a record has its kind.
        [record(24, ADDRESSES, &[]), sockets.concat(), record(24, OWNER, &[])].concat()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn judged(list: &[u8], local: &str, peer: &str) -> PeerOwner {
        judge(list, (address(local), address(peer)), 501, [Some(501), Some(501), Some(502)])
    }

    #[test]
    fn clients_by_their_users() {
        let served = |port: u16| format!("127.0.0.1:{port}");
        let mut sockets =
            vec![socket("[::1]:1080", "[::1]:600", 501), socket("[::1]:600", "[::1]:1080", 503)];
        for (port, uid) in [(501, 501), (502, 502), (600, 503), (700, 0)] {
            sockets.push(socket("127.0.0.1:1080", &served(port), 501));
            sockets.push(socket(&served(port), "127.0.0.1:1080", uid));
        }
        let list = list(&sockets);
        for (port, expected) in [
            (501, PeerOwner::Trusted),
            (502, PeerOwner::Trusted),
            (600, PeerOwner::Other(Stranger::User(503))),
            (700, PeerOwner::Trusted),
            (800, PeerOwner::Unknown),
        ] {
            assert_eq!(judged(&list, "127.0.0.1:1080", &served(port)), expected, "{port}");
        }
        assert_eq!(judged(&list, "[::1]:1080", "[::1]:600"), PeerOwner::Other(Stranger::User(503)));
    }

    #[test]
    fn a_list_in_which_our_end_is_not_ours_reports_nothing() {
        let client = socket("127.0.0.1:600", "127.0.0.1:1080", 503);
        for uid in [0, 503] {
            let list = list(&[socket("127.0.0.1:1080", "127.0.0.1:600", uid), client.clone()]);
            assert_eq!(judged(&list, "127.0.0.1:1080", "127.0.0.1:600"), PeerOwner::Unknown);
        }
        assert_eq!(judged(&list(&[client]), "127.0.0.1:1080", "127.0.0.1:600"), PeerOwner::Unknown);
    }

    #[test]
    fn any_end_of_a_list_is_the_end() {
        let list =
            list(&[socket("127.0.0.1:1", "127.0.0.1:2", 501), socket("127.0.0.1:2", "127.0.0.1:1", 503)]);
        for length in 0..list.len() {
            let _ = judged(&list[..length], "127.0.0.1:1", "127.0.0.1:2");
        }
        assert_eq!(judged(&[0; 100], "127.0.0.1:1", "127.0.0.1:2"), PeerOwner::Unknown);
        assert_eq!(judged(&[0xff; 100], "127.0.0.1:1", "127.0.0.1:2"), PeerOwner::Unknown);
    }
}
