//! Segments of connections with an application helper, FTP's control connections: what they agree on
//! is entered into the connection table, and the virtual address takes the place of the server's.
//! Nothing is kept between segments, so one that is sent again gets the same treatment, and an rvsd
//! that was started anew goes on where the last one stopped.

use std::net::{IpAddr, Ipv4Addr};

use rvs_core::addr::{Addr, V4, V6, from_words};
use rvs_core::env::Tables;
use rvs_core::fragment::Slow;
use rvs_core::layout::{Conn, Key};
use rvs_core::{app, table};
use rvs_wire::{checksum, protocol};

use crate::ftp;
use crate::packet::{L3, behind_extensions, ipv4_header, number};

/// Where the parts of a TCP segment are in its frame.
struct Segment {
    /// The addresses, source first.
    addrs: std::ops::Range<usize>,
    /// The TCP header.
    tcp: usize,
    /// The end.
    end: usize,
}

/// Reads a segment and does what it asks for; it may be changed, but not in length. What is no whole
/// TCP segment with a right checksum is left alone.
pub fn inspect<E: Tables<V4> + Tables<V6>>(env: &E, slow: &Slow, frame: &mut [u8]) {
    // Whether anything could be done is nobody's business: the segment goes on.
    let _ = match frame.get(L3).map(|first| first >> 4) {
        Some(4) => ipv4(frame).and_then(|place| segment::<V4, E>(env, slow, frame, &place)),
        Some(6) => ipv6(frame).and_then(|place| segment::<V6, E>(env, slow, frame, &place)),
        _ => None,
    };
}

fn ipv4(frame: &[u8]) -> Option<Segment> {
    let tcp = L3 + ipv4_header(frame)?;
    // No fragment.
    let whole = number(frame, L3 + 6)? & 0x3fff == 0 && *frame.get(L3 + 9)? == protocol::TCP;
    let end = L3 + number(frame, L3 + 2)?;
    whole.then_some(Segment { addrs: L3 + 12..L3 + 20, tcp, end })
}

fn ipv6(frame: &[u8]) -> Option<Segment> {
    let (next, tcp) = behind_extensions(frame)?;
    let end = L3 + 40 + number(frame, L3 + 4)?;
    (next == protocol::TCP).then_some(Segment { addrs: L3 + 8..L3 + 40, tcp, end })
}

/// The checksum of a segment over its pseudo header and all of it: zero if it is right.
fn sum(frame: &[u8], place: &Segment) -> Option<[u8; 2]> {
    let segment = frame.get(place.tcp..place.end)?;
    let len = u16::try_from(segment.len()).ok()?.to_be_bytes();
    let mut pseudo = frame.get(place.addrs.clone())?.to_vec();
    pseudo.extend([0, protocol::TCP]);
    pseudo.extend(len);
    let total = checksum::sum(&pseudo) + checksum::sum(segment);
    Some((!checksum::fold(total)).to_ne_bytes())
}

/// An address whose bytes these are.
fn addr<A: Addr>(bytes: &[u8]) -> A {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    A::from_words(words)
}

fn ip<A: Addr>(addr: A) -> IpAddr {
    from_words(A::FAMILY, addr.to_words())
}

fn segment<A: Addr, E: Tables<A>>(
    env: &E,
    slow: &Slow,
    frame: &mut [u8],
    place: &Segment,
) -> Option<()> {
    let tcp = frame.get(place.tcp..place.end)?;
    let flags = *tcp.get(13)?;
    let data = place.tcp + usize::from(tcp.get(12)? >> 4) * 4;
    if sum(frame, place)? != [0, 0] {
        return None;
    }
    let (src, dst) = frame.get(place.addrs.clone())?.split_at(place.addrs.len() / 2);
    let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?).to_be());
    let key = Key {
        src: addr::<A>(src),
        dst: addr::<A>(dst),
        sport_be: port(0)?,
        dport_be: port(2)?,
        protocol: protocol::TCP.into(),
    };
    if app::opens(&key, flags) {
        return app::meet(env, &key);
    }
    let entry = table::entry(env, env.find(&key));
    let (control, reply) = match entry.and_then(|entry| app::control(env, entry)) {
        Some(found) => found,
        // Netfilter translated it already: a reply, by the client's addresses.
        None => (app::control(env, table::entry(env, env.find(&key.turned()))?)?.0, true),
    };
    if reply {
        if server(env, slow, control, frame.get_mut(data..place.end)?) {
            frame.get_mut(place.tcp + 16..place.tcp + 18)?.fill(0);
            let right = sum(frame, place)?;
            frame.get_mut(place.tcp + 16..place.tcp + 18)?.copy_from_slice(&right);
        }
    } else {
        client(env, control, frame.get(data..place.end)?);
    }
    Some(())
}

/// What the client says. It may have data sent to itself only: RFC 2577, section 3.
fn client<A: Addr, E: Tables<A>>(env: &E, control: &Conn<A>, data: &[u8]) {
    for line in ftp::lines(data) {
        let Some((addr, port)) = data.get(line).and_then(ftp::active) else { continue };
        if addr == ip(control.key.get().src) {
            app::answer(env, control, port.to_be());
        }
    }
}

/// What the destination says; whether it was changed. It can only speak for itself.
fn server<A: Addr, E: Tables<A>>(env: &E, slow: &Slow, control: &Conn<A>, data: &mut [u8]) -> bool {
    let mut changed = false;
    let places: Vec<_> = ftp::lines(data).collect();
    for place in places {
        let Some(line) = data.get_mut(place) else { continue };
        let Some(passive) = ftp::passive(line) else { continue };
        if let Some((addr, at)) = passive.addr {
            let (IpAddr::V4(virtual_addr), true) =
                (ip(control.key.get().dst), ip(control.target.get()) == IpAddr::V4(addr))
            else {
                continue;
            };
            changed |= readdress(line, &at, addr, virtual_addr);
        }
        if let Some(until) = app::expect(env, control, passive.port.to_be()) {
            slow.expects.set(until.0);
        }
    }
    changed
}

/// Puts the virtual address in place of another; whether that changed anything.
fn readdress(line: &mut [u8], at: &std::ops::Range<usize>, old: Ipv4Addr, new: Ipv4Addr) -> bool {
    old != new && ftp::readdress(line, at, new)
}
