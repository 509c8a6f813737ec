//! Fragments with IPv4 options or behind IPv6 extension headers: balanced, in any order, where the host
//! would go on with those headers; else left to the host, with their own reason.

use std::net::IpAddr;

use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_XDP, Interface};
use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::{
    Bench, DIRECTOR, ETH0, Hook, NEIGHBOUR, Verdict, dest, in_namespace, next_tick, service,
};
use rvs_wire::checksum;

const CLIENT: [&str; 2] = ["10.0.0.2", "fd01::2"];
const VIP: [&str; 2] = ["10.9.1.1", "fd09::1"];
const SERVER: [&str; 2] = ["10.0.0.11", "fd01::b"];
/// Bytes of a datagram's first piece.
const FIRST: usize = 48;
const UDP: u8 = 17;

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// One's complement sum of a UDP datagram and its pseudo header, complemented.
fn sum(src: IpAddr, dst: IpAddr, data: &[u8]) -> [u8; 2] {
    let len = (data.len() as u32).to_be_bytes();
    checksum::of(&[&octets(src), &octets(dst), &len[..], &[0, 0, 0, UDP], data].concat())
}

/// A UDP datagram of 200 bytes to port 80.
fn datagram(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut data = vec![15, 160, 0, 80, 0, 200, 0, 0];
    data.extend((8..200).map(|at| at as u8));
    let sum = sum(src, dst, &data);
    data[6..8].copy_from_slice(&sum);
    data
}

/// What lies between the IP header and a fragment's place: IPv4 options, or extension headers and the
/// number of the first.
type Between<'a> = (u8, &'a [u8]);

