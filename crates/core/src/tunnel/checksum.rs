//! The checksum in an outer header, which covers the packet inside: UDP's (RFC 768) and GRE's
//! (RFC 2784). A packet whose own transport checksum is right adds up to what its headers say, so
//! its data need not be read ("local checksum offload"); that holds as well where a device is yet
//! to finish it. A wrong one inside makes a wrong one outside.

use rvs_wire::checksum::fold;
use rvs_wire::{
    ETHERTYPE_IPV4, Ethernet, Gre, GreChecksum, Gue, Ipv4, Ipv6, Tcp, Udp, Word, protocol,
};

use crate::addr::Addr;
use crate::flow::{L3, v6};
use crate::packet::Packet;

/// Where an outer checksum is and what it covers.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Offset of the checksum, which is zero yet, from the start of the frame.
    field: u32,
    /// Sum of the pseudo header's addresses and protocol, and of the tunnel's header but for
    /// lengths.
    sum: u32,
    /// Offset of the packet inside.
    pub inner: u32,
    /// Length of the packet inside.
    pub len: u32,
    /// Whether it is UDP's: lengths count twice, and zero says that there is none.
    is_udp: bool,
}

/// Sum of 64-bit partial sums, folded to 16 bits.
#[inline(always)]
fn fold64(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold(sum as u32) as u32
}

/// A number as it lies in memory in network byte order.
#[inline(always)]
const fn be(number: u32) -> u64 {
    (number as u16).to_be() as u64
}

/// Reads the outer headers of a frame that [`write`](super::write) has finished. `None` if they
/// are out of reach or have no checksum to compute.
#[inline(always)]
pub fn outer<P: Packet>(packet: &P) -> Option<Outer> {
    let (addrs, proto, shim, len) = if packet.at::<Ethernet>(0)?.ethertype.get() == ETHERTYPE_IPV4 {
        let ip = packet.at::<Ipv4>(L3)?;
        let addrs = u32::from_ne_bytes(ip.src) as u64 + u32::from_ne_bytes(ip.dst) as u64;
        let len = (ip.total_len.get() as u32).wrapping_sub(Ipv4::LEN as u32);
        (addrs, ip.protocol, L3 + Ipv4::LEN as u32, len)
    } else {
        let ip = packet.at::<Ipv6>(L3)?;
        let addrs = v6(ip.src).sum() + v6(ip.dst).sum();
        (addrs, ip.next_header, L3 + Ipv6::LEN as u32, ip.payload_len.get() as u32)
    };
    if proto == protocol::UDP {
        let udp = packet.at::<Udp>(shim)?;
        let ports = u16::from_ne_bytes(udp.src_be) as u64 + u16::from_ne_bytes(udp.dst_be) as u64;
        let [a, b]: [u16; 2] = zerocopy::transmute!(*packet.at::<Gue>(shim + Udp::LEN as u32)?);
        let sum = fold64(addrs + be(proto as u32) + ports + a as u64 + b as u64);
        let header = (Udp::LEN + Gue::LEN) as u32;
        let (inner, len) = (shim + header, len.wrapping_sub(header));
        return Some(Outer { field: shim + Udp::CHECKSUM as u32, sum, inner, len, is_udp: true });
    }
    let [a, b]: [u16; 2] = zerocopy::transmute!(*packet.at::<Gre>(shim)?);
    let header = (Gre::LEN + GreChecksum::LEN) as u32;
    Some(Outer {
        field: shim + Gre::LEN as u32,
        sum: a as u32 + b as u32,
        inner: shim + header,
        len: len.wrapping_sub(header),
        is_udp: false,
    })
}

