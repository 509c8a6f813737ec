//! Fragments of SCTP: as those of UDP, but where masquerading changes a port. What the checksum
//! becomes then depends on the length of the whole datagram, which its first fragment does not tell.

use std::net::Ipv4Addr;

use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::{
    Bench, DIRECTOR, Hook, NEIGHBOUR, Verdict, dest, in_namespace, next_tick, service,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
/// Ethernet, IPv4.
const HEADERS: usize = 34;

/// An SCTP packet with one chunk of this type.
fn packet(src_port: u16, dst_port: u16, chunk: u8, len: u16) -> Vec<u8> {
    let mut packet = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 7, 0xde, 0xad, 0xbe, 0xef, chunk, 3]);
    packet.extend((len - 12).to_be_bytes());
    packet.extend((packet.len()..len.into()).map(|at| at as u8));
    packet
}

/// A frame with a piece of a packet.
fn piece(src: Ipv4Addr, dst: Ipv4Addr, id: u8, at: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = [&DIRECTOR[..], &NEIGHBOUR, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + data.len() as u16).to_be_bytes());
    frame.extend([0, id]);
    frame.extend(((at / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
    frame.extend([64, 132, 0, 0]);
    frame.extend([src.octets(), dst.octets()].as_flattened());
    let sum = rvs_wire::checksum::of(&frame[14..]);
    frame[24..26].copy_from_slice(&sum);
    frame.extend(data);
    frame
}

/// The packet's first 48 bytes and the rest.
fn pieces(src: Ipv4Addr, dst: Ipv4Addr, id: u8, packet: &[u8]) -> [Vec<u8>; 2] {
    let (first, rest) = packet.split_at(48);
    [piece(src, dst, id, 0, true, first), piece(src, dst, id, 48, false, rest)]
}

fn opened(method: ForwardMethod, target: u16) -> Bench {
    let bench_service = service(Protocol::Sctp, &VIP.to_string(), 80);
    let mut bench = Bench::new();
    let dest = dest(&SERVER.to_string(), target, method, 1);
    bench.service(bench_service, Scheduler::Rr, &[dest]);
    next_tick();
    bench
}

/// Runs a packet in pieces: what they carry as they leave.
fn run(bench: &mut Bench, frames: &[Vec<u8>], src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let mut data = Vec::new();
    for frame in frames {
        let outcome = bench.run(Hook::Tc, frame);
        assert_eq!(outcome.verdict, Verdict::Sent, "{frame:02x?}");
        let sent = outcome.frame;
        assert_eq!(sent[14..18], frame[14..18]);
        assert_eq!(sent[18..22], frame[18..22], "identification and place");
        assert_eq!(sent[22], 63, "TTL");
        assert_eq!(rvs_wire::checksum::of(&sent[14..HEADERS]), [0, 0], "the IPv4 checksum");
        assert_eq!(sent[26..HEADERS], *[src.octets(), dst.octets()].as_flattened());
        data.extend(&sent[HEADERS..]);
    }
    data
}

#[test]
fn fragments_of_sctp_follow_their_first_both_ways() {
    in_namespace("fragments_of_sctp_follow_their_first_both_ways", || {
        let mut bench = opened(ForwardMethod::Masquerade, 80);
        // INIT opens the association, whether whole or not.
        for (id, chunk) in [(1, 1), (2, 0)] {
            let packet = packet(4000, 80, chunk, 200);
            let frames = pieces(CLIENT, VIP, id, &packet);
            assert_eq!(run(&mut bench, &frames, CLIENT, SERVER), packet);
        }
        let packet = packet(80, 4000, 0, 200);
        let frames = pieces(SERVER, CLIENT, 3, &packet);
        assert_eq!(run(&mut bench, &frames, VIP, CLIENT), packet);
        assert_eq!(bench.reason(Reason::FragmentSent), 3);
        assert_eq!(bench.datapath.forwarded(), (2, 1));
    });
}

#[test]
fn direct_routing_takes_fragments_of_sctp_to_any_port() {
    in_namespace("direct_routing_takes_fragments_of_sctp_to_any_port", || {
        let mut bench = opened(ForwardMethod::DirectRoute, 80);
        let packet = packet(4000, 80, 1, 200);
        let frames = pieces(CLIENT, VIP, 1, &packet);
        assert_eq!(run(&mut bench, &frames, CLIENT, VIP), packet);
    });
}

#[test]
fn a_port_that_masquerading_changes_has_all_fragments_dropped_and_whole_packets_sent() {
    in_namespace(
        "a_port_that_masquerading_changes_has_all_fragments_dropped_and_whole_packets_sent",
        || {
            let mut bench = opened(ForwardMethod::Masquerade, 8080);
            let packet = packet(4000, 80, 1, 200);
            for frame in pieces(CLIENT, VIP, 1, &packet) {
                assert_eq!(bench.run(Hook::Tc, &frame).verdict, Verdict::Drop);
            }
            let counts = [Reason::FragmentSctp, Reason::FragmentDropped].map(|r| bench.reason(r));
            assert_eq!((counts, bench.datapath.forwarded()), ([1, 1], (0, 0)));
            let whole = piece(CLIENT, VIP, 2, 0, false, &packet);
            assert_eq!(bench.run(Hook::Tc, &whole).verdict, Verdict::Sent);
        },
    );
}

#[test]
fn a_first_fragment_without_a_whole_chunk_header_is_not_balanced_alone() {
    in_namespace("a_first_fragment_without_a_whole_chunk_header_is_not_balanced_alone", || {
        let mut bench = opened(ForwardMethod::Masquerade, 80);
        let packet = packet(4000, 80, 1, 200);
        let tiny = piece(CLIENT, VIP, 1, 0, true, &packet[..8]);
        assert_eq!(bench.run(Hook::Tc, &tiny).verdict, Verdict::Drop);
        assert_eq!(bench.reason(Reason::TinyFragment), 1);
    });
}
