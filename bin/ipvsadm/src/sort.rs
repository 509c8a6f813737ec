//! The order of listings: ipvsadm's, which compares by subtracting 32-bit integers. Far apart
//! numbers compare the wrong way round there, so they do here, and a sort that insists on a total
//! order cannot be used.

use std::net::IpAddr;

use rvs_core::types::{DestKey, Family, ServiceKey};

/// Words of an address; a missing one counts as 0.
fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(addr) => [addr.to_bits(), 0, 0, 0],
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Whether `a` is listed before `b` (`ipvs_cmp_services`).
pub fn service_before(a: &ServiceKey, b: &ServiceKey) -> bool {
    let parts = |key: &ServiceKey| -> [u32; 8] {
        let family = if key.family() == Family::V4 { 2 } else { 10 };
        match key {
            ServiceKey::Fwmark { mark, .. } => [*mark, family, 0, 0, 0, 0, 0, 0],
            ServiceKey::Address { protocol, addr, port } => {
                let [a, b, c, d] = words(*addr);
                [0, family, *protocol as u32, a, b, c, d, u32::from(*port)]
            }
        }
    };
    negative(&parts(a), &parts(b))
}

/// Whether `a` is listed before `b` (`ipvs_cmp_dests`).
pub fn dest_before(a: &DestKey, b: &DestKey) -> bool {
    let parts = |key: &DestKey| {
        let [a, b, c, d] = words(key.addr);
        [a, b, c, d, u32::from(key.port)]
    };
    negative(&parts(a), &parts(b))
}

fn negative(a: &[u32], b: &[u32]) -> bool {
    let differences = a.iter().zip(b).map(|(a, b)| difference(*a, *b));
    differences.into_iter().find(|d| *d != 0).is_some_and(|d| d < 0)
}

/// A stable merge sort: `before(b, a)` puts `b` in front of `a`.
pub fn sort<T>(items: Vec<T>, before: &impl Fn(&T, &T) -> bool) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (sort(left, before), sort(right, before));
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if before(b, a) { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_apart_addresses_compare_as_ipvsadm_has_it() {
        let key = |addr: &str| DestKey { addr: addr.parse().expect("a literal"), port: 80 };
        assert!(dest_before(&key("fd09::1"), &key("2001:db8::1")));
        assert!(dest_before(&key("10.0.0.9"), &key("10.0.0.10")));
        let sorted = sort(vec![3, 1, 2, 1], &|a, b| a < b);
        assert_eq!(sorted, [1, 1, 2, 3]);
    }
}
