//! SCTP frames, with checksums by a library that is not ours.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};
use etherparse::{IpNumber, PacketBuilder};

use crate::{DIRECTOR, NEIGHBOUR};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Offset of the checksum in the common header.
const CHECKSUM: usize = 8;

/// The checksum in an SCTP packet, and the one that it should have.
pub fn checksums(packet: &[u8]) -> (u32, u32) {
    let mut blank = packet.to_vec();
    let field = blank.get_mut(CHECKSUM..CHECKSUM + 4).expect("a common header");
    let found = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    field.fill(0);
    (found, CRC32C.checksum(&blank))
}

/// A frame with a chunk of this type and a right checksum.
pub fn build(src: SocketAddr, dst: SocketAddr, chunk: u8) -> Vec<u8> {
    let mut packet = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    packet.extend([0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, chunk, 0, 0, 20]);
    packet.extend([0; 16]);
    let sum = checksums(&packet).1;
    packet.splice(CHECKSUM..CHECKSUM + 4, sum.to_le_bytes());
    let builder = PacketBuilder::ethernet2(NEIGHBOUR, DIRECTOR);
    let builder = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => builder.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => builder.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("mixed address families"),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, IpNumber(132), &packet).expect("writing to memory");
    bytes
}
