//! Every packet is counted once, by what became of it: random frames of all kinds, at both hooks and
//! natively. The seed is printed and part of every failure; `RVS_SEED` plays it again.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_XDP, Interface};
use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_sim::{Frame, Plain, SimDatapath, Sizes};
use rvs_tests_bpf::frame::{ACK, Flags, RST, SYN, build};
use rvs_tests_bpf::{Bench, DIRECTOR, ETH0, Hook, dest, in_namespace, service};

/// Frames at each hook: so many that what is asserted of them at the end is half of what is usual, at most.
const FRAMES: u64 = 6000;

/// Frames that come first: pieces of datagrams, which are few among the random ones.
const PIECES: u64 = 20;

/// The kernel's test runs for TC take no frame without a whole IP header.
const SHORTEST: usize = 14 + 40;

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }
}

const DR: ForwardMethod = ForwardMethod::DirectRoute;
const NAT: ForwardMethod = ForwardMethod::Masquerade;
const TUN: ForwardMethod = ForwardMethod::Tunnel;

/// Puts a service in force: its virtual address and port, and its destinations.
type Put<'a> = dyn FnMut(&str, u16, &[(&str, ForwardMethod)]) + 'a;

/// Services of all methods, one without destinations, one whose destination has no route.
fn services(put: &mut Put) {
    for (vip, one, two) in
        [("10.9.1.1", "10.0.0.11", "10.0.0.12"), ("fd09::1", "fd01::b", "fd01::c")]
    {
        put(vip, 80, &[(one, NAT), (two, NAT)]);
        put(vip, 81, &[(one, DR)]);
        put(vip, 82, &[(two, TUN)]);
        put(vip, 83, &[]);
    }
    put("10.9.1.1", 84, &[("192.0.2.1", DR)]);
}

/// A frame from a client or a real server, often bent.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let protocol = rng.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
    let v6 = rng.pick(&[true, false]);
    let (client, vip, server) =
        if v6 { ("fd01::2", "fd09::1", "fd01::b") } else { ("10.0.0.2", "10.9.1.1", "10.0.0.11") };
    let (port, client_port) = (rng.pick(&[80, 81, 82, 83, 84, 85]), rng.pick(&[4001, 4002, 4003]));
    let at = |addr: &str, port| SocketAddr::new(addr.parse().expect("an address"), port);
    let fin = Flags { fin: true, ..ACK };
    let flags = rng.pick(&[SYN, SYN, SYN, ACK, fin, RST]);
    let payload = vec![7; rng.pick(&[0, 1, 100, 1400])];
    let (src, dst) = match rng.pick(&[false, false, true]) {
        false => (at(client, client_port), at(vip, port)),
        true => (at(server, port), at(client, client_port)),
    };
    let mut frame = build(protocol, src, dst, flags, &payload);
    let ttl = if v6 { 21 } else { 22 };
    // IPv4's identification: some fragments follow their first, others come without one.
    if !v6 {
        frame[19] = rng.pick(&[1, 2]);
    }
    match rng.next() % 12 {
        0 => frame[12..14].copy_from_slice(&rng.pick(&[[8, 6], [0x81, 0], [0x86, 0xdd], [8, 0]])),
        1 => frame.truncate(SHORTEST + (rng.next() % 60) as usize),
        2 => frame[ttl] = rng.pick(&[0, 1]),
        // A fragment, a later one, an ICMP packet, an extension header, whatever the byte makes it.
        3 => frame[20] = rng.pick(&[0x20, 0, 0x40, 44]),
        7 if !v6 => frame[20] = 1,
        4 => frame[if v6 { 20 } else { 23 }] = rng.pick(&[1, 58, 132, 0, 47, 4, 41]),
        5 => frame = error(v6, client, vip, &frame),
        6 => {
            let at = 12 + (rng.next() % (frame.len() as u64 - 12)) as usize;
            frame[at] = rng.next() as u8;
        }
        _ => {}
    }
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// A first fragment of a client's, or the one that follows it.
fn piece(number: u64) -> Vec<u8> {
    let [from, to] = ["10.0.0.2:4001", "10.9.1.1:80"].map(|at| at.parse().expect("an address"));
    let mut frame = build(Protocol::Udp, from, to, SYN, &[7; 64]);
    frame[19] = 3;
    frame[20..22].copy_from_slice(if number % 2 == 1 { &[0x20, 0] } else { &[0, 9] });
    frame
}

/// An ICMP error that quotes a frame's packet; its checksum is of no interest here.
fn error(v6: bool, client: &str, vip: &str, quoted: &[u8]) -> Vec<u8> {
    let at = |addr: &str| SocketAddr::new(addr.parse().expect("an address"), 0);
    let mut frame = build(Protocol::Udp, at(client), at(vip), SYN, &quoted[14..]);
    let (place, number, l4, kind) = if v6 { (20, 58, 54, 1) } else { (23, 1, 34, 3) };
    frame[place] = number;
    frame[l4] = kind;
    frame
}