/// What the headers of the packet at `at` say that it adds up to, and its length. Of a
/// super-packet with segments of `segment` bytes it is what a full segment will be, and whether all
/// are full. `None` if that cannot be known: UDP without a checksum or with bytes behind the
/// datagram, other protocols.
#[inline(always)]
pub fn promised<P: Packet>(packet: &P, at: u32, segment: u32) -> Option<(u32, u32, bool)> {
    let ip = packet.at::<Ipv4>(at)?;
    if ip.version_ihl >> 4 == 4 {
        // Of a fragment only the whole datagram has a checksum.
        if ip.fragment.get() & Ipv4::FRAGMENT != 0 {
            return None;
        }
        let header = ip.header_len();
        let (proto, len) = (ip.protocol, ip.total_len.get() as u32);
        let addrs = u32::from_ne_bytes(ip.src) as u64 + u32::from_ne_bytes(ip.dst) as u64;
        let (len, full) = transport(packet, proto, at + header, len.wrapping_sub(header), segment)?;
        // The header adds up to nothing; so does the segment with its pseudo header.
        let pseudo = fold64(addrs + be(proto as u32) + be(len));
        return Some((!pseudo & 0xffff, header + len, full));
    }
    let ip = packet.at::<Ipv6>(at)?;
    let proto = ip.next_header;
    let first: [u16; 2] = zerocopy::transmute!(ip.version_class_flow);
    let next_hop = u16::from_ne_bytes([proto, ip.hop_limit]);
    let l4 = at + Ipv6::LEN as u32;
    let (len, full) = transport(packet, proto, l4, ip.payload_len.get() as u32, segment)?;
    // Addresses and length are in the header and, with the other sign, in the pseudo header.
    let pseudo = !(be(proto as u32) as u32) & 0xffff;
    let sum = first[0] as u64 + first[1] as u64 + next_hop as u64 + pseudo as u64;
    Some((fold64(sum), Ipv6::LEN as u32 + len, full))
}

/// Length of a transport segment with a checksum, or of a super-packet's full segments, and whether
/// all are full.
#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    proto: u8,
    l4: u32,
    len: u32,
    segment: u32,
) -> Option<(u32, bool)> {
    let header = if proto == protocol::TCP {
        ((packet.at::<Tcp>(l4)?.data_offset >> 4) as u32) * 4
    } else if proto == protocol::UDP {
        let udp = packet.at::<Udp>(l4)?;
        if udp.checksum_be == [0, 0] || udp.len.get() as u32 != len {
            return None;
        }
        Udp::LEN as u32
    } else {
        return None;
    };
    if segment == 0 {
        return Some((len, true));
    }
    Some((header + segment, len.wrapping_sub(header) % segment == 0))
}

impl Outer {
    /// Writes the checksum around a packet of `len` bytes that add up to `inner`. `None` if it is
    /// out of reach.
    #[inline(always)]
    pub fn write<P: Packet>(&self, packet: &mut P, inner: u32, len: u32) -> Option<()> {
        let Word(field) = packet.at_mut(self.field)?;
        let lengths = if self.is_udp { 2 * be(len + (Udp::LEN + Gue::LEN) as u32) } else { 0 };
        let sum = !fold64(self.sum as u64 + inner as u64 + lengths) as u16;
        *field = if self.is_udp && sum == 0 { [0xff, 0xff] } else { sum.to_ne_bytes() };
        Some(())
    }

    /// The same by what the packet's headers say; see [`promised`], whose `None` is false here.
    ///
    /// Segments of a super-packet get the checksum of a full one when the kernel makes them. If the
    /// last is shorter, UDP's stays zero. GRE's is right for segments of IPv6, whose sum does not
    /// depend on their length; a short last one of IPv4 is lost, and sent again by itself.
    #[inline(always)]
    pub fn write_promised<P: Packet>(&self, packet: &mut P, segment: u32) -> Option<bool> {
        let Some((sum, len, full)) = promised(packet, self.inner, segment) else {
            return Some(false);
        };
        if full || !self.is_udp {
            self.write(packet, sum, len)?;
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sums_fold_as_the_checksum_does() {
        let words = [0xffff_ffffu32, 0xffff_0001, 7, 0xfffe_ffff];
        let sum: u64 = words.iter().map(|w| u64::from(*w)).sum();
        let bytes: [u8; 16] = zerocopy::transmute!(words);
        assert_eq!(fold64(sum), u32::from(fold(rvs_wire::checksum::sum(&bytes))));
    }
}
