//! Addresses and ports: as they are typed, and as they are shown.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, OnceLock, PoisonError};

use rvs_core::types::Protocol;

/// An address and, if one was given, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: Option<u16>,
}

/// Reads `host[:port]`, `[ipv6][:port]` or a bare IPv6 address. Hosts may be names, ports service
/// names. `None` if it is none of these.
pub fn parse(text: &str, protocol: Protocol) -> Option<HostPort> {
    if let Some(rest) = text.strip_prefix('[') {
        let (addr, rest) = rest.split_once(']')?;
        let addr: Ipv6Addr = addr.parse().ok()?;
        let port = match rest {
            "" => None,
            rest => Some(port(rest.strip_prefix(':')?, protocol)?),
        };
        return Some(HostPort { addr: addr.into(), port });
    }
    if let Ok(addr) = text.parse::<Ipv6Addr>() {
        return Some(HostPort { addr: addr.into(), port: None });
    }
    match text.split_once(':') {
        None => Some(HostPort { addr: host(text)?, port: None }),
        Some((name, service)) => {
            Some(HostPort { addr: host(name)?, port: Some(port(service, protocol)?) })
        }
    }
}

/// The address and the port that an IPv6 address without brackets looks like: `fd09::2:80`.
pub fn port_in_address(text: &str) -> Option<(Ipv6Addr, u16)> {
    text.parse::<Ipv6Addr>().ok()?;
    let (host, port) = text.rsplit_once(':')?;
    Some((host.parse().ok()?, port.parse().ok()?))
}

/// An IPv4 address as `inet_aton` reads it, else a name.
fn host(text: &str) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    if let Some(addr) = inet_aton(text) {
        return Some(addr.into());
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let found: Vec<IpAddr> = dns_lookup::lookup_host(text).ok()?.collect();
    found.iter().find(|addr| addr.is_ipv4()).or(found.first()).copied()
}

/// `inet_aton(3)`: one to four numbers, decimal, octal or hexadecimal, the last one filling the
/// bytes that are left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
    let numbers = numbers?;
    let (last, head) = numbers.split_last()?;
    if head.len() > 3 || head.iter().any(|n| *n > 255) {
        return None;
    }
    let room = 8 * (4 - head.len() as u32);
    if room < 32 && *last >> room != 0 {
        return None;
    }
    let high = head.iter().zip([24, 16, 8]).fold(0, |sum, (n, shift)| sum | n << shift);
    Some(Ipv4Addr::from(high | last))
}

fn number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        None => (lower.as_str(), 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// A port number or the name of a service.
fn port(text: &str, protocol: Protocol) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    if let Ok(port) = text.parse::<u16>() {
        return Some(port);
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        return None;
    }
    services().ports.get(&(name_of(protocol), text.to_owned())).copied()
}

/// The protocol's name in /etc/services.
fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// /etc/services (services(5)): the first line that says something counts.
#[derive(Default)]
struct Services {
    /// By protocol and name or alias.
    ports: HashMap<(&'static str, String), u16>,
    /// By protocol and port.
    names: HashMap<(&'static str, u16), String>,
}

/// The services, read once.
fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let text = std::fs::read_to_string("/etc/services").unwrap_or_default();
        let mut services = Services::default();
        for line in text.lines() {
            services.take(line);
        }
        services
    })
}

impl Services {
    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let port = port.parse().ok()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .map(name_of)
            .find(|known| *known == protocol)?;
        for alias in std::iter::once(name).chain(words) {
            self.ports.entry((protocol, alias.to_owned())).or_insert(port);
        }
        self.names.entry((protocol, port)).or_insert_with(|| name.to_owned());
        Some(())
    }
}

/// The name of an address, looked up once.
fn host_name(addr: IpAddr) -> String {
    static KNOWN: Mutex<BTreeMap<IpAddr, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let look_up = || dns_lookup::lookup_addr(&addr).unwrap_or_else(|_| addr.to_string());
    known.entry(addr).or_insert_with(look_up).clone()
}

/// How addresses and ports are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// As numbers.
    pub numeric: bool,
}

impl Names {
    /// `address:port`, IPv6 in brackets, by name unless numeric.
    pub fn show(self, addr: IpAddr, port: u16, protocol: Protocol) -> String {
        let host = self.host(addr);
        let port = self.port(port, protocol);
        match addr {
            IpAddr::V4(_) => format!("{host}:{port}"),
            IpAddr::V6(_) => format!("[{host}]:{port}"),
        }
    }

    fn host(self, addr: IpAddr) -> String {
        if self.numeric { addr.to_string() } else { host_name(addr) }
    }

    fn port(self, port: u16, protocol: Protocol) -> String {
        let name = services_name(port, protocol).filter(|_| !self.numeric);
        name.map_or_else(|| port.to_string(), str::to_owned)
    }
}

fn services_name(port: u16, protocol: Protocol) -> Option<&'static str> {
    services().names.get(&(name_of(protocol), port)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Option<(String, Option<u16>)> {
        parse(text, Protocol::Tcp).map(|found| (found.addr.to_string(), found.port))
    }

    #[test]
    fn addresses_are_read_as_ipvsadm_reads_them() {
        assert_eq!(tcp("10.9.5.1:80"), Some(("10.9.5.1".into(), Some(80))));
        assert_eq!(tcp("10.9.5:80"), Some(("10.9.0.5".into(), Some(80))));
        assert_eq!(tcp("[fd09::1]:http"), Some(("fd09::1".into(), Some(80))));
        assert_eq!(tcp("fd09::2:80"), Some(("fd09::2:80".into(), None)));
        for bad in [
            "10.9.5.1:",
            ":80",
            "10.9.5.1:80:90",
            "10.9.5.256:80",
            "10.9.5.1:70000",
            "[fd09::3",
            "[fd09::3]80",
        ] {
            assert_eq!(tcp(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_that_looks_like_an_address_and_a_port_is_known() {
        let looks = |text: &str| port_in_address(text).map(|(host, port)| (host.to_string(), port));
        assert_eq!(looks("fd09::2:80"), Some(("fd09::2".into(), 80)));
        for plain in ["fd09::2", "fd09::2:a80", "[fd09::2]:80", "10.0.0.1:80", "1:2:3:4:5:6:7:8"] {
            assert_eq!(looks(plain), None, "{plain}");
        }
    }
}
