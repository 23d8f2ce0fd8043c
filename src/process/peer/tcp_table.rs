//! The TCP table of Windows (`GetExtendedTcpTable`): a count, then rows of 32-bit words (`MIB_TCPROW_OWNER_PID`,
//! `MIB_TCP6ROW_OWNER_PID`). Addresses and ports are in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Returns the process that has the socket with these ends, from the table of their address family.
pub(super) fn process(table: &[u32], from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let (count, rows) = table.split_first()?;
    if from.is_ipv4() {
        find(rows.chunks_exact(6).take(*count as usize), from, to, |row| match *row {
            [_, local, local_port, foreign, foreign_port, process] => {
                Some((ipv4(local, local_port), ipv4(foreign, foreign_port), process))
            }
            _ => None,
        })
    } else {
        find(rows.chunks_exact(14).take(*count as usize), from, to, |row| match *row {
            [a, b, c, d, _, local_port, e, f, g, h, _, foreign_port, _, process] => {
                Some((ipv6([a, b, c, d], local_port), ipv6([e, f, g, h], foreign_port), process))
            }
            _ => None,
        })
    }
}

fn find<'a>(
    mut rows: impl Iterator<Item = &'a [u32]>,
    from: SocketAddr,
    to: SocketAddr,
    read: impl Fn(&[u32]) -> Option<(SocketAddr, SocketAddr, u32)>,
) -> Option<u32> {
    rows.find_map(|row| read(row).filter(|(local, foreign, _)| (*local, *foreign) == (from, to)))
        .map(|(_, _, process)| process)
}

fn ipv4(address: u32, port: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from(Ipv4Addr::from(address.to_ne_bytes())), number(port))
}

fn ipv6(address: [u32; 4], port: u32) -> SocketAddr {
    let mut octets = [0; 16];
    for (place, word) in octets.chunks_exact_mut(4).zip(address) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(IpAddr::from(Ipv6Addr::from(octets)), number(port))
}

fn number(port: u32) -> u16 {
    let [high, low, ..] = port.to_ne_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn port(number: u16) -> u32 {
        let [high, low] = number.to_be_bytes();
        u32::from_ne_bytes([high, low, 0, 0])
    }

    #[test]
    fn a_row_is_found_by_both_ends() {
        let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
        let row = |from, to, process| [5, loopback, port(from), loopback, port(to), process];
        let table = [&[2][..], &row(1080, 49_152, 7), &row(49_152, 1080, 8), &row(9, 10, 11)].concat();
        let find = |from, to| process(&table, address(from), address(to));
        assert_eq!(find("127.0.0.1:1080", "127.0.0.1:49152"), Some(7));
        assert_eq!(find("127.0.0.1:49152", "127.0.0.1:1080"), Some(8));
        assert_eq!(find("127.0.0.1:49152", "127.0.0.1:1081"), None);
        assert_eq!(find("127.0.0.1:9", "127.0.0.1:10"), None, "behind the last row");
        assert_eq!(process(&[], address("127.0.0.1:1"), address("127.0.0.1:2")), None);
        assert_eq!(process(&[9, 1, 2], address("127.0.0.1:1"), address("127.0.0.1:2")), None);
    }

    #[test]
    fn ipv6_rows_are_longer() {
        let one = u32::from_ne_bytes([0, 0, 0, 1]);
        let row = [0, 0, 0, one, 0, port(49_152), 0, 0, 0, one, 0, port(1080), 5, 8];
        let table = [&[1][..], &row].concat();
        assert_eq!(process(&table, address("[::1]:49152"), address("[::1]:1080")), Some(8));
        assert_eq!(process(&table, address("[::1]:1080"), address("[::1]:49152")), None);
    }
}
