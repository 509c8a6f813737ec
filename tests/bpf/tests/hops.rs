//! The way out is remembered for a tick (134 ms): no longer, and not for packets that it cannot take.

use std::time::{Duration, Instant};

use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, SYN, build};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, ip, service};

/// Two ticks, and time for a busy machine to run the programs.
const SOON: Duration = Duration::from_secs(2);

fn packet(v6: bool, flags: rvs_tests_bpf::frame::Flags, payload: &[u8]) -> Vec<u8> {
    let (src, dst) =
        if v6 { ("[fd01::2]:4000", "[fd09::1]:80") } else { ("10.0.0.2:4000", "10.9.0.1:80") };
    let (src, dst) = (src.parse().expect("a literal"), dst.parse().expect("a literal"));
    build(Protocol::Tcp, src, dst, flags, payload)
}

fn opened(hook: Hook, v6: bool) -> Bench {
    let mut bench = Bench::new();
    let (vip, server) = if v6 { ("fd09::1", "fd01::11") } else { ("10.9.0.1", "10.0.0.11") };
    let dests = [dest(server, 80, ForwardMethod::DirectRoute, 1)];
    bench.service(service(Protocol::Tcp, vip, 80), Scheduler::Rr, &dests);
    let outcome = bench.run(hook, &packet(v6, SYN, b""));
    assert_eq!(outcome.verdict, Verdict::Sent, "{hook:?}");
    bench
}

/// The MAC address that the next packet goes to.
fn neighbour(bench: &mut Bench, hook: Hook, v6: bool) -> [u8; 6] {
    let outcome = bench.run(hook, &packet(v6, ACK, b""));
    assert_eq!(outcome.verdict, Verdict::Sent, "{hook:?}");
    outcome.frame[..6].try_into().expect("six bytes")
}

#[test]
fn a_neighbour_that_changed_is_used_within_a_tick() {
    in_namespace("a_neighbour_that_changed_is_used_within_a_tick", || {
        for (v6, server) in [(false, "10.0.0.11"), (true, "fd01::11")] {
            for (hook, last) in [(Hook::Xdp, 7u8), (Hook::Tc, 8)] {
                let mut bench = opened(hook, v6);
                let new = [2, 0, 0, 0, 0, last];
                assert_ne!(neighbour(&mut bench, hook, v6), new);
                ip(&format!(
                    "neigh replace {server} lladdr 02:00:00:00:00:0{last} nud permanent dev eth0"
                ));
                let changed = Instant::now();
                while neighbour(&mut bench, hook, v6) != new {
                    assert!(changed.elapsed() < SOON, "{hook:?} {server}: the old neighbour");
                }
            }
        }
    });
}

#[test]
fn a_route_that_went_is_missed_within_a_tick() {
    in_namespace("a_route_that_went_is_missed_within_a_tick", || {
        for hook in [Hook::Xdp, Hook::Tc] {
            let mut bench = opened(hook, false);
            ip("route add unreachable 10.0.0.11");
            let changed = Instant::now();
            while bench.run(hook, &packet(false, ACK, b"")).verdict == Verdict::Sent {
                assert!(changed.elapsed() < SOON, "{hook:?}: the old route");
            }
            ip("route del unreachable 10.0.0.11");
            let changed = Instant::now();
            while bench.run(hook, &packet(false, ACK, b"")).verdict != Verdict::Sent {
                assert!(changed.elapsed() < SOON, "{hook:?}: a refusal is not remembered");
            }
        }
    });
}

#[test]
fn a_packet_too_big_for_a_remembered_way_is_not_sent() {
    in_namespace("a_packet_too_big_for_a_remembered_way_is_not_sent", || {
        for hook in [Hook::Xdp, Hook::Tc] {
            for v6 in [false, true] {
                let mut bench = opened(hook, v6);
                neighbour(&mut bench, hook, v6);
                let outcome = bench.run(hook, &packet(v6, ACK, &[0; 1500]));
                // XDP leaves it to TC, which answers with an ICMP error: back to the client.
                if hook == Hook::Xdp {
                    assert_eq!(outcome.verdict, Verdict::Pass);
                } else {
                    assert_eq!(outcome.frame[if v6 { 20 } else { 23 }], if v6 { 58 } else { 1 });
                }
            }
        }
    });
}