/// A frame with the bytes of a datagram from `at` on.
fn piece(client: IpAddr, vip: IpAddr, (kind, between): Between, id: u8, at: usize) -> Vec<u8> {
    let whole = datagram(client, vip);
    let (data, more) = if at == 0 { (&whole[..FIRST], 1) } else { (&whole[at..], 0) };
    let mut frame = [&DIRECTOR[..], &NEIGHBOUR].concat();
    if client.is_ipv4() {
        let len = (20 + between.len() + data.len()) as u16;
        frame.extend([8, 0, 0x45 + between.len() as u8 / 4, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([0, id, more << 5, at as u8 / 8, 64, UDP, 0, 0]);
        frame.extend([octets(client), octets(vip), between.to_vec()].concat());
        let sum = checksum::of(&frame[14..]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        let len = (8 + between.len() + data.len()) as u16;
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([kind, 64]);
        frame.extend([octets(client), octets(vip), between.to_vec()].concat());
        frame.extend([UDP, 0, 0, at as u8 | more, 0, 0, 0, id]);
    }
    frame.extend(data);
    frame
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    for (vip, server) in VIP.into_iter().zip(SERVER) {
        let dest = dest(server, 80, ForwardMethod::Masquerade, 1);
        bench.service(service(Protocol::Udp, vip, 80), Scheduler::Rr, &[dest]);
    }
    // The slow path is open, as with a running rvsd.
    let maps = bench.datapath.maps();
    maps.slow[0].ifindex.set(ETH0);
    maps.slow[0].until.set(rvs_datapath::env::now().after(100_000).0);
    let flags = INTERFACE_KNOWN | INTERFACE_XDP;
    maps.interfaces[ETH0 as usize].set(Interface { mac: DIRECTOR, flags });
    next_tick();
    bench
}

/// Runs a fragment that must leave for the server: what it carries.
fn sent(bench: &mut Bench, frame: &[u8], headers: usize, server: IpAddr) -> Vec<u8> {
    let outcome = bench.run(Hook::Tc, frame);
    assert_eq!(
        outcome.verdict,
        Verdict::Sent,
        "{frame:02x?} {:?}",
        bench.datapath.maps().reasons()
    );
    let (got, to) = (outcome.frame, octets(server));
    let (at, ttl) = if server.is_ipv4() { (30, 22) } else { (38, 21) };
    assert_eq!((&got[at..at + to.len()], got[ttl]), (&to[..], 63));
    if server.is_ipv4() {
        assert_eq!(checksum::of(&got[14..headers]), [0, 0], "the IPv4 checksum");
    }
    assert_eq!(got[at + to.len()..headers], frame[at + to.len()..headers], "what lies between");
    got[headers..].to_vec()
}

/// Headers that the host goes on with: a record of the route, a time stamp, no operation; hop-by-hop
/// and destination options, a routing header without segments left.
const FINE: [&[Between]; 2] = [
    &[
        (0, &[1, 1, 1, 0]),
        (0, &[7, 7, 4, 0, 0, 0, 0, 0]),
        (0, &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
    &[
        (0, &[44, 0, 1, 4, 0, 0, 0, 0]),
        (60, &[44, 0, 1, 4, 0, 0, 0, 0]),
        (0, &[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0]),
    ],
];

/// Headers that are the host's: source routes, a malformed option; an option to be reported.
const HOSTS: [&[Between]; 2] = [
    &[(0, &[131, 7, 4, 10, 0, 0, 1, 0]), (0, &[7, 200, 4, 0])],
    &[(0, &[44, 0, 0x80, 4, 0, 0, 0, 0])],
];

#[test]
fn fragments_with_options_and_extension_headers_are_balanced_in_any_order() {
    in_namespace("fragments_with_options_and_extension_headers_are_balanced_in_any_order", || {
        let (mut bench, mut id, mut held) = (bench(), 0, 0);
        for (family, kinds) in FINE.into_iter().enumerate() {
            let [client, vip, server] = [CLIENT, VIP, SERVER].map(|addrs| addr(addrs[family]));
            for between in kinds.iter().copied() {
                let headers = if family == 0 { 34 } else { 62 } + between.1.len();
                id += 1;
                let [first, rest] = [0, FIRST].map(|at| piece(client, vip, between, id, at));
                // Before its first it goes to rvsd.
                let outcome = bench.run(Hook::Tc, &rest);
                held += 1;
                assert_eq!(outcome.verdict, Verdict::Sent, "{between:02x?}");
                assert_eq!(bench.reason(Reason::SlowFragment), held, "{between:02x?}");
                assert_eq!(outcome.frame[6..], rest[6..], "held as it came");
                let mut data = sent(&mut bench, &first, headers, server);
                data.extend(sent(&mut bench, &rest, headers, server));
                assert_eq!(sum(client, server, &data), [0, 0], "{between:02x?}");
                assert_eq!(data[8..], datagram(client, vip)[8..]);
            }
        }
        assert_eq!(bench.reason(Reason::FragmentSent), held);
        assert_eq!(bench.datapath.forwarded(), (held, 0));
    });
}

#[test]
fn xdp_leaves_all_of_them_to_tc() {
    in_namespace("xdp_leaves_all_of_them_to_tc", || {
        let mut bench = bench();
        for (family, kinds) in FINE.into_iter().enumerate() {
            let [client, vip] = [CLIENT, VIP].map(|addrs| addr(addrs[family]));
            for (between, at) in kinds.iter().flat_map(|between| [(*between, 0), (*between, FIRST)])
            {
                let frame = piece(client, vip, between, 1, at);
                let outcome = bench.run(Hook::Xdp, &frame);
                assert_eq!((outcome.verdict, outcome.frame), (Verdict::Pass, frame));
            }
        }
    });
}

#[test]
fn fragments_with_headers_for_the_host_reach_it_untouched() {
    in_namespace("fragments_with_headers_for_the_host_reach_it_untouched", || {
        let (mut bench, mut passed) = (bench(), 0);
        for (family, kinds) in HOSTS.into_iter().enumerate() {
            let [client, vip] = [CLIENT, VIP].map(|addrs| addr(addrs[family]));
            for (between, at) in kinds.iter().flat_map(|between| [(*between, 0), (*between, FIRST)])
            {
                let frame = piece(client, vip, between, 1, at);
                let outcome = bench.run(Hook::Tc, &frame);
                assert_eq!((outcome.verdict, outcome.frame), (Verdict::Pass, frame));
                passed += 1;
                assert_eq!(bench.reason(Reason::ExtensionHeader), passed, "{between:02x?}");
            }
        }
    });
}

#[test]
fn a_chain_that_ends_nowhere_behind_a_fragment_header_is_left_to_the_host() {
    in_namespace("a_chain_that_ends_nowhere_behind_a_fragment_header_is_left_to_the_host", || {
        let mut bench = bench();
        // Destination options by their number, as long as the port of what is none says.
        for (at, counted) in [(0, 1), (FIRST, 2)] {
            let mut frame = piece(addr(CLIENT[1]), addr(VIP[1]), (44, &[]), 1, at);
            frame[54] = 60;
            assert_eq!(bench.run(Hook::Tc, &frame).verdict, Verdict::Pass);
            assert_eq!(bench.reason(Reason::Fragment), counted);
        }
    });
}
