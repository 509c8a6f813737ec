//! Cutting an IPv4 packet, or a fragment, into fragments: RFC 791, section 3.2; and a tunnel's IPv6
//! packet: RFC 8200, section 4.5.

use rvs_wire::{Ipv6, checksum, protocol};

use crate::packet::{L3, ipv4_header, number};

/// The smallest MTU of IPv4: 60 bytes of header and 8 of data.
const LEAST: usize = 68;
const MORE: usize = 0x2000;
const DF: usize = 0x4000;

/// A tunnel's packet in pieces, by its outer header.
pub fn cut_outer(frame: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    if frame.get(L3)? >> 4 == 6 { cut_ipv6(frame, mtu) } else { cut(frame, mtu) }
}

/// The frame's IPv6 packet, which has no extension headers, in pieces. Their identification lies in
/// front of it (`rvs_core::fragment::Ticket`).
fn cut_ipv6(frame: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    const FRAGMENT: usize = 8;
    let start = L3 + Ipv6::LEN;
    let (header, id) = (frame.get(..start)?, frame.get(6..10)?);
    let data = frame.get(start..start + number(frame, L3 + 4)?)?;
    let room = mtu.checked_sub(Ipv6::LEN + FRAGMENT)? & !7;
    let mut pieces = Vec::new();
    for (index, part) in data.chunks(Some(room).filter(|room| *room != 0)?).enumerate() {
        let offset = index * room;
        let more = usize::from(offset + part.len() < data.len());
        let mut piece = header.to_vec();
        let len = u16::try_from(FRAGMENT + part.len()).ok()?;
        piece.get_mut(L3 + 4..L3 + 6)?.copy_from_slice(&len.to_be_bytes());
        let next = std::mem::replace(piece.get_mut(L3 + 6)?, protocol::FRAGMENT);
        let [high, low] = u16::try_from(offset | more).ok()?.to_be_bytes();
        piece.extend([next, 0, high, low]);
        piece.extend_from_slice(id);
        piece.extend_from_slice(part);
        pieces.push(piece);
    }
    Some(pieces)
}

/// The frame's packet in pieces of `mtu` bytes at most from the IP header on. `None` if it is no
/// IPv4 packet that may be cut.
pub fn cut(frame: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let header = ipv4_header(frame)?;
    let place = number(frame, L3 + 6)?;
    if place & DF != 0 || mtu < LEAST {
        return None;
    }
    let data = frame.get(L3 + header..L3 + number(frame, L3 + 2)?)?;
    let room = (mtu - header) & !7;
    let mut pieces = Vec::new();
    for (index, part) in data.chunks(room).enumerate() {
        let offset = (place & 0x1fff) + index * room / 8;
        let last = (index + 1) * room >= data.len();
        // That others follow the whole is true of its last piece, too.
        let more = if last { place & MORE } else { MORE };
        let mut piece = frame.get(..L3 + header)?.to_vec();
        if offset != 0 {
            blank_options(piece.get_mut(L3 + 20..)?);
        }
        finish(&mut piece, part, offset | more)?;
        pieces.push(piece);
    }
    Some(pieces)
}

/// Writes length, place and checksum of an IPv4 header, and the data behind it.
pub fn finish(piece: &mut Vec<u8>, data: &[u8], place: usize) -> Option<()> {
    let len = u16::try_from(piece.len() - L3 + data.len()).ok()?;
    let ip = piece.get_mut(L3..)?;
    ip.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
    ip.get_mut(6..8)?.copy_from_slice(&u16::try_from(place).ok()?.to_be_bytes());
    ip.get_mut(10..12)?.fill(0);
    let sum = checksum::of(ip);
    ip.get_mut(10..12)?.copy_from_slice(&sum);
    piece.extend_from_slice(data);
    Some(())
}

