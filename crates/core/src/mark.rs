//! Marks that RVS gives packets by rules of its own, for fwmark services: XDP sees a packet, and TC
//! sees it at ingress, before netfilter could have marked it. The first rule that fits decides, as
//! in a chain. A rule in words is what `rvs mark add` is told:
//! `--src 10.0.0.0/8 --dst 192.0.2.1 --proto tcp --dport 8000-9000 5`.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use rvs_wire::protocol;

use crate::addr::{Addr, from_words, words};
use crate::env::{Env, Visit};
use crate::layout::{Key, MARK_RULES, MarkRule};
use crate::types::Family;

/// Why words are no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkError {
    /// Something else than an option or a mark.
    Word,
    /// An option without its value.
    Value,
    /// No address with an optional prefix length.
    Network,
    /// Not tcp, udp or sctp.
    Protocol,
    /// No port from 1 to 65535 or range of them.
    Ports,
    /// No mark from 1 to 4294967295 at the end.
    Mark,
    /// Addresses of both families.
    Families,
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word => {
                "a rule is [--src NET] [--dst NET] [--proto tcp|udp|sctp] [--dport PORT[-LAST]] MARK"
            }
            Self::Value => "an option of the rule has no value",
            Self::Network => "--src and --dst take an address with an optional prefix length",
            Self::Protocol => "--proto is tcp, udp or sctp",
            Self::Ports => "--dport is a port or a range like 8000-9000",
            Self::Mark => "a mark is a number from 1 to 4294967295",
            Self::Families => "--src and --dst are of different address families",
        })
    }
}

impl core::error::Error for MarkError {}

/// Mask of the first `len` bits, words in network byte order.
fn mask(len: u32) -> [u32; 4] {
    [0, 32, 64, 96].map(|first: u32| match len.saturating_sub(first) {
        0 => 0,
        bits if bits >= 32 => u32::MAX,
        bits => (!(u32::MAX >> bits)).to_be(),
    })
}

fn prefix_len(mask: [u32; 4]) -> u32 {
    mask.iter().map(|word| word.count_ones()).sum()
}

fn network(text: &str) -> Option<(Family, [u32; 4], [u32; 4])> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().ok()?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Some(most), |len| len.parse().ok().filter(|len| *len <= most))?;
    let (mut addr, family, mask) = (words(addr), Family::of(addr), mask(len));
    addr.iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
    Some((family, addr, mask))
}

impl FromStr for MarkRule {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let mut rule = Self { last_port: u16::MAX, ..Self::default() };
        let mut words = text.split_ascii_whitespace();
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                let mark = word.strip_prefix("0x").map_or_else(
                    || word.parse().ok(),
                    |digits| u32::from_str_radix(digits, 16).ok(),
                );
                rule.mark = mark.filter(|mark| *mark != 0).ok_or(MarkError::Mark)?;
                return if words.next().is_none() { Ok(rule) } else { Err(MarkError::Word) };
            }
            let value = words.next().ok_or(MarkError::Value)?;
            match word {
                "--src" | "--dst" => {
                    let (family, addr, mask) = network(value).ok_or(MarkError::Network)?;
                    let number = if family == Family::V4 { 4 } else { 6 };
                    if rule.family != 0 && rule.family != number {
                        return Err(MarkError::Families);
                    }
                    rule.family = number;
                    match word {
                        "--src" => (rule.src, rule.src_mask) = (addr, mask),
                        _ => (rule.dst, rule.dst_mask) = (addr, mask),
                    }
                }
                "--proto" => {
                    rule.protocol = match value {
                        "tcp" => protocol::TCP,
                        "udp" => protocol::UDP,
                        "sctp" => protocol::SCTP,
                        _ => return Err(MarkError::Protocol),
                    }
                }
                "--dport" => {
                    let (first, last) = value.split_once('-').unwrap_or((value, value));
                    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
                    let ports = port(first).zip(port(last)).filter(|(first, last)| first <= last);
                    (rule.first_port, rule.last_port) = ports.ok_or(MarkError::Ports)?;
                }
                _ => return Err(MarkError::Word),
            }
        }
        Err(MarkError::Mark)
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == 6 { Family::V6 } else { Family::V4 };
        let whole = if self.family == 6 { 128 } else { 32 };
        for (name, addr, mask) in
            [("--src", self.src, self.src_mask), ("--dst", self.dst, self.dst_mask)]
        {
            match prefix_len(mask) {
                0 => {}
                len if len == whole => write!(f, "{name} {} ", from_words(family, addr))?,
                len => write!(f, "{name} {}/{len} ", from_words(family, addr))?,
            }
        }
        match self.protocol {
            protocol::TCP => f.write_str("--proto tcp ")?,
            protocol::UDP => f.write_str("--proto udp ")?,
            protocol::SCTP => f.write_str("--proto sctp ")?,
            _ => {}
        }
        match (self.first_port, self.last_port) {
            (0, _) => {}
            (first, last) if first == last => write!(f, "--dport {first} ")?,
            (first, last) => write!(f, "--dport {first}-{last} ")?,
        }
        write!(f, "{}", self.mark)
    }
}

