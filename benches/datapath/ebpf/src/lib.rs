//! What user space and the benchmark's eBPF programs share.
#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an IPv4 frame: the smallest that Ethernet has, its checksum included.
pub const LEN4: usize = 64;
/// Bytes of an IPv6 frame: its headers, and some.
pub const LEN6: usize = 80;

/// Measured programs, by their index in the program arrays.
pub const BARE: u32 = 0;
/// See [`BARE`]: parse, and one look-up in a BPF hash.
pub const LOOK_UP: u32 = 1;
/// See [`BARE`]: parse, and one insert into a BPF hash.
pub const INSERT: u32 = 2;
/// See [`BARE`]: RVS.
pub const RVS: u32 = 3;
/// Number of measured programs.
pub const PROGRAMS: usize = 4;

/// Packets that the generator sends at once.
pub const BATCH: u32 = 64;

/// A flow's port: none that means something, as that of FTP's data does.
pub const fn port(flow: u32) -> u16 {
    1 << 15 | (flow & 0x7fff) as u16
}

/// The end of a flow's address.
pub const fn addr(flow: u32) -> u16 {
    (flow >> 15) as u16
}

/// The flow, below 2³¹, with this end of an address and this port.
pub const fn flow(addr: u16, port: u16) -> u32 {
    (addr as u32) << 15 | (port & 0x7fff) as u32
}

/// What the wrapper does before each run of a measured program.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// The frame that the program is to see. Flow `n` has the port [`port`] and [`addr`] in the last
    /// two bytes of its address, network byte order; each is written inverted as well to where the same checksum covers it, so that all checksums stay right.
    pub frame: [u8; 128],
    /// Offset of the port.
    pub port: u32,
    /// Offset of a field that balances it in the TCP checksum.
    pub port_inverse: u32,
    /// Offset of the address's last two bytes.
    pub addr: u32,
    /// Offset of a field that balances them in the TCP checksum.
    pub addr_inverse: u32,
    /// Offset of a field that balances them in the IPv4 header's checksum.
    pub header_inverse: u32,
    /// The measured program.
    pub program: u32,
    /// First flow.
    pub first: u32,
    /// Number of flows less one, a power of two less one.
    pub mask: u32,
    /// 1 to take the flows in turn, 0 to draw them.
    pub in_turn: u32,
    /// The next one in turn.
    pub next: u32,
    /// State of the generator; not zero.
    pub random: u32,
    /// Runs of a program that did not find or could not enter its flow.
    pub failed: u32,
    /// Packets that the generator has made.
    pub made: u32,
    /// Nanoseconds from one of its batches to the next; 0: it does not wait.
    pub gap: u32,
    /// When its next batch is due: `CLOCK_MONOTONIC`, nanoseconds.
    pub due: u64,
}
