//! Packets that are rewritten equal packets that a library builds with the new addresses: every
//! byte, every checksum.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Packet, cases, dest, key, put, run, sim};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::addr::{V4, V6, words};
use rvs_core::flow::{Flow, Ip};
use rvs_core::nat;
use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Frame, Outcome};

/// A client, a virtual service and a real server of one family.
type Trio = (SocketAddr, SocketAddr, SocketAddr);

fn address(v6: bool) -> impl Strategy<Value = SocketAddr> {
    // Nothing opens from port 20.
    (any::<[u8; 16]>(), 21u16..).prop_map(move |(octets, port)| {
        let [a, b, c, d, ..] = octets;
        let addr: IpAddr = if v6 { octets.into() } else { [a, b, c, d].into() };
        SocketAddr::new(addr, port)
    })
}

fn trio() -> impl Strategy<Value = Trio> {
    any::<bool>().prop_flat_map(|v6| (address(v6), address(v6), address(v6)))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp])
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

/// Rewrites a frame's destination, or its source.
fn rewrite<A: Ip>(frame: &mut Frame, reply: bool, to: SocketAddr) {
    let flow: Flow<A> = A::parse(frame).expect("a whole packet");
    let addr = A::from_words(words(to.ip()));
    nat::rewrite(frame, &flow, reply, addr, to.port().to_be()).expect("headers in reach");
}

fn translate(frame: &mut Frame, reply: bool, to: SocketAddr) {
    match to {
        SocketAddr::V4(_) => rewrite::<V4>(frame, reply, to),
        SocketAddr::V6(_) => rewrite::<V6>(frame, reply, to),
    }
}

/// The frame with no UDP checksum.
fn without_checksum(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.build();
    bytes[14 + 20 + 6..14 + 20 + 8].fill(0);
    bytes
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn there_and_back_only_the_ttl_differs(
        (client, vip, server) in trio(), protocol in protocol(), reply: bool, ttl in 3u8..,
        payload in payload(),
    ) {
        let mut packet = Packet { ttl, payload, ..Packet::new(protocol, client, vip, common::ACK) };
        let mut frame = Frame::new(&packet.build());
        let original = if reply { client } else { vip };
        translate(&mut frame, reply, server);
        *(if reply { &mut packet.src } else { &mut packet.dst }) = server;
        packet.ttl -= 1;
        prop_assert_eq!(frame.bytes(), packet.build());
        translate(&mut frame, reply, original);
        *(if reply { &mut packet.src } else { &mut packet.dst }) = original;
        packet.ttl -= 1;
        prop_assert_eq!(frame.bytes(), packet.build());
    }

    #[test]
    fn a_missing_udp_checksum_stays_missing(
        client in address(false), vip in address(false), server in address(false), reply: bool,
        payload in payload(),
    ) {
        let mut packet = Packet { payload, ..Packet::new(Protocol::Udp, client, vip, 0) };
        let mut frame = Frame::new(&without_checksum(&packet));
        translate(&mut frame, reply, server);
        *(if reply { &mut packet.src } else { &mut packet.dst }) = server;
        packet.ttl -= 1;
        prop_assert_eq!(frame.bytes(), without_checksum(&packet));
    }

    #[test]
    fn a_masqueraded_exchange_is_what_both_sides_expect(
        (client, vip, server) in trio(), protocol in protocol(), request in payload(),
        answer in payload(),
    ) {
        prop_assume!(client != server && client != vip && server != vip);
        let mut sim = sim(4);
        let target = dest(server, ForwardMethod::Masquerade, 1);
        put(&mut sim, key(protocol, vip), Scheduler::Rr, ServiceFlags::empty(), &[target]);
        let to_vip =
            Packet { payload: request, ..Packet::new(protocol, client, vip, common::SYN) };
        let expected = Packet { dst: server, ttl: 63, ..to_vip.clone() };
        prop_assert_eq!(run(&sim, &to_vip), (Outcome::Sent, expected.build()));
        let to_client =
            Packet { payload: answer, ..Packet::new(protocol, server, client, common::ACK) };
        let expected = Packet { src: vip, ttl: 63, ..to_client.clone() };
        prop_assert_eq!(run(&sim, &to_client), (Outcome::Sent, expected.build()));
    }

    #[test]
    fn a_tunnel_wraps_the_packet_as_it_was(
        (client, vip, _) in trio(), server in any::<bool>().prop_flat_map(address),
        protocol in protocol(), payload in payload(), ttl: u8,
    ) {
        let mut sim = sim(4);
        let target = dest(server, ForwardMethod::Tunnel, 1);
        put(&mut sim, key(protocol, vip), Scheduler::Rr, ServiceFlags::empty(), &[target]);
        let packet = Packet { ttl, payload, ..Packet::new(protocol, client, vip, common::SYN) };
        let (outcome, frame) = run(&sim, &packet);
        if ttl <= 1 {
            prop_assert_eq!(outcome, Outcome::Drop(Reason::TtlExceeded));
            prop_assert_eq!(frame, packet.build());
            return Ok(());
        }
        prop_assert_eq!(outcome, Outcome::Sent);
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).expect("a whole packet");
        let (inner, to) = match sliced.net.as_ref().expect("an outer header") {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                (ip.payload().payload, IpAddr::from(header.destination))
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let (header, inner) = (ip.header(), ip.payload().payload);
                prop_assert_eq!(usize::from(header.payload_length()), inner.len());
                (inner, IpAddr::from(header.destination_addr()))
            }
            other => panic!("not IP: {other:?}"),
        };
        prop_assert_eq!(to, server.ip());
        let expected = Packet { ttl: ttl - 1, ..packet };
        prop_assert_eq!(inner, &expected.build()[14..]);
    }
}
