//! `/proc/net/ip_vs_conn`: the connection table of a kernel, which netlink does not tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ipvs::Conn;

/// The file.
pub const CONNS: &str = "/proc/net/ip_vs_conn";

/// Reads a line; `None` for the title and for what is no connection.
pub fn conn(line: &[u8]) -> Option<Conn> {
    // Only what a persistence engine found may be other than ASCII.
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (mut words, mut last) =
        (words.clone().map_while(|w| str::from_utf8(w).ok()), words.skip(9));
    let protocol = match words.next()? {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        "IP" => 0,
        _ => return None,
    };
    let mut end = || Some((addr(words.next()?)?, u16::from_str_radix(words.next()?, 16).ok()?));
    let (client, service, dest) = (end()?, end()?, end()?);
    let (state, expires) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let name = last.next().and_then(|name| str::from_utf8(name).ok());
    let pe = name.map(|name| (name.to_owned(), last.next().unwrap_or_default().to_vec()));
    Some(Conn {
        protocol,
        client,
        service,
        dest,
        state,
        expires,
        forward: None,
        template: None,
        synced: None,
        pe,
    })
}

/// Eight hexadecimal digits, or an IPv6 address, with or without brackets.
fn addr(word: &str) -> Option<IpAddr> {
    let word = word.trim_matches(['[', ']']);
    if word.contains(':') {
        return word.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    }
    Some(Ipv4Addr::from_bits(u32::from_str_radix(word, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_families_are_read_and_the_title_is_not() {
        let title =
            b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
        assert_eq!(conn(title), None);
        let row = conn(b"TCP 0A000002 9C40 0A090101 0050 0A01000B 0050 SYN_RECV         58")
            .expect("a row");
        assert_eq!((row.protocol, row.expires, row.state.as_str()), (6, 58, "SYN_RECV"));
        assert_eq!(row.client, ([10, 0, 0, 2].into(), 40_000));
        assert_eq!(row.dest, ([10, 1, 0, 11].into(), 80));
        let row = conn(
            b"UDP [fd00:0000:0000:0000:0000:0000:0000:0002] 9C40 \
             [fd09:0000:0000:0000:0000:0000:0000:0001] 0035 \
             [fd01:0000:0000:0000:0000:0000:0000:0011] 0035 UDP             300 sip abc\xe9@x",
        )
        .expect("a row");
        assert_eq!(row.service, ("fd09::1".parse().expect("a literal"), 53));
        assert_eq!(row.pe, Some(("sip".into(), b"abc\xe9@x".to_vec())));
    }
}