/// Overwrites the options that only a first fragment carries by no-operations, as the kernel does.
fn blank_options(mut options: &mut [u8]) {
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    while let Some(&kind) = options.first() {
        let len = match kind {
            0 => return,
            NO_OPERATION => 1,
            _ => options.get(1).map_or(0, |len| usize::from(*len)),
        };
        if len == 0 || len > options.len() {
            return;
        }
        let (option, rest) = options.split_at_mut(len);
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Piece;

    /// A frame of `len` bytes of data, with options: a record of route, which is not copied, and a
    /// loose source route, which is.
    fn frame(len: usize, place: usize) -> Vec<u8> {
        let mut frame = vec![0; L3];
        frame.extend([0x47, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 2, 10, 9, 1, 1]);
        frame.extend([7, 3, 4, 131, 3, 4, 0, 0]);
        let data: Vec<u8> = (0..len).map(|at| (at * 7 + at / 256) as u8).collect();
        finish(&mut frame, &data, place).expect("a short frame");
        frame
    }

    #[test]
    fn the_pieces_fit_and_are_the_whole() {
        for (len, place) in [(2000, 0), (2001, MORE), (1372, 172 | MORE), (73, 9), (1, 0)] {
            let whole = frame(len, place);
            let pieces = cut(&whole, 600).expect("it may be cut");
            let mut data = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                assert!(piece.len() - L3 <= 600, "{len}");
                assert_eq!(checksum::of(&piece[L3..L3 + 28]), [0, 0], "{len}: the checksum");
                let place = number(piece, L3 + 6).expect("a header");
                let start = (number(&whole, L3 + 6).expect("a header") & 0x1fff) * 8;
                assert_eq!((place & 0x1fff) * 8, start + data.len(), "{len}");
                let last = index + 1 == pieces.len();
                assert_eq!(place & MORE != 0, !last || whole[L3 + 6] & 0x20 != 0, "{len}");
                let route: &[u8] =
                    if place & 0x1fff == 0 { &[7, 3, 4, 131, 3, 4] } else { &[1, 1, 1, 131, 3, 4] };
                assert_eq!(&piece[L3 + 20..L3 + 26], route, "{len}");
                data.extend_from_slice(&piece[L3 + 28..]);
            }
            assert_eq!(data, whole[L3 + 28..], "{len}");
        }
    }

    #[test]
    fn pieces_of_ipv6_have_a_header_of_their_own() {
        let data: Vec<u8> = (0..1460).map(|at| (at * 7 + at / 256) as u8).collect();
        let mut whole = vec![0; L3];
        whole[6..10].copy_from_slice(b"id!?");
        whole.extend([0x60, 0, 0, 0, 0x05, 0xb4, 4, 63]);
        whole.extend([0xfd; 32]);
        whole.extend(&data);
        let pieces = cut_outer(&whole, 1300).expect("it may be cut");
        let fragments = [[4, 0, 0, 1], [4, 0, 0x04, 0xe0]];
        let places = [0..1248, 1248..1460];
        assert_eq!(pieces.len(), 2);
        for ((piece, fragment), place) in pieces.iter().zip(fragments).zip(places) {
            assert_eq!(number(piece, L3 + 4), Some(8 + place.len()));
            assert_eq!(piece[L3 + 6..L3 + 8], [44, 63]);
            assert_eq!(piece[L3 + 40..L3 + 48], [&fragment[..], b"id!?"].concat());
            assert_eq!(piece[L3 + 48..], data[place]);
        }
        assert_eq!(cut_outer(&whole, 55), None);
        assert_eq!(cut_outer(&whole[..L3 + 700], 1300), None);
    }

    #[test]
    fn what_must_not_be_cut_is_not() {
        assert_eq!(cut(&frame(2000, DF), 600), None);
        assert_eq!(cut(&frame(2000, 0), 67), None);
        assert_eq!(cut(&frame(2000, 0)[..L3 + 700], 600), None);
        assert!(Piece::read(&frame(2000, 0)).is_none());
    }
}
