//! What a receiver makes of the packets that it gets: it puts fragments together and takes packets out
//! of tunnels, and drops what is not right.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::frame::{for_director, from_hex, sum};

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// A packet without what fragmentation and tunnels add.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Source and destination.
    pub addresses: Vec<u8>,
    /// IPv6 extension headers but fragment headers: their numbers, and all but the next one's.
    pub chain: Vec<(u8, Vec<u8>)>,
    /// What `data` is.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv4's; whoever cuts IPv6 packets draws it.
    pub id: usize,
    /// The transport header and what follows.
    pub data: Vec<u8>,
}

impl Packet {
    /// Takes extension headers off the data.
    fn strip(&mut self) {
        while matches!(self.protocol, 43 | 51 | 60) {
            let words = usize::from(self.data[1]);
            let len = if self.protocol == 51 { (words + 2) * 4 } else { (words + 1) * 8 };
            let header: Vec<u8> = self.data.drain(..len).collect();
            self.chain.push((self.protocol, header[1..].to_vec()));
            self.protocol = header[0];
        }
    }

    /// Whether an ICMP message has a right checksum; others have.
    fn is_sound(&self) -> bool {
        let len = (self.data.len() as u32).to_be_bytes();
        match self.protocol {
            1 => sum(&[&self.data]) == 0xffff,
            58 => sum(&[&self.addresses, &len, &[0, 58], &self.data]) == 0xffff,
            _ => true,
        }
    }
}

/// Place and data of the pieces of one packet, by what they share.
type Pieces = BTreeMap<(Vec<u8>, usize, u8), Vec<(usize, bool, Packet)>>;

/// What a receiver makes of packets: whole ones, without tunnels, checksums verified.
pub fn receive(packets: &[Vec<u8>]) -> Vec<Packet> {
    let (mut pieces, mut whole) = (Pieces::new(), Vec::new());
    for packet in packets {
        let (offset, more, id, mut piece) = read(packet);
        if offset == 0 && !more {
            piece.strip();
            whole.push(piece);
            continue;
        }
        let shared = (piece.addresses.clone(), id, piece.protocol);
        pieces.entry(shared).or_default().push((offset, more, piece));
    }
    for mut pieces in pieces.into_values() {
        pieces.sort();
        pieces.dedup();
        let mut packet = pieces[0].2.clone();
        packet.data.clear();
        let mut ended = false;
        for (offset, more, piece) in pieces {
            if offset != packet.data.len() || ended {
                // Incomplete or overlapping: nobody takes it.
                ended = false;
                break;
            }
            packet.data.extend(piece.data);
            ended = !more;
        }
        if ended {
            packet.strip();
            whole.push(packet);
        }
    }
    // Those in tunnels may be pieces of each other.
    let (tunneled, mut whole): (Vec<Packet>, Vec<Packet>) =
        whole.into_iter().partition(|packet| matches!(packet.protocol, 4 | 41));
    if !tunneled.is_empty() {
        let inner: Vec<Vec<u8>> = tunneled.into_iter().map(|packet| packet.data).collect();
        whole.extend(receive(&inner));
    }
    whole.retain(Packet::is_sound);
    for packet in &whole {
        verify(packet);
    }
    whole.sort();
    whole
}

/// Place, whether more follow, identification, and the rest.
fn read(packet: &[u8]) -> (usize, bool, usize, Packet) {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(sum(&[&packet[..header]]), 0xffff, "an IPv4 checksum");
        let (place, id) = (number(packet, 6), number(packet, 4));
        let data = packet[header..number(packet, 2)].to_vec();
        let (protocol, ttl, tos) = (packet[9], packet[8], packet[1]);
        let chain = Vec::new();
        let packet =
            Packet { addresses: packet[12..20].to_vec(), chain, protocol, ttl, tos, id, data };
        return ((place & 0x1fff) * 8, place & 0x2000 != 0, id, packet);
    }
    let tos = packet[0] << 4 | packet[1] >> 4;
    let (addresses, ttl) = (packet[8..40].to_vec(), packet[7]);
    let data = packet[40..40 + number(packet, 4)].to_vec();
    let chain = Vec::new();
    let mut whole = Packet { addresses, chain, protocol: packet[6], ttl, tos, id: 0, data };
    whole.strip();
    if whole.protocol != 44 {
        return (0, false, 0, whole);
    }
    let header: Vec<u8> = whole.data.drain(..8).collect();
    whole.protocol = header[0];
    let (place, id) = (number(&header, 2), number(&header, 4) << 16 | number(&header, 6));
    (place & 0xfff8, place & 1 != 0, id, whole)
}

fn verify(packet: &Packet) {
    let Packet { addresses, protocol, data, .. } = packet;
    if !matches!(protocol, 6 | 17) || *protocol == 17 && data[6..8] == [0, 0] {
        return;
    }
    let len = (data.len() as u32).to_be_bytes();
    assert_eq!(sum(&[addresses, &len, &[0, *protocol], data]), 0xffff, "a transport checksum");
}

/// Packets and how their data begin.
pub fn brief(packets: &[Packet]) -> String {
    let brief = |packet: &Packet| {
        let mut packet = packet.clone();
        packet.data.truncate(24);
        format!("{packet:02x?}")
    };
    packets.iter().map(brief).collect()
}

/// Type, code and value of ICMP errors.
pub fn errors(packets: &[Packet]) -> Vec<Vec<u8>> {
    let icmp = packets.iter().filter(|p| matches!(p.protocol, 1 | 58));
    icmp.map(|p| [&p.data[..2], &p.data[4..8]].concat()).collect()
}

/// The text of this name in a case.
pub fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
}

/// From their IP headers on.
pub fn packets<'f>(frames: impl IntoIterator<Item = &'f Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|frame| frame[14..].to_vec()).collect()
}

/// The frames of a case of a recording, one a step.
pub fn given(case: &Value) -> Vec<Vec<u8>> {
    let steps = case["steps"].as_array().expect("steps");
    steps.iter().map(|step| for_director(text(step, "frame"))).collect()
}

/// The frames that left the director in a case.
pub fn recorded(case: &Value) -> Vec<Vec<u8>> {
    let steps = case["steps"].as_array().expect("steps").iter();
    steps
        .flat_map(|step| ["to_client", "to_server"].map(|side| step[side].as_array()))
        .flatten()
        .flatten()
        .map(|frame| from_hex(frame.as_str().expect("hexadecimal")))
        .collect()
}
