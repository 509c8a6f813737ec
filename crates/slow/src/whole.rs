//! Putting a datagram together whose first fragment ends within the transport header, so that no
//! program can balance it: RFC 815. It goes on in fragments again, but with a first one that is
//! long enough. IPv4 only: RFC 8200, section 4.5, has IPv6's dropped, and the kernel drops them.

use crate::cut::finish;
use crate::packet::{L3, Piece, ipv4_header};

/// What fragments make.
#[derive(Debug, PartialEq, Eq)]
pub enum Whole {
    /// Not everything is there yet.
    Incomplete,
    /// They contradict each other.
    Invalid,
    /// The datagram, in frames of no more than the longest fragment's length.
    Complete(Vec<Vec<u8>>),
}

/// Puts IPv4 fragments of one datagram together.
pub fn assemble(frames: &[Vec<u8>]) -> Whole {
    let mut pieces: Vec<(Piece, &[u8])> = Vec::new();
    for frame in frames {
        let Some(piece) = Piece::read(frame) else { return Whole::Invalid };
        pieces.push((piece, frame));
    }
    pieces.sort_by_key(|(piece, _)| piece.offset);
    // The same one twice is no contradiction (the kernel: `inet_frag_queue_insert`).
    pieces.dedup_by(|(a, first), (b, second)| {
        (a.offset, a.more) == (b.offset, b.more)
            && first.get(a.data..a.end) == second.get(b.data..b.end)
    });
    let mut data: Vec<u8> = Vec::new();
    let mut ended = false;
    for (piece, frame) in &pieces {
        if piece.offset > data.len() && !ended {
            return Whole::Incomplete;
        }
        if ended || piece.offset < data.len() {
            return Whole::Invalid;
        }
        data.extend_from_slice(frame.get(piece.data..piece.end).unwrap_or_default());
        ended = !piece.more;
    }
    if !ended {
        return Whole::Incomplete;
    }
    frames_of(&pieces, &data).map_or(Whole::Invalid, Whole::Complete)
}

/// The datagram in frames.
fn frames_of(pieces: &[(Piece, &[u8])], data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (_, first) = pieces.first()?;
    let header = ipv4_header(first)?;
    let longest = pieces.iter().map(|(piece, _)| piece.end - L3).max()?;
    // A whole transport header, at the least.
    let room = (longest.max(header + 64) - header) & !7;
    let mut frames = Vec::new();
    for (index, part) in data.chunks(room).enumerate() {
        let more = if (index + 1) * room < data.len() { 0x2000 } else { 0 };
        let mut frame = first.get(..L3 + header)?.to_vec();
        finish(&mut frame, part, (index * room / 8) | more)?;
        frames.push(frame);
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data from `from` to `to` of a datagram of 40 bytes.
    fn piece(from: usize, to: usize) -> Vec<u8> {
        let mut frame = vec![0; L3];
        frame.extend([0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 9, 1, 1]);
        let data: Vec<u8> = (from..to).map(|at| at as u8).collect();
        let more = if to < 40 { 0x2000 } else { 0 };
        finish(&mut frame, &data, (from / 8) | more).expect("a short frame");
        frame
    }

    #[test]
    fn a_complete_datagram_is_one_frame_that_holds_its_headers() {
        let Whole::Complete(frames) = assemble(&[piece(8, 24), piece(24, 40), piece(0, 8)]) else {
            panic!("incomplete");
        };
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0][L3 + 20..], (0..40).collect::<Vec<u8>>());
        assert_eq!(frames[0][L3 + 6..L3 + 8], [0, 0], "no fragment any more");
        assert_eq!(rvs_wire::checksum::of(&frames[0][L3..L3 + 20]), [0, 0]);
    }

    #[test]
    fn what_is_missing_is_waited_for_and_what_contradicts_is_not_believed() {
        use Whole::{Incomplete, Invalid};
        assert_eq!(assemble(&[piece(0, 8), piece(24, 40)]), Incomplete);
        assert_eq!(assemble(&[piece(0, 8), piece(8, 24)]), Incomplete);
        assert_eq!(assemble(&[piece(0, 16), piece(8, 40)]), Invalid);
        let mut other = piece(8, 24);
        *other.last_mut().expect("data") ^= 1;
        assert_eq!(assemble(&[piece(0, 8), piece(8, 24), other, piece(24, 40)]), Invalid);
        let twice = [piece(0, 8), piece(8, 24), piece(8, 24), piece(24, 40)];
        assert!(matches!(assemble(&twice), Whole::Complete(_)));
    }
}
