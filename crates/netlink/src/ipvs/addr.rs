//! Address families and `union nf_inet_addr`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rvs_core::types::Family;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The number of a family.
pub(super) fn af(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// The family with this number.
pub(super) fn family(number: u16) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
pub(super) fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// Reads an address; what is missing is zero, as in the kernel.
pub(super) fn addr(family: Family, bytes: &[u8]) -> IpAddr {
    let mut full = [0; 16];
    for (to, from) in full.iter_mut().zip(bytes) {
        *to = *from;
    }
    let [a, b, c, d, ..] = full;
    match family {
        Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
        Family::V6 => Ipv6Addr::from(full).into(),
    }
}
