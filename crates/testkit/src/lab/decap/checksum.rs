//! Checksums that senders leave to a device, and those that tunnels have.

/// Completes a TCP or UDP checksum that is the sum of the pseudo header and nothing else.
pub fn complete(packet: &mut [u8]) {
    let Some((protocol, addresses, start)) = layer4(packet) else { return };
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return,
    };
    let Some(segment) = packet.get(start..) else { return };
    let Some(&[high, low]) = segment.get(offset..offset + 2) else { return };
    let length = u32::try_from(segment.len()).expect("shorter than the buffer");
    let pseudo = sum(&packet[addresses]) + u32::from(protocol) + length;
    if fold(pseudo) != u16::from_be_bytes([high, low]) {
        return;
    }
    // The field is the pseudo header's share of the sum already.
    let checksum = match !fold(sum(segment)) {
        0 => 0xffff,
        other => other,
    };
    packet[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Protocol, range of the addresses and begin of the transport header; none for a fragment and for
/// IPv6 with extension headers, which no sender leaves to a device.
fn layer4(packet: &[u8]) -> Option<(u8, std::ops::Range<usize>, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            let start = usize::from(packet[0] & 0x0f) * 4;
            (fragment == 0 && packet.len() >= 20).then(|| (packet[9], 12..20, start))
        }
        6 => (packet.len() >= 40).then(|| (packet[6], 8..40, 40)),
        _ => None,
    }
}

/// Sum of 16-bit words, the last padded with zero; of at most 128 KiB.
pub fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

/// Folded to 16 bits.
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::complete;

    /// UDP 10.0.0.1:1 -> 10.0.0.2:2 with the bytes "hi", checksum as given.
    fn udp(checksum: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 10]);
        packet.extend(checksum.to_be_bytes());
        packet.extend(b"hi");
        packet
    }

    /// 0a00 + 0001 + 0a00 + 0002 + protocol 17 + length 10.
    const PSEUDO: u16 = 0x141e;

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut packet = udp(PSEUDO);
        complete(&mut packet);
        // 141e + 0001 + 0002 + 000a + 6869 = 7c94
        assert_eq!(packet, udp(!0x7c94));
    }

    #[test]
    fn a_complete_or_wrong_checksum_is_left_alone() {
        for checksum in [!0x7c94, 0x1234, 0] {
            let mut packet = udp(checksum);
            complete(&mut packet);
            assert_eq!(packet, udp(checksum));
        }
    }

    #[test]
    fn a_truncated_packet_is_left_alone() {
        for length in 0..30 {
            let mut packet = udp(PSEUDO);
            packet.truncate(length);
            let before = packet.clone();
            complete(&mut packet);
            assert_eq!(packet, before, "{length} bytes");
        }
    }
}
