//! A frame that can be read and rewritten, whatever holds it: XDP, an skb, or a byte slice.

use rvs_wire::Word;
use rvs_wire::checksum::Delta;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A header type that can be laid over packet bytes; offsets of headers are even.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Header for T {}

/// A frame that starts at its Ethernet header.
pub trait Packet {
    /// Length of the frame in bytes.
    fn frame_len(&self) -> u32;

    /// Whether the frame is at least `len` bytes long.
    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        self.frame_len() >= len
    }

    /// The header at `offset`, if the frame is long enough.
    fn at<T: Header>(&self, offset: u32) -> Option<&T>;

    /// The header at `offset`, to change it.
    fn at_mut<T: Header>(&mut self, offset: u32) -> Option<&mut T>;

    /// The number in two bytes anywhere in the frame, where [`at`](Self::at) may reach headers only;
    /// 0 behind its end.
    #[inline(always)]
    fn word_at(&self, offset: u32) -> u16 {
        self.at::<Word>(offset).map_or(0, |word| u16::from_be_bytes(word.0))
    }

    /// The mark that netfilter or traffic control gave the packet, 0 if none; `None` where marks
    /// cannot be seen yet.
    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        Some(0)
    }

    /// Applies changes to the transport checksum at `offset`: `pseudo` of the pseudo header,
    /// `header` of the transport header. A zero UDP checksum over IPv4 (`optional`) stays zero.
    /// False if the checksum is out of reach.
    #[inline(always)]
    fn fix_checksum(&mut self, offset: u32, optional: bool, pseudo: Delta, header: Delta) -> bool {
        let Some(Word(field)) = self.at_mut(offset) else { return false };
        if optional && *field == [0, 0] {
            return true;
        }
        let sum = pseudo.and(header).apply(*field);
        // RFC 768: a computed zero is sent as all ones. TCP may carry either form.
        *field = if optional && sum == [0, 0] { [0xff, 0xff] } else { sum };
        true
    }
}
