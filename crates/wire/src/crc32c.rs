//! CRC32c, SCTP's checksum (RFC 9260, appendix A), and its incremental update: the CRC is linear, so
//! what changed is taken alone and moved to its place by a multiplication modulo the polynomial. The
//! data behind it is not read.

/// The polynomial, with the coefficient of the highest power in the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// `x · value`, without a branch.
const fn times_x(value: u32) -> u32 {
    (value >> 1) ^ (POLYNOMIAL & (value & 1).wrapping_neg())
}

/// Product of two polynomials.
#[inline(always)]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & (a >> (31 - bit) & 1).wrapping_neg();
        b = times_x(b);
        bit += 1;
    }
    product
}

/// `x` to the power of `8 · digit · 16^place`: by how many bytes something moves.
static POWERS: [[u32; 16]; 4] = powers();

const fn powers() -> [[u32; 16]; 4] {
    let mut table = [[ONE; 16]; 4];
    let mut step = ONE >> 8;
    let mut place = 0;
    while place < 4 {
        let mut digit = 1;
        while digit < 16 {
            table[place][digit] = multiply(table[place][digit - 1], step);
            digit += 1;
        }
        step = multiply(table[place][15], step);
        place += 1;
    }
    table
}

/// The checksum `crc` of a packet of `len` bytes (less than 64 KiB) after its first four bytes
/// changed from `old` to `new`. All three as they lie in the packet.
///
/// A wrong checksum stays as wrong as it was.
#[inline(always)]
pub fn replace_first(crc: [u8; 4], len: u32, old: [u8; 4], new: [u8; 4]) -> [u8; 4] {
    let mut delta = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    let mut rest = len;
    for row in &POWERS {
        let digit = (rest & 15) as usize;
        if digit != 0
            && let Some(power) = row.get(digit)
        {
            delta = multiply(delta, *power);
        }
        rest >>= 4;
    }
    (u32::from_le_bytes(crc) ^ delta).to_le_bytes()
}

/// The checksum of a packet that is its header alone: ports, tag, and a checksum of zero. All as they lie
/// in the packet.
#[inline(always)]
pub fn of_header(ports: [u8; 4], tag: [u8; 4]) -> [u8; 4] {
    let four_bytes = POWERS[0][4];
    let state = multiply(!u32::from_le_bytes(ports), four_bytes) ^ u32::from_le_bytes(tag);
    let state = multiply(multiply(state, four_bytes), four_bytes);
    (!state).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as RFC 9260 defines it.
    fn crc(bytes: &[u8]) -> [u8; 4] {
        let mut state = !0u32;
        for byte in bytes {
            state ^= u32::from(*byte);
            for _ in 0..8 {
                state = times_x(state);
            }
        }
        (!state).to_le_bytes()
    }

    /// RFC 3720, appendix B.4, and the check value of the CRC catalogues.
    #[test]
    fn polynomial_is_castagnoli_s() {
        assert_eq!(crc(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc(b"123456789"), 0xe306_9283u32.to_le_bytes());
    }

    #[test]
    fn a_header_alone_has_the_checksum_of_its_bytes() {
        for (ports, tag) in [([0; 4], [0; 4]), ([0x1f, 0x90, 0, 80], [1, 0xff, 0x80, 7])] {
            let packet = [ports, tag, [0; 4]].concat();
            assert_eq!(of_header(ports, tag), crc(&packet));
        }
    }

    #[test]
    fn replacing_the_first_bytes_equals_a_full_recomputation_at_every_length() {
        let mut data = [0u8; 0x1_0000];
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = (index * 7 + (index >> 8)) as u8;
        }
        for len in (4..600).chain([4095, 4096, 4097, 9000, 0x7fff, 0xf0f0, 0xffff]) {
            let mut packet = data;
            let old = [packet[0], packet[1], packet[2], packet[3]];
            let before = crc(&packet[..len]);
            let new = [0xff, 0x10, len as u8, 0x90];
            packet[..4].copy_from_slice(&new);
            assert_eq!(replace_first(before, len as u32, old, new), crc(&packet[..len]), "{len}");
        }
    }
}
