//! The frames that are measured: templates of which the wrapper makes one for each flow.

use std::net::{IpAddr, SocketAddr};

use rvs_bench_ebpf::{Control, LEN4, LEN6};
use rvs_core::types::{Family, Protocol};
use rvs_tests_bpf::frame::{Flags, build};
use zerocopy::FromZeros;

/// Which end of a frame is the client, whose address and port tell the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Its source.
    Sends,
    /// Its destination.
    Receives,
}

/// The client's address in flow 0; its last two bytes are the flow's.
const CLIENT: [&str; 2] = ["172.16.0.0", "fd99::"];

/// 0 for IPv4, 1 for IPv6.
pub fn index(family: Family) -> usize {
    usize::from(matches!(family, Family::V6))
}

/// Length of the frames.
pub fn len(family: Family) -> usize {
    [LEN4, LEN6][index(family)]
}

/// The template of TCP frames between a client and `peer`.
pub fn template(peer: SocketAddr, client: Client, flags: Flags) -> Control {
    let family = if peer.is_ipv4() { Family::V4 } else { Family::V6 };
    let ip: IpAddr = CLIENT[index(family)].parse().expect("a literal");
    let flow = SocketAddr::new(ip, 0);
    let (src, dst) = if client == Client::Sends { (flow, peer) } else { (peer, flow) };
    let (l4, src_end, dst_end, free) =
        if peer.is_ipv4() { (34, 30, 34, 18) } else { (54, 38, 54, 16) };
    let payload = vec![0; len(family) - l4 - 20];
    let frame = build(Protocol::Tcp, src, dst, flags, &payload);
    assert_eq!(frame.len(), len(family));
    let mut control = Control::new_zeroed();
    control.frame[..frame.len()].copy_from_slice(&frame);
    let l4 = l4 as u32;
    (control.port, control.addr) =
        if client == Client::Sends { (l4, src_end - 2) } else { (l4 + 2, dst_end - 2) };
    // The urgent pointer, the high half of the acknowledgement, and the IPv4 identification or the
    // IPv6 flow label: zero as built, and nobody looks at them.
    control.port_inverse = l4 + 18;
    control.addr_inverse = l4 + 8;
    control.header_inverse = free;
    control.random = 0x9e37_79b9;
    control
}

/// The key of a flow in the hash that RVS is compared with, as the wrapped program reads it from
/// the frame: addresses, ports, protocol.
pub fn key<const WORDS: usize>(template: &Control, flow: u32) -> [u32; WORDS] {
    let mut frame = template.frame;
    let mut put = |offset: u32, value: u16| {
        frame[offset as usize..][..2].copy_from_slice(&value.to_be_bytes());
    };
    put(template.port, rvs_bench_ebpf::port(flow));
    put(template.addr, rvs_bench_ebpf::addr(flow));
    let start = if WORDS == 4 { 26 } else { 22 };
    let mut key = [6; WORDS];
    for (word, bytes) in key[..WORDS - 1].iter_mut().zip(frame[start..].chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
    }
    key
}