fn seed(which: &str) -> u64 {
    let seed = match std::env::var("RVS_SEED") {
        Ok(text) => text.parse().expect("RVS_SEED is a number"),
        Err(_) => RandomState::new().hash_one(which),
    };
    println!("{which}: RVS_SEED={seed}");
    seed
}

/// As `rvs status --reasons` adds them up, and what rvsd has yet to give back or to give up.
fn seen(reasons: impl Iterator<Item = (Reason, u64)>, (inward, outward): (u64, u64)) -> u64 {
    let held = [Reason::SlowFragment, Reason::SlowTooBig];
    let alone = reasons.filter(|(reason, _)| reason.is_alone() || held.contains(reason));
    alone.map(|(_, count)| count).sum::<u64>() + inward + outward
}

/// Opens the slow path, as rvsd does.
fn open(bench: &Bench) {
    let maps = bench.datapath.maps();
    maps.slow[0].ifindex.set(ETH0);
    maps.slow[0].until.set(rvs_datapath::env::now().after(100_000).0);
    let flags = INTERFACE_KNOWN | INTERFACE_XDP;
    maps.interfaces[ETH0 as usize].set(Interface { mac: DIRECTOR, flags });
}

fn at_hook(hook: Hook) {
    let seed = seed(&format!("{hook:?}"));
    let (mut rng, mut bench) = (Rng(seed), Bench::new());
    services(&mut |vip, port, dests| {
        let dests: Vec<_> = dests.iter().map(|(addr, by)| dest(addr, port, *by, 1)).collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            bench.service(service(protocol, vip, port), Scheduler::Rr, &dests);
        }
    });
    open(&bench);
    let mut forwarded = (0, 0);
    for number in 1..=FRAMES {
        let frame = if number <= PIECES { piece(number) } else { frame(&mut rng) };
        bench.run(hook, &frame);
        forwarded = bench.datapath.forwarded();
        let seen = seen(bench.datapath.maps().reasons().into_iter(), forwarded);
        assert_eq!(seen, number, "RVS_SEED={seed} {hook:?} {frame:02x?}");
        // A destination leaves and comes back: its packets stay counted.
        if number % 500 == 0 {
            let key = service(Protocol::Tcp, "10.9.1.1", 81);
            match number % 1000 {
                0 => bench.service(key, Scheduler::Rr, &[dest("10.0.0.11", 81, DR, 1)]),
                _ => assert!(bench.datapath.remove_service(&key)),
            }
            bench.datapath.tick();
        }
    }
    let reasons = bench.datapath.maps().reasons();
    let kinds = reasons.iter().filter(|(_, count)| *count > 0).count();
    println!("{hook:?}: {forwarded:?} forwarded, {kinds} reasons");
    if hook == Hook::Tc {
        let fragments = [Reason::FragmentSent, Reason::SlowFragment].map(|r| bench.reason(r));
        assert!(fragments.iter().all(|count| *count > 5), "{reasons:?}");
    }
    assert!(forwarded.0 > 300 && forwarded.1 > 20 && kinds >= 9, "{forwarded:?} {reasons:?}");
}

#[test]
fn xdp_counts_every_packet_once() {
    in_namespace("xdp_counts_every_packet_once", || at_hook(Hook::Xdp));
}

#[test]
fn tc_counts_every_packet_once() {
    in_namespace("tc_counts_every_packet_once", || at_hook(Hook::Tc));
}

#[test]
fn the_native_path_counts_every_packet_once() {
    let seed = seed("native");
    let mut rng = Rng(seed);
    let mut sim = SimDatapath::adopt(Plain::new(&Sizes::default(), seed));
    services(&mut |vip, port, dests| {
        let dests: Vec<_> = dests.iter().map(|(addr, by)| dest(addr, port, *by, 1)).collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let config = rvs_core::types::ServiceConfig {
                scheduler: Scheduler::Rr,
                flags: rvs_core::types::ServiceFlags::empty(),
                timeout: 0,
                netmask: u32::MAX,
                engine: None,
            };
            let key = service(protocol, vip, port);
            let change = rvs_core::control::Change::Dests;
            sim.put_service(&key, &config, &dests, change).expect("there is room");
        }
    });
    for number in 1..=FRAMES * 10 {
        let frame = frame(&mut rng);
        sim.maps().run(&mut Frame::new(&frame));
        let reasons = Reason::ALL.iter().map(|reason| (*reason, sim.maps().reason(*reason)));
        assert_eq!(seen(reasons, sim.forwarded()), number, "RVS_SEED={seed} {frame:02x?}");
    }
}
