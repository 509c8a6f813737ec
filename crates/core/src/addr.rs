//! IPv4 and IPv6 addresses as the data path keeps them: raw words in network byte order. Code that
//! serves both families is generic over [`Addr`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rvs_wire::checksum::Delta;

use crate::types::Family;

/// An address of one family, in network byte order.
pub trait Addr: Copy + PartialEq + Default + 'static {
    /// Which family.
    const FAMILY: Family;

    /// Adds the difference between `self` (the old address) and `new` to a checksum's delta.
    fn delta(self, new: Self, delta: Delta) -> Delta;

    /// The sum of its words, for a pseudo header; folds to the sum of its halves.
    fn sum(self) -> u64;

    /// A 64-bit value that equals for equal addresses; the hash spreads it.
    fn mix(self) -> u64;

    /// The four words in which shared structures keep an address of either family.
    fn to_words(self) -> [u32; 4];

    /// The inverse of [`to_words`](Self::to_words).
    fn from_words(words: [u32; 4]) -> Self;

    /// Whether it is one of the loopback's: 127.0.0.0/8, ::1.
    fn is_loopback(self) -> bool;

    /// Whether it can be one host's, as far as the address itself tells.
    fn is_unicast(self) -> bool;

    /// Whether every bit that differs between the addresses is in a bit that `mask` clears;
    /// `mask` is laid out as [`to_words`](Self::to_words) is.
    fn and(self, mask: [u32; 4]) -> Self;
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct V4(pub u32);

impl Addr for V4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn delta(self, new: Self, delta: Delta) -> Delta {
        delta.quad(self.0, new.0)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn mix(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn to_words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0.to_ne_bytes()[0] == 127
    }

    #[inline(always)]
    fn is_unicast(self) -> bool {
        let [first, ..] = self.0.to_ne_bytes();
        first != 0 && first & 0xf0 != 0xe0 && self.0 != u32::MAX
    }

    #[inline(always)]
    fn and(self, mask: [u32; 4]) -> Self {
        Self(self.0 & mask[0])
    }
}

/// An IPv6 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct V6(pub [u32; 4]);

impl Addr for V6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn delta(self, new: Self, delta: Delta) -> Delta {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, new.0);
        delta.quad(a, e).quad(b, f).quad(c, g).quad(d, h)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        let [a, b, c, d] = self.0;
        a as u64 + b as u64 + c as u64 + d as u64
    }

    #[inline(always)]
    fn mix(self) -> u64 {
        let [a, b, c, d] = self.0;
        let high = (a as u64) << 32 | b as u64;
        let low = (c as u64) << 32 | d as u64;
        high.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ low
    }

    #[inline(always)]
    fn to_words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c == 0 && d == 1_u32.to_be()
    }

    #[inline(always)]
    fn is_unicast(self) -> bool {
        let [a, b, c, d] = self.0;
        a.to_ne_bytes()[0] != 0xff && a | b | c | d != 0
    }

    #[inline(always)]
    fn and(self, mask: [u32; 4]) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, mask);
        Self([a & e, b & f, c & g, d & h])
    }
}

/// The words of `addr`, in network byte order; IPv4 fills the first.
pub fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(a) => [u32::from_ne_bytes(a.octets()), 0, 0, 0],
        IpAddr::V6(a) => zerocopy::transmute!(a.octets()),
    }
}

/// The inverse of [`words`].
pub fn from_words(family: Family, words: [u32; 4]) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes())),
        Family::V6 => {
            let octets: [u8; 16] = zerocopy::transmute!(words);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known() {
        let v4 = |text: &str| V4(words(text.parse().expect("a literal"))[0]).is_loopback();
        let v6 = |text: &str| V6(words(text.parse().expect("a literal"))).is_loopback();
        assert!(v4("127.0.0.1") && v4("127.9.8.7") && v6("::1"));
        assert!(!v4("126.0.0.127") && !v4("10.0.0.127") && !v6("::2") && !v6("1::1"));
    }

    #[test]
    fn addresses_of_groups_and_of_nobody_are_no_hosts() {
        let v4 = |text: &str| V4(words(text.parse().expect("a literal"))[0]).is_unicast();
        let v6 = |text: &str| V6(words(text.parse().expect("a literal"))).is_unicast();
        assert!(v4("1.0.0.0") && v4("223.255.255.255") && v4("240.0.0.1") && v4("255.255.255.254"));
        assert!(!v4("0.1.2.3") && !v4("224.0.0.1") && !v4("239.1.1.1") && !v4("255.255.255.255"));
        assert!(v6("::1") && v6("fe80::1") && v6("2001:db8::1") && !v6("ff02::1") && !v6("::"));
    }

    #[test]
    fn words_and_addresses_are_inverse() {
        for text in ["192.168.122.45", "fd00::1", "2001:db8:1:2:3:4:5:6"] {
            let addr: IpAddr = text.parse().expect("a literal");
            assert_eq!(from_words(Family::of(addr), words(addr)), addr);
        }
    }
}
