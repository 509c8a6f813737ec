//! What is said on an FTP control connection about data connections: RFC 959 (PORT, 227) and RFC 2428
//! (EPRT, 229). Only complete lines count, and only ports that are nobody else's.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::str::FromStr;

/// The lowest port of a data connection: below are services' own.
const LOWEST: u16 = 1024;

/// The server listens on this port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passive {
    /// The port.
    pub port: u16,
    /// The server's address and where in the line it is, without the port; EPSV names none.
    pub addr: Option<(Ipv4Addr, Range<usize>)>,
}

/// The complete lines of a segment, as places in it, their ends not included.
pub fn lines(data: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let ends = data.windows(2).enumerate().filter(|(_, two)| two == b"\r\n");
    let mut start = 0;
    ends.map(move |(end, _)| {
        let line = start..end;
        start = end + 2;
        line
    })
}

/// What a server's line says, if it is a reply to PASV or EPSV.
pub fn passive(line: &[u8]) -> Option<Passive> {
    let line = std::str::from_utf8(line).ok()?;
    if let Some(text) = line.strip_prefix("227 ") {
        let start = text.find(|c: char| c.is_ascii_digit())? + 4;
        let (addr, port, len) = six(line.get(start..)?)?;
        return Some(Passive { port, addr: Some((addr, start..start + len)) });
    }
    let text = line.strip_prefix("229 ")?;
    let mut inner = text.get(text.find('(')? + 1..text.find(')')?)?.chars();
    let mark = inner.next()?;
    let rest = inner.as_str().strip_prefix([mark])?.strip_prefix([mark])?;
    Some(Passive { port: port(rest.strip_suffix(mark)?)?, addr: None })
}

/// Where a client's line says that it listens, if it is PORT or EPRT.
pub fn active(line: &[u8]) -> Option<(IpAddr, u16)> {
    let (command, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let rest = rest.trim();
    if command.eq_ignore_ascii_case("PORT") {
        let (addr, port, end) = six(rest)?;
        let (_, tail) = rest.split_at_checked(end)?;
        // The port, and nothing more.
        return (tail.bytes().filter(|byte| *byte == b',').count() == 2)
            .then_some((addr.into(), port));
    }
    if !command.eq_ignore_ascii_case("EPRT") {
        return None;
    }
    let mark = rest.chars().next()?;
    let mut parts = rest.strip_prefix(mark)?.strip_suffix(mark)?.split(mark);
    let (family, addr, tail) = (parts.next()?, parts.next()?, parts.next()?);
    let addr = IpAddr::from_str(addr).ok()?;
    let fits = family == if addr.is_ipv4() { "1" } else { "2" };
    (fits && parts.next().is_none()).then_some((addr, port(tail)?))
}

/// A decimal number of at most five digits.
fn port(digits: &str) -> Option<u16> {
    let number = u16::from_str(digits).ok().filter(|_| !digits.starts_with('+'))?;
    (number >= LOWEST).then_some(number)
}

/// `h1,h2,h3,h4,p1,p2` at the start of a text; and the length of the address in it.
fn six(text: &str) -> Option<(Ipv4Addr, u16, usize)> {
    let (mut bytes, mut at, mut address) = ([0u8; 6], 0, 0);
    for (index, byte) in bytes.iter_mut().enumerate() {
        if index > 0 {
            at += text.get(at..)?.starts_with(',').then_some(1)?;
        }
        let rest = text.get(at..)?;
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        *byte = rest.get(..len)?.parse().ok()?;
        at += len;
        if index == 3 {
            address = at;
        }
    }
    let [a, b, c, d, high, low] = bytes;
    let port = u16::from_be_bytes([high, low]);
    (port >= LOWEST).then_some((Ipv4Addr::new(a, b, c, d), port, address))
}

/// Puts `new` in place of the address at `at` in a 227 line, without a change of its length, so that
/// no sequence number changes: what the address takes or leaves, the words before it give or get, which
/// RFC 1123, section 4.1.2.6, has clients skip; where there are none, the brackets. False if that is
/// too little.
pub fn readdress(line: &mut [u8], at: &Range<usize>, new: Ipv4Addr) -> bool {
    const CODE: usize = "227 ".len();
    let [a, b, c, d] = new.octets();
    let new = format!("{a},{b},{c},{d}").into_bytes();
    let Some(words) = line.get(CODE..at.start) else { return false };
    let Some(rest) = line.get(at.end..) else { return false };
    // What stands right before the address, as " (", stays there.
    let text = words.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |last| last + 1);
    let (mut text, mut bracket) = words.split_at(text);
    // The port, and what closes the bracket.
    let port = rest.iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1);
    let (port, mut close) = rest.split_at(port);
    let fixed = CODE + new.len() + port.len();
    if fixed + bracket.len() + close.len() > line.len() {
        (text, bracket, close) = (&[], &[], &[]);
    }
    let Some(room) = line.len().checked_sub(fixed + bracket.len() + close.len()) else {
        return false;
    };
    let mut text = text.to_vec();
    text.resize(room, b' ');
    let made = [b"227 ", &*text, bracket, &new, port, close].concat();
    line.copy_from_slice(&made);
    true
}

#[cfg(test)]
#[path = "ftp/tests.rs"]
mod tests;
