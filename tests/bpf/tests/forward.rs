//! Packet in, packet out, verdict and counters: every forwarding method, both address families,
//! both protocols, both hooks. Checksums are verified by a library that is not ours.

use std::net::SocketAddr;

use rvs_core::control::{Datapath, DestStatus, Stats};
use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_datapath::sweeper::Sweeper;
use rvs_tests_bpf::frame::{ACK, Read, SYN, build, read, read_ip};
use rvs_tests_bpf::{Bench, DIRECTOR, Hook, NEIGHBOUR, Verdict, dest, in_namespace, service};

const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Client, service address, real server, by family.
const V4: [&str; 3] = ["10.0.0.2", "10.0.0.9", "10.1.0.11"];
const V6: [&str; 3] = ["fd01::2", "fd01::9", "fd01::11"];

fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn each(mut body: impl FnMut(Hook, Protocol, [&'static str; 3])) {
    for hook in HOOKS {
        for protocol in PROTOCOLS {
            for addrs in [V4, V6] {
                body(hook, protocol, addrs);
            }
        }
    }
}

fn status(bench: &Bench, protocol: Protocol, vip: &str, server: &str, port: u16) -> DestStatus {
    let key = dest(server, port, ForwardMethod::Masquerade, 1).key;
    bench.datapath.dest_status(&service(protocol, vip, 80), &key)
}

#[test]
fn masquerading_rewrites_requests_and_replies() {
    in_namespace("masquerading_rewrites_requests_and_replies", || {
        each(|hook, protocol, [client, vip, server]| {
            let mut bench = Bench::new();
            let target = dest(server, 8080, ForwardMethod::Masquerade, 1);
            bench.service(service(protocol, vip, 80), Scheduler::Rr, &[target]);
            let (client, vip_at) = (socket(client, 40_000), socket(vip, 80));
            let server_at = socket(server, 8080);

            let request = build(protocol, client, vip_at, SYN, b"hello");
            let sent = bench.run(hook, &request);
            assert_eq!(sent.verdict, Verdict::Sent, "{hook:?} {protocol:?} {vip}");
            let expected =
                Read { src: client, dst: server_at, ttl: 63, payload: b"hello".to_vec() };
            assert_eq!(read(&sent.frame), expected);
            assert_eq!((&sent.frame[..6], &sent.frame[6..12]), (&NEIGHBOUR[..], &DIRECTOR[..]));

            let reply = build(protocol, server_at, client, ACK, b"hi");
            let sent = bench.run(hook, &reply);
            assert_eq!(sent.verdict, Verdict::Sent, "{hook:?} {protocol:?} reply to {vip}");
            let expected = Read { src: vip_at, dst: client, ttl: 63, payload: b"hi".to_vec() };
            assert_eq!(read(&sent.frame), expected);

            let status = status(&bench, protocol, vip, server, 8080);
            let bytes = |frame: &[u8]| frame.len() as u64 - 14;
            let stats = Stats {
                conns: 1,
                in_pkts: 1,
                out_pkts: 1,
                in_bytes: bytes(&request),
                out_bytes: bytes(&reply),
            };
            assert_eq!(status.stats, stats);
            let tcp = protocol == Protocol::Tcp;
            let counts = (status.active_conns, status.inactive_conns);
            assert_eq!(counts, if tcp { (1, 0) } else { (0, 1) });
            assert_eq!(bench.datapath.service_stats(&service(protocol, vip, 80)), stats);
        });
    });
}

#[test]
fn direct_routing_changes_the_macs_and_the_ttl() {
    in_namespace("direct_routing_changes_the_macs_and_the_ttl", || {
        each(|hook, protocol, [client, vip, server]| {
            let mut bench = Bench::new();
            let target = dest(server, 80, ForwardMethod::DirectRoute, 1);
            bench.service(service(protocol, vip, 80), Scheduler::Wlc, &[target]);
            let request = build(protocol, socket(client, 40_000), socket(vip, 80), SYN, b"x");
            let sent = bench.run(hook, &request);
            assert_eq!(sent.verdict, Verdict::Sent, "{hook:?} {protocol:?} {vip}");
            assert_eq!((&sent.frame[..6], &sent.frame[6..12]), (&NEIGHBOUR[..], &DIRECTOR[..]));
            let mut expected = read(&request);
            expected.ttl -= 1;
            assert_eq!(read(&sent.frame), expected);
            let l4 = if request[14] >> 4 == 4 { 34 } else { 54 };
            assert_eq!(sent.frame[l4..], request[l4..]);
        });
    });
}

#[test]
fn tunneling_wraps_either_family_in_either() {
    in_namespace("tunneling_wraps_either_family_in_either", || {
        each(|hook, protocol, [client, vip, _]| {
            for (server, header) in [("10.1.0.11", 20), ("fd01::11", 40)] {
                let mut bench = Bench::new();
                let target = dest(server, 80, ForwardMethod::Tunnel, 1);
                bench.service(service(protocol, vip, 80), Scheduler::Rr, &[target]);
                let (client, vip) = (socket(client, 40_000), socket(vip, 80));
                let sent = bench.run(hook, &build(protocol, client, vip, SYN, b"inner"));
                assert_eq!(sent.verdict, Verdict::Sent, "{hook:?} {protocol:?} {vip} {server}");
                let outer = etherparse::SlicedPacket::from_ethernet(&sent.frame[..14 + header]);
                assert!(outer.is_ok() || header == 20 || header == 40);
                let (version, next) = match header {
                    20 => (4, sent.frame[14 + 9]),
                    _ => (6, sent.frame[14 + 6]),
                };
                assert_eq!(sent.frame[14] >> 4, version);
                assert_eq!(next, if vip.is_ipv4() { 4 } else { 41 });
                if header == 20 {
                    let sum = sent.frame[14..34]
                        .chunks(2)
                        .fold(0u32, |sum, w| sum + u32::from(u16::from_be_bytes([w[0], w[1]])));
                    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "outer checksum");
                    assert_eq!(sent.frame[26..34], [10, 0, 0, 1, 10, 1, 0, 11]);
                }
                let inner = read_ip(&sent.frame[14 + header..]);
                let expected = Read { src: client, dst: vip, ttl: 63, payload: b"inner".to_vec() };
                assert_eq!(inner, expected);
            }
        });
    });
}

#[test]
fn what_is_not_ours_passes_untouched_and_counted() {
    in_namespace("what_is_not_ours_passes_untouched_and_counted", || {
        for hook in HOOKS {
            let mut bench = Bench::new();
            let target = dest("10.1.0.11", 80, ForwardMethod::Masquerade, 1);
            bench.service(service(Protocol::Tcp, V4[1], 80), Scheduler::Rr, &[target]);
            let (client, other) = (socket(V4[0], 40_000), socket(V4[1], 22));
            let ssh = build(Protocol::Tcp, client, other, SYN, b"");
            let sent = bench.run(hook, &ssh);
            assert_eq!((sent.verdict, sent.frame), (Verdict::Pass, ssh));
            assert_eq!(bench.reason(Reason::NotOurs), 1);

            let stray = build(Protocol::Tcp, client, socket(V4[1], 80), ACK, b"");
            let sent = bench.run(hook, &stray);
            assert_eq!((sent.verdict, sent.frame), (Verdict::Pass, stray));
            assert_eq!(bench.reason(Reason::NoConnection), 1);

            let mut arp = ssh_like(0x0806);
            arp.resize(60, 0);
            assert_eq!(bench.run(hook, &arp).verdict, Verdict::Pass);
            assert_eq!(bench.reason(Reason::NotIp), 1);
            let counted: u64 = bench.datapath.maps().reasons().iter().map(|(_, n)| n).sum();
            assert_eq!(counted, 3);
        }
    });
}

/// An Ethernet header of this type.
fn ssh_like(ethertype: u16) -> Vec<u8> {
    let mut frame = [DIRECTOR, NEIGHBOUR].concat();
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

#[test]
fn truncated_and_contradicting_headers_are_never_rewritten() {
    in_namespace("truncated_and_contradicting_headers_are_never_rewritten", || {
        for hook in HOOKS {
            let mut bench = Bench::new();
            for (addrs, family) in [(V4, 4), (V6, 6)] {
                let [client, vip, server] = addrs;
                let target = dest(server, 80, ForwardMethod::Masquerade, 1);
                bench.service(service(Protocol::Tcp, vip, 80), Scheduler::Rr, &[target]);
                let whole = build(Protocol::Tcp, socket(client, 40_000), socket(vip, 80), SYN, b"");
                // A test run of an skb wants the IP header to be whole.
                let least = match (hook, family) {
                    (Hook::Xdp, _) => 14,
                    (Hook::Tc, 4) => 34,
                    (Hook::Tc, _) => 54,
                };
                for len in least..whole.len() {
                    let outcome = bench.run(hook, &whole[..len]);
                    assert_eq!(outcome.verdict, Verdict::Pass, "{hook:?} cut to {len}");
                    assert_eq!(outcome.frame, whole[..len], "{hook:?} cut to {len}");
                }
                let mut wrong = whole.clone();
                if family == 4 {
                    wrong[14] = 0x44; // a header of 16 bytes
                } else {
                    wrong[18] = 0xff; // more payload than there is
                }
                let outcome = bench.run(hook, &wrong);
                assert_eq!((outcome.verdict, outcome.frame), (Verdict::Pass, wrong));
            }
            assert_eq!(bench.datapath.service_stats(&service(Protocol::Tcp, V4[1], 80)).conns, 0);
        }
    });
}

#[test]
fn a_fragment_for_nobody_passes() {
    in_namespace("a_fragment_for_nobody_passes", || {
        for hook in HOOKS {
            let mut bench = Bench::new();
            let target = dest(V4[2], 80, ForwardMethod::Masquerade, 1);
            bench.service(service(Protocol::Udp, V4[1], 80), Scheduler::Rr, &[target]);
            let (client, host) = (socket(V4[0], 40_000), socket("10.0.0.77", 80));
            let mut frame = build(Protocol::Udp, client, host, SYN, b"part1234");
            for (place, reason) in [([0x20, 0], Reason::NotOurs), ([0, 2], Reason::Fragment)] {
                frame[20..22].copy_from_slice(&place);
                let outcome = bench.run(hook, &frame);
                assert_eq!(outcome.verdict, Verdict::Pass);
                assert_eq!(outcome.frame, frame);
                // XDP leaves all of them to TC.
                let (reason, count) = match (hook, reason) {
                    (Hook::Xdp, Reason::NotOurs) => (Reason::PuntFragment, 1),
                    (Hook::Xdp, _) => (Reason::PuntFragment, 2),
                    (Hook::Tc, reason) => (reason, 1),
                };
                assert_eq!(bench.reason(reason), count, "{hook:?} {reason:?}");
            }
        }
    });
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_old() {
    in_namespace("a_full_table_refuses_new_connections_and_keeps_the_old", || {
        let mut bench = Bench::new();
        let target = dest(V4[2], 80, ForwardMethod::Masquerade, 1);
        bench.service(service(Protocol::Udp, V4[1], 80), Scheduler::Rr, &[target]);
        let vip = socket(V4[1], 80);
        let packet =
            |port: u16| build(Protocol::Udp, socket(V4[0], port), vip, SYN, b"first packet");
        let mut alive = Vec::new();
        // Nothing opens from port 20.
        for port in 21..60_000u16 {
            match bench.run(Hook::Xdp, &packet(port)).verdict {
                Verdict::Sent => alive.push(port),
                Verdict::Drop => {}
                other => panic!("port {port}: {other:?}"),
            }
        }
        assert!(bench.reason(Reason::TableFull) > 40_000);
        assert!(alive.len() > 6_000, "{} connections in 12,288 entries", alive.len());
        for port in alive.iter().step_by(50) {
            let sent = bench.run(Hook::Xdp, &packet(*port));
            assert_eq!(sent.verdict, Verdict::Sent, "port {port}");
            assert_eq!(read(&sent.frame).dst, socket(V4[2], 80));
        }
        let status = status(&bench, Protocol::Udp, V4[1], V4[2], 80);
        assert_eq!(status.inactive_conns as usize, alive.len());
        // Between two sweeps room is made where somebody found none, and only there.
        let mut sweeper = Sweeper::default();
        let swept = sweeper.step(bench.datapath.maps()).map(|pass| pass.live);
        assert_eq!(sweeper.step(bench.datapath.maps()), None);
        let refused = (21..60_000u16).find(|port| !alive.contains(port)).expect("many were");
        assert_eq!(bench.run(Hook::Xdp, &packet(refused)).verdict, Verdict::Drop);
        let made = sweeper.step(bench.datapath.maps()).map(|pass| pass.live);
        assert_eq!(made, swept);
    });
}
