//! A fragment's place in its datagram.

use rvs_core::fragment::NoteKey;
use rvs_core::headers;
use rvs_wire::{ETHERNET_LEN, protocol};

/// Where the IP header starts.
pub const L3: usize = ETHERNET_LEN;

/// What a fragment's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it shares with the others of its datagram.
    pub key: NoteKey,
    /// Place of its data in the datagram's, in bytes.
    pub offset: usize,
    /// Whether others come behind it.
    pub more: bool,
    /// Where in the frame its data begins.
    pub data: usize,
    /// Where in the frame its data ends; padding may follow.
    pub end: usize,
}

/// Four bytes as they lie in the frame.
fn word(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*frame.get(at..)?.first_chunk()?))
}

/// A number of two bytes.
pub fn number(frame: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?).into())
}

/// Length of the IPv4 header of a frame; `None` if it is no IPv4 packet or is cut short.
pub fn ipv4_header(frame: &[u8]) -> Option<usize> {
    let first = *frame.get(L3)?;
    let header = usize::from(first & 15) * 4;
    (first >> 4 == 4 && header >= 20 && frame.len() >= L3 + header).then_some(header)
}

/// Number and place of the first header of an IPv6 packet that is no extension header, or a fragment
/// header; `None` if the frame is cut short.
pub fn behind_extensions(frame: &[u8]) -> Option<(u8, usize)> {
    let (mut next, mut header) = (*frame.get(L3 + 6)?, L3 + 40);
    while headers::is_extension(next) {
        let len = usize::from(*frame.get(header + 1)?);
        let is_ah = next == protocol::AUTHENTICATION;
        next = *frame.get(header)?;
        header += if is_ah { (len + 2) * 4 } else { (len + 1) * 8 };
    }
    Some((next, header))
}

impl Piece {
    /// Reads a frame; `None` if it is no fragment or is cut short.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let piece = match frame.get(L3)? >> 4 {
            4 => Self::ipv4(frame)?,
            6 => Self::ipv6(frame)?,
            _ => return None,
        };
        let is_fragment = piece.more || piece.offset != 0;
        (is_fragment && piece.data < piece.end && piece.end <= frame.len()).then_some(piece)
    }

    fn ipv4(frame: &[u8]) -> Option<Self> {
        let header = ipv4_header(frame)?;
        let place = number(frame, L3 + 6)?;
        let id = frame.get(L3 + 4..)?.first_chunk::<2>()?;
        let key = NoteKey {
            src: [word(frame, L3 + 12)?, 0, 0, 0],
            dst: [word(frame, L3 + 16)?, 0, 0, 0],
            id_be: u16::from_ne_bytes(*id).into(),
            protocol: 4 << 16 | u32::from(*frame.get(L3 + 9)?),
        };
        let (offset, more) = ((place & 0x1fff) * 8, place & 0x2000 != 0);
        Some(Self { key, offset, more, data: L3 + header, end: L3 + number(frame, L3 + 2)? })
    }

    fn ipv6(frame: &[u8]) -> Option<Self> {
        let (next, header) = behind_extensions(frame)?;
        if next != protocol::FRAGMENT {
            return None;
        }
        let addr = |at: usize| -> Option<[u32; 4]> {
            let mut addr = [0; 4];
            for (at, place) in (at..).step_by(4).zip(&mut addr) {
                *place = word(frame, at)?;
            }
            Some(addr)
        };
        let place = number(frame, header + 2)?;
        let key = NoteKey {
            src: addr(L3 + 8)?,
            dst: addr(L3 + 24)?,
            id_be: word(frame, header + 4)?,
            protocol: 6 << 16 | u32::from(*frame.get(header)?),
        };
        let (offset, more) = (place & 0xfff8, place & 1 != 0);
        Some(Self { key, offset, more, data: header + 8, end: L3 + 40 + number(frame, L3 + 4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_header_is_found_behind_extension_headers() {
        let fragment = [protocol::UDP, 0, 0, 17, 1, 2, 3, 4];
        // Destination options of 8 bytes, AH of 16.
        let options = [protocol::AUTHENTICATION, 0, 1, 4, 0, 0, 0, 0];
        let ah = [protocol::FRAGMENT, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (first, between) in
            [(protocol::FRAGMENT, vec![]), (protocol::OPTIONS, [&options[..], &ah].concat())]
        {
            let mut frame = vec![0; L3];
            frame.extend([0x60, 0, 0, 0, 0, between.len() as u8 + 16, first, 64]);
            frame.extend([7; 32]);
            frame.extend([&between[..], &fragment, &[9; 8]].concat());
            let piece = Piece::read(&frame).expect("a fragment");
            let data = L3 + 40 + between.len() + 8;
            assert_eq!(
                (piece.offset, piece.more, piece.data, piece.end),
                (16, true, data, data + 8)
            );
            assert_eq!(piece.key.id_be, u32::from_ne_bytes([1, 2, 3, 4]));
            assert_eq!(piece.key.protocol, 6 << 16 | 17);
            // Whatever is cut off, it is no fragment and nothing worse.
            for len in 0..frame.len() {
                assert_eq!(Piece::read(&frame[..len]), None, "{len}");
            }
        }
    }
}
