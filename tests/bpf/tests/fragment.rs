//! Fragments against what a real kernel's IPVS sent (`tests/oracle/recorded/fragment.jsonl`, by
//! `fragment.py`). The kernel puts datagrams together first and RVS does not, so what is compared is
//! what a receiver makes of either's fragments; every checksum in them is verified here. Both hooks
//! and the native data path, each with the slow path behind it as rvsd has it.

use std::collections::BTreeMap;

use rvs_core::control::Datapath;
use rvs_core::types::{ForwardMethod, Protocol};
use rvs_sim::{Plain, SimDatapath, Sizes};
use rvs_tests_bpf::pieces::{Player, run};
use rvs_tests_bpf::receiver::{brief, errors, given, packets, receive, recorded, text};
use rvs_tests_bpf::{Hook, dest, in_namespace, ip, next_tick, read_recording, service};
use serde_json::Value;

/// How a case ended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum End {
    /// A receiver gets what it gets from the kernel, if anything.
    Equal,
    /// The same error came back.
    Refused,
    /// An error came back about the first fragment of a datagram that is never complete, for which
    /// the kernel waits in vain.
    Early,
    /// The host has it, untouched.
    Host,
    /// Not for this player.
    Skipped,
    /// The kernel refuses fragments with DF that fit; RVS sends them on.
    Kinder,
}

fn play(player: &mut Player, case: &Value) -> End {
    let label = text(case, "case");
    let native = matches!(player, Player::Native(_));
    if native && (label.contains("smaller MTU") || label.contains("ttl 1")) {
        return End::Skipped;
    }
    let frames = given(case);
    let played = run(player, &frames);
    let ours = receive(&packets(&played.sent));
    if label.contains("no service") || label.contains(": ping") {
        assert_eq!((played.passed, ours.len()), (frames.len(), 0), "{label}");
        return End::Host;
    }
    assert_eq!(played.passed, 0, "{label}");
    let mut theirs = receive(&packets(&recorded(case)));
    if label.contains("missing first") {
        let late = played.given_up.get("drop.fragment_late");
        assert_eq!(late, Some(&(frames.len() as u64)), "{label}: {:?}", played.given_up);
    } else if !label.contains("TCP SYN, first of 8 bytes") {
        assert!(played.given_up.is_empty(), "{label}: {:?}", played.given_up);
    }
    let refusals = errors(&theirs);
    let tight = label.contains("too long") || native || text(case, "method") == "TUN";
    let fits = !tight || label.contains("pieces of 1000");
    if label.contains(": DF") && (fits || native) || label.ends_with("reply, DF") {
        assert_eq!(refusals.len(), 1, "{label}");
        let whole = ours.len() == 1 && ours[0].data.len() == 4008;
        assert!(whole, "{label}: {ours:?}");
        return End::Kinder;
    }
    if !refusals.is_empty() {
        // The native data path knows no MTU.
        if !native {
            // A first fragment that comes twice is refused twice.
            let mut errors = errors(&ours);
            assert_eq!(errors.len(), ours.len(), "{label}");
            errors.dedup();
            assert_eq!(errors, refusals, "{label}");
        }
        return if native { End::Skipped } else { End::Refused };
    }
    if theirs.is_empty() && !ours.is_empty() && errors(&ours).len() == ours.len() {
        let incomplete = label.contains("missing last") || label.contains("overlapping");
        assert!(incomplete, "{label}: {}", brief(&ours));
        return End::Early;
    }
    let mut ours = ours;
    // The kernel computes a checksum that was left out.
    if label.starts_with("NAT") && label.ends_with("zero checksum") {
        for packet in ours.iter_mut().chain(&mut theirs) {
            packet.data[6..8].fill(0);
        }
    }
    assert!(ours == theirs, "{label}:\n{}\n{}", brief(&ours), brief(&theirs));
    End::Equal
}

/// Plays every case: how many ended how.
fn replay(mut player: Player) -> BTreeMap<End, usize> {
    let recording = read_recording("fragment.jsonl");
    let (mut open, mut mtu, mut ends) = (0, 1500, BTreeMap::new());
    let mut before = [0; 4];
    player.open();
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let port = case["port"].as_u64().expect("a port") as u16;
        if port != open {
            let method = match text(&case, "method") {
                "NAT" => ForwardMethod::Masquerade,
                "DR" => ForwardMethod::DirectRoute,
                _ => ForwardMethod::Tunnel,
            };
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let target = dest(text(&case, "server"), port, method, 1);
                player.put(service(protocol, text(&case, "vip"), port), target);
            }
            open = port;
        }
        let stats = |player: &Player| {
            let key = service(Protocol::Udp, text(&case, "vip"), port);
            let stats = match player {
                Player::Programs(bench, _) => bench.datapath.service_stats(&key),
                Player::Native(sim) => sim.service_stats(&key),
            };
            [stats.conns, stats.in_pkts, stats.in_bytes, stats.out_pkts]
        };
        if let Some(delta) = case["delta"].as_array() {
            let delta: Vec<u64> = delta.iter().map(|n| n.as_u64().expect("a number")).collect();
            let mut counted = stats(&player);
            counted.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
            // The fragment header of the first, which the kernel takes out before it counts.
            let header = if text(&case, "vip").contains(':') { 8 } else { 0 };
            assert_eq!(counted, [delta[0], delta[1], delta[3] + header, delta[2]]);
            continue;
        }
        let wanted = case["mtu"].as_u64().expect("an MTU");
        if wanted != mtu && matches!(player, Player::Programs(..)) {
            ip(&format!("link set eth0 mtu {wanted}"));
            next_tick();
            mtu = wanted;
        }
        before = stats(&player);
        *ends.entry(play(&mut player, &case)).or_default() += 1;
    }
    ends
}

/// The way to the recording's IPv6 clients.
fn clients() {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
}

/// What both hooks make of the recording.
const PROGRAMS: [(End, usize); 5] =
    [(End::Equal, 200), (End::Refused, 56), (End::Early, 4), (End::Host, 24), (End::Kinder, 7)];

#[test]
fn tc_makes_receivers_get_what_they_get_from_the_kernel() {
    in_namespace("tc_makes_receivers_get_what_they_get_from_the_kernel", || {
        clients();
        let ends = replay(Player::Programs(Box::default(), Hook::Tc));
        assert_eq!(ends, BTreeMap::from(PROGRAMS));
    });
}

#[test]
fn xdp_makes_receivers_get_what_they_get_from_the_kernel() {
    in_namespace("xdp_makes_receivers_get_what_they_get_from_the_kernel", || {
        clients();
        let ends = replay(Player::Programs(Box::default(), Hook::Xdp));
        assert_eq!(ends, BTreeMap::from(PROGRAMS));
    });
}

#[test]
fn the_native_data_path_makes_receivers_get_what_they_get_from_the_kernel() {
    let sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 7));
    let ends = replay(Player::Native(Box::new(sim)));
    let native = [(End::Equal, 172), (End::Host, 24), (End::Skipped, 86), (End::Kinder, 9)];
    assert_eq!(ends, BTreeMap::from(native));
}