/// Which rules are in force, in [`Config::marks`](crate::layout::Config::marks): the first rule's
/// place, and how many there are. A change writes the new rules to the places of the other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce(pub u32);

impl InForce {
    /// `count` rules from place `first` on.
    pub const fn new(first: u32, count: u32) -> Self {
        Self(first << 16 | count)
    }

    /// Place of the first.
    pub const fn first(self) -> u32 {
        self.0 >> 16
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.0 & 0xffff
    }

    /// Where the rules go that are in force next.
    pub const fn next_first(self) -> u32 {
        if self.first() == 0 { MARK_RULES } else { 0 }
    }
}

/// The mark of a packet with this key; 0 if no rule fits.
#[inline(always)]
pub fn find<A: Addr, E: Env>(env: &E, key: &Key<A>) -> u32 {
    let Some(config) = env.config() else { return 0 };
    let rules = InForce(config.marks.get());
    let mut find = Find {
        env: *env,
        first: rules.first(),
        src: key.src.to_words(),
        dst: key.dst.to_words(),
        family: if matches!(A::FAMILY, Family::V4) { 4 } else { 6 },
        protocol: key.protocol,
        port: u16::from_be(key.dport_be) as u32,
        found: 0,
    };
    env.repeat(rules.count(), &mut find);
    find.found
}

/// Looks for the first rule that fits.
struct Find<E> {
    env: E,
    first: u32,
    src: [u32; 4],
    dst: [u32; 4],
    family: u32,
    protocol: u32,
    port: u32,
    found: u32,
}

impl<E: Env> Visit for Find<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some(rule) = self.env.mark_rule(self.first.wrapping_add(index)) else { return false };
        let fits = (rule.family == 0 || rule.family as u32 == self.family)
            && (rule.protocol == 0 || rule.protocol as u32 == self.protocol)
            && rule.first_port as u32 <= self.port
            && self.port <= rule.last_port as u32
            && is_in(self.src, rule.src, rule.src_mask)
            && is_in(self.dst, rule.dst, rule.dst_mask);
        if fits {
            self.found = rule.mark;
        }
        !fits
    }
}

#[inline(always)]
fn is_in(addr: [u32; 4], net: [u32; 4], mask: [u32; 4]) -> bool {
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (addr, net, mask);
    (a & i ^ e) | (b & j ^ f) | (c & k ^ g) | (d & l ^ h) == 0
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_rule_is_printed_as_it_is_read() {
        for text in [
            "5",
            "--src 10.0.0.0/8 --dst 192.0.2.1 --proto tcp --dport 8000-9000 5",
            "--dst 10.0.0.0/24 --proto udp --dport 53 4294967295",
            "--src fd00::/17 --dst fd09::1 1",
            "--proto tcp --dport 1-65535 7",
            "--dst fd09::/16 --proto sctp --dport 9000 6",
        ] {
            let rule: MarkRule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(rule.to_string(), text);
        }
        let rule: MarkRule = "--dport 80 --dst 10.1.2.3/8 --proto tcp 0xa".parse().expect("a rule");
        assert_eq!(rule.to_string(), "--dst 10.0.0.0/8 --proto tcp --dport 80 10");
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, error) in [
            ("", MarkError::Mark),
            ("0", MarkError::Mark),
            ("--dst 10.0.0.1", MarkError::Mark),
            ("4294967296", MarkError::Mark),
            ("5 6", MarkError::Word),
            ("--sport 5 6", MarkError::Word),
            ("--dst", MarkError::Value),
            ("--dst 10.0.0.0/33 5", MarkError::Network),
            ("--proto icmp 5", MarkError::Protocol),
            ("--dport 0 5", MarkError::Ports),
            ("--dport 9-8 5", MarkError::Ports),
            ("--src ::1 --dst 10.0.0.1 5", MarkError::Families),
        ] {
            assert_eq!(text.parse::<MarkRule>(), Err(error), "{text}");
        }
    }
}
