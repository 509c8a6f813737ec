//! Packet headers, byte for byte, as views over a frame: Ethernet, IPv4 (RFC 791), IPv6
//! (RFC 8200), TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260) and the ICMP errors (RFC 792, RFC 4443).
//!
//! Every type has alignment 2, that of headers in a frame, and no invalid bit pattern: with
//! alignment 1 a compiler for BPF takes packets apart byte by byte. Integers of more than a byte are either
//! `zerocopy::network_endian` types or, where only equality and checksums matter, raw words in
//! network byte order with the suffix `_be`.
#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod crc32c;

pub use zerocopy::{network_endian, transmute};

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_LEN: usize = 14;

/// IP protocol numbers (IANA "protocol-numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP flag bits.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
}

/// Ethernet II header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Ethernet {
    /// Destination MAC address.
    pub dst: [u8; 6],
    /// Source MAC address.
    pub src: [u8; 6],
    /// EtherType.
    pub ethertype: U16,
}

impl Ethernet {
    /// Writes both addresses, by numbers: LLVM has `memmove` called for six bytes, which copies them one by one.
    #[inline(always)]
    pub fn set_addresses(&mut self, dst: [u8; 6], src: [u8; 6]) {
        let [a, b, c]: [u16; 3] = zerocopy::transmute!(dst);
        let [d, e, f]: [u16; 3] = zerocopy::transmute!(src);
        self.dst = zerocopy::transmute!([a, b, c]);
        self.src = zerocopy::transmute!([d, e, f]);
    }
}

/// IPv4 header without options.
///
/// ```text
/// │ ver │ ihl │ tos │ total length │ id │ flags, fragment offset │
/// │ ttl │ protocol │ checksum │ source │ destination │
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Ipv4 {
    /// Version (4) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload in bytes.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags (bit 14: don't fragment, bit 13: more fragments) and fragment offset.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub checksum_be: [u8; 2],
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

impl Ipv4 {
    /// The don't-fragment bit of `fragment`.
    pub const DF: u16 = 0x4000;
    /// The more-fragments bit of `fragment`.
    pub const MORE: u16 = 0x2000;
    /// More-fragments bit and fragment offset: non-zero in every fragment.
    pub const FRAGMENT: u16 = 0x3fff;
    /// The offset in `fragment`: non-zero in every fragment but the first.
    pub const OFFSET: u16 = 0x1fff;
    /// Length without options, in bytes.
    pub const LEN: usize = 20;

    /// Length with options, in bytes, as the header says.
    #[inline(always)]
    pub const fn header_len(&self) -> u32 {
        ((self.version_ihl & 15) as u32) * 4
    }
}

/// IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Ipv6 {
    /// Version (6), traffic class and flow label.
    pub version_class_flow: U32,
    /// Length of what follows the header, in bytes.
    pub payload_len: U16,
    /// Protocol of the payload or the first extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

impl Ipv6 {
    /// Length in bytes.
    pub const LEN: usize = 40;
}

/// IPv6 fragment header (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Fragment {
    /// Protocol of the payload.
    pub next_header: u8,
    /// Reserved.
    pub reserved: u8,
    /// Offset in units of 8 bytes, in the high 13 bits, and the more-fragments bit.
    pub offset: U16,
    /// Identification.
    pub id: U32,
}

impl Fragment {
    /// The more-fragments bit of `offset`.
    pub const MORE: u16 = 1;
    /// The offset in `offset`: non-zero in every fragment but the first.
    pub const OFFSET: u16 = 0xfff8;
    /// Length in bytes.
    pub const LEN: usize = 8;
}

/// TCP header without options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Tcp {
    /// Source port.
    pub src_be: [u8; 2],
    /// Destination port.
    pub dst_be: [u8; 2],
    /// Sequence number.
    pub seq: U32,
    /// Acknowledgement number.
    pub ack: U32,
    /// Data offset in 32-bit words, in the high four bits.
    pub data_offset: u8,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum.
    pub checksum_be: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

impl Tcp {
    /// Offset of the checksum from the start of the header, in bytes.
    pub const CHECKSUM: usize = 16;
}

/// UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Udp {
    /// Source port.
    pub src_be: [u8; 2],
    /// Destination port.
    pub dst_be: [u8; 2],
    /// Length of header and payload in bytes.
    pub len: U16,
    /// Checksum; 0 over IPv4 means none.
    pub checksum_be: [u8; 2],
}

impl Udp {
    /// Offset of the checksum from the start of the header, in bytes.
    pub const CHECKSUM: usize = 6;
    /// Length in bytes.
    pub const LEN: usize = 8;
}

/// SCTP common header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Sctp {
    /// Source and destination port.
    pub ports: [u8; 4],
    /// Verification tag.
    pub tag: U32,
    /// CRC32c of the packet with this field zero, in the byte order of the CRC.
    pub checksum: [u8; 4],
}

impl Sctp {
    /// Length in bytes.
    pub const LEN: usize = 12;
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 8;
}

/// Header of an SCTP chunk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct SctpChunk {
    /// Chunk type.
    pub kind: u8,
    /// Flags, by type.
    pub flags: u8,
    /// Length of header and value in bytes, without padding.
    pub len: U16,
}

impl SctpChunk {
    /// Length in bytes.
    pub const LEN: usize = 4;
}

/// Generic UDP encapsulation, variant 0 without options (draft-ietf-intarea-gue), behind UDP.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Gue {
    /// Variant (0), control bit (0) and length of the options in 32-bit words (0).
    pub variant_control_hlen: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Flags of the options that follow.
    pub flags: U16,
}

impl Gue {
    /// Length in bytes.
    pub const LEN: usize = 4;
}

/// GRE header without options (RFC 2784).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Gre {
    /// Flags and version (0).
    pub flags: U16,
    /// EtherType of the payload.
    pub ethertype: U16,
}

impl Gre {
    /// The bit of `flags` that says that a [`GreChecksum`] follows.
    pub const CHECKSUM: u16 = 0x8000;
    /// Length in bytes.
    pub const LEN: usize = 4;
}

/// What follows a GRE header with a checksum.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct GreChecksum {
    /// Checksum of the GRE header and the payload.
    pub checksum_be: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

impl GreChecksum {
    /// Length in bytes.
    pub const LEN: usize = 4;
}

/// The two ports that TCP, UDP and SCTP headers begin with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Ports {
    /// Source port.
    pub src_be: [u8; 2],
    /// Destination port.
    pub dst_be: [u8; 2],
}

/// ICMP or ICMPv6 error header: what precedes the quoted packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct IcmpError {
    /// Message type.
    pub kind: u8,
    /// Message code.
    pub code: u8,
    /// Checksum.
    pub checksum_be: [u8; 2],
    /// MTU (IPv4: in the low 16 bits) or unused.
    pub info: U32,
}

impl IcmpError {
    /// Offset of the checksum from the start of the header, in bytes.
    pub const CHECKSUM: usize = 2;
    /// Length in bytes.
    pub const LEN: usize = 8;
}

/// Two bytes at an even offset: a checksum, say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct Word(pub [u8; 2]);
