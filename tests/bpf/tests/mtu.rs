//! The MTU of the route to a destination: what fits is forwarded, what does not is answered with
//! the MTU less the tunnel's header (`tests/oracle/recorded/mtu_route.jsonl`, `mtu.jsonl`).

use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, Flags, SYN, build};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, service};

/// The route's MTU.
const MTU: usize = 1400;

/// Client, virtual address, and the real server of either family.
const CASES: [[&str; 3]; 4] = [
    ["10.0.0.2", "10.0.0.9", "10.1.0.11"],
    ["10.0.0.2", "10.0.0.9", "fd01::11"],
    ["fd01::2", "fd01::9", "fd01::11"],
    ["fd01::2", "fd01::9", "10.1.0.11"],
];

/// A packet of `len` bytes from its IP header on.
fn packet(
    protocol: Protocol,
    src: SocketAddr,
    dst: SocketAddr,
    flags: Flags,
    len: usize,
) -> Vec<u8> {
    let ip = if src.is_ipv4() { 20 } else { 40 };
    let transport = if protocol == Protocol::Tcp { 20 } else { 8 };
    let frame = build(protocol, src, dst, flags, &vec![0x5a; len - ip - transport]);
    assert_eq!(frame.len(), 14 + len);
    assert!(src.is_ipv6() || frame[20] == 0x40, "do not fragment");
    frame
}

/// The MTU that an ICMP error says, if the frame is one that is about a packet's size.
fn announced(frame: &[u8]) -> Option<usize> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    match (frame[14] >> 4, frame[23], frame[20]) {
        (4, 1, _) if frame[34..36] == [3, 4] => Some(number(&frame[38..42])),
        (6, _, 58) if frame[54..56] == [2, 0] => Some(number(&frame[58..62])),
        _ => None,
    }
}

/// One case, with a service of its own at `port`.
fn the_route_s_mtu_holds(
    bench: &mut Bench,
    hook: Hook,
    port: u16,
    (protocol, method): (Protocol, ForwardMethod),
    case: [&str; 3],
) {
    let [client, vip, server] = case;
    let label = format!("{hook:?} {protocol:?} {method:?} {case:?}");
    let key = service(protocol, vip, port);
    bench.service(key, Scheduler::Rr, &[dest(server, port, method, 1)]);
    let (index, _) = bench.datapath.destinations().last().expect("the one that was just added");
    let at = |addr: &str, port: u16| SocketAddr::new(addr.parse().expect("an address"), port);
    let (client, vip) = (at(client, 40_000), at(vip, port));
    let header = match method {
        ForwardMethod::Tunnel if server.contains(':') => 40,
        ForwardMethod::Tunnel => 20,
        _ => 0,
    };
    let open = packet(protocol, client, vip, SYN, 100);
    assert_eq!(bench.run(hook, &open).verdict, Verdict::Sent, "{label}");

    let fits = packet(protocol, client, vip, ACK, MTU - header);
    let too_big = packet(protocol, client, vip, ACK, MTU - header + 1);
    // Without an MTU of its own, the device's holds.
    assert_eq!(bench.run(hook, &too_big).verdict, Verdict::Sent, "{label}");
    bench.datapath.set_mtu(index, Some(MTU as u32));
    let sent = bench.run(hook, &fits);
    assert_eq!((sent.verdict, announced(&sent.frame)), (Verdict::Sent, None), "{label}");
    let before = bench.datapath.service_stats(&key);
    let reasons = [Reason::PuntIcmp, Reason::TooBig, Reason::IcmpSent];
    let counted = |bench: &Bench| reasons.map(|reason| bench.reason(reason));
    let [punted, refused, answered] = counted(bench);
    let answer = bench.run(hook, &too_big);
    match hook {
        // TC of the same interface answers; nothing was changed or counted but that.
        Hook::Xdp => {
            assert_eq!(answer.verdict, Verdict::Pass, "{label}");
            assert!(answer.frame == too_big, "{label}: the frame was changed");
            assert_eq!(counted(bench), [punted + 1, refused, answered], "{label}");
        }
        Hook::Tc => {
            assert_eq!(answer.verdict, Verdict::Sent, "{label}");
            assert_eq!(announced(&answer.frame), Some(MTU - header), "{label}");
            assert_eq!(counted(bench), [punted, refused + 1, answered + 1], "{label}");
        }
    }
    assert_eq!(bench.datapath.service_stats(&key), before, "{label}");
    bench.datapath.set_mtu(index, None);
    let whole = packet(protocol, client, vip, ACK, MTU - header + 1);
    assert_eq!(bench.run(hook, &whole).verdict, Verdict::Sent, "{label}");
}

#[test]
fn packets_too_big_for_the_route_are_answered_with_its_mtu() {
    in_namespace("packets_too_big_for_the_route_are_answered_with_its_mtu", || {
        use ForwardMethod::{DirectRoute, Masquerade, Tunnel};
        for hook in [Hook::Xdp, Hook::Tc] {
            let mut bench = Bench::new();
            let mut ports = 80..;
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for case in CASES {
                    let same_family = case[1].contains(':') == case[2].contains(':');
                    let methods = [Tunnel, Masquerade, DirectRoute];
                    for method in methods.into_iter().take(if same_family { 3 } else { 1 }) {
                        let port = ports.next().expect("one of 65536");
                        let kind = (protocol, method);
                        the_route_s_mtu_holds(&mut bench, hook, port, kind, case);
                    }
                }
            }
            assert_eq!(ports.start, 80 + 16, "cases");
        }
    });
}
