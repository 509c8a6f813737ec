//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are taken over 16-bit words as they lie in memory, so no byte swapping happens: one's
//! complement addition gives the right bytes on either endianness.

/// A difference between old and new header words, to be applied to a checksum: a sum of 32-bit
/// words, which is equal to the sum of their halves once folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// The difference of one replaced 16-bit word.
    #[inline(always)]
    pub const fn word(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
        Self(self.0.wrapping_add(!old as u64).wrapping_add(new as u64))
    }

    /// The difference of four replaced bytes at an even offset.
    #[inline(always)]
    pub const fn quad(self, old: u32, new: u32) -> Self {
        Self(self.0.wrapping_add(!old as u64).wrapping_add(new as u64))
    }

    /// Folded to 32 bits: what `bpf_l4_csum_replace` takes as `to` with `from` 0.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// Both differences.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// `checksum` after the change (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = (!u16::from_ne_bytes(checksum)) as u32;
        (!fold(sum + fold(self.sum()) as u32)).to_ne_bytes()
    }
}

/// Folds a sum of up to 65,536 words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum of `bytes` as 16-bit words, an odd last byte padded with zero; not complemented.
/// For natively built headers and tests; at most 128 KiB.
pub fn sum(bytes: &[u8]) -> u32 {
    let mut chunks = bytes.chunks_exact(2);
    let mut total = 0u32;
    for chunk in &mut chunks {
        if let [a, b] = *chunk {
            total = total.wrapping_add(u32::from(u16::from_ne_bytes([a, b])));
        }
    }
    if let [last] = *chunks.remainder() {
        total = total.wrapping_add(u32::from(u16::from_ne_bytes([last, 0])));
    }
    total
}

/// The checksum of `bytes`, in the byte order of the wire.
pub fn of(bytes: &[u8]) -> [u8; 2] {
    (!fold(sum(bytes))).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn sum_is_that_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!((!fold(sum(&bytes))).to_ne_bytes(), (!0xddf2u16).to_be_bytes());
    }

    #[test]
    fn replacing_words_equals_a_full_recomputation() {
        let mut packet =
            [0x45u8, 0, 0, 60, 1, 2, 0x40, 0, 64, 6, 10, 0, 0, 1, 192, 168, 0xff, 0xff];
        let before = of(&packet);
        let delta = Delta::NONE
            .quad(u32::from_ne_bytes([10, 0, 0, 1]), u32::from_ne_bytes([172, 31, 255, 254]))
            .word([64, 6], [63, 6]);
        packet[8] = 63;
        packet[10..14].copy_from_slice(&[172, 31, 255, 254]);
        assert_eq!(delta.apply(before), of(&packet));
    }
}
