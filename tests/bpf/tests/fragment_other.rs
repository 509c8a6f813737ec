//! ICMP errors in fragments, and IPv6 extension headers behind a fragment header, against what a real
//! kernel's IPVS sent (`tests/oracle/recorded/fragment_other.jsonl`, by `fragment_other.py`). As in
//! `fragment.rs`, what is compared is what a receiver makes of either's packets. The native data path,
//! which leaves all ICMP to the host, plays the rest.

use std::collections::BTreeMap;

use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol};
use rvs_sim::{Plain, SimDatapath, Sizes};
use rvs_tests_bpf::pieces::{Player, run};
use rvs_tests_bpf::receiver::{brief, errors, given, packets, receive, recorded, text};
use rvs_tests_bpf::{Hook, dest, in_namespace, ip, next_tick, read_recording, service};
use serde_json::Value;

/// How a case ended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum End {
    /// A receiver gets what it gets from the kernel.
    Equal,
    /// Nobody gets anything, as from the kernel.
    Nothing,
    /// The same error came back.
    Refused,
    /// The host has it, untouched; the kernel's IPVS leaves it to the host, too.
    Host,
    /// The host has it, but the kernel's IPVS translates it: an ICMPv6 error whose first fragment has
    /// not all that it quotes.
    Tiny,
    /// The host has all but the first: an error that is sent by neither side of a service, nor to one,
    /// and comes in the wrong order.
    Lost,
    /// Not for this player.
    Skipped,
}

/// Whether a case is about an ICMP error.
fn is_icmp(label: &str) -> bool {
    let words = ["from the", "router", "about no connection", "schedule_icmp", "error", "pieces"];
    words.iter().any(|word| label.contains(word))
}

fn play(player: &mut Player, case: &Value) -> End {
    let label = text(case, "case");
    let native = matches!(player, Player::Native(_));
    if native && (is_icmp(label) || label.ends_with("ttl 1")) {
        return End::Skipped;
    }
    let frames = given(case);
    let played = run(player, &frames);
    let (ours, theirs) = (receive(&packets(&played.sent)), receive(&packets(&recorded(case))));
    let of_host = ["ping", "no connection", "no service", "another protocol", "nothing behind"];
    if of_host.iter().any(|word| label.contains(word)) {
        assert_eq!((played.passed, ours.len()), (frames.len(), 0), "{label}");
        return End::Host;
    }
    if label.contains("IPv6") && label.contains("first of ") {
        assert_eq!((played.passed, played.sent.len()), (frames.len(), 0), "{label}");
        assert_eq!(theirs.len(), 1, "{label}");
        return End::Tiny;
    }
    if label.contains("at the servers, reversed") {
        assert_eq!((played.passed, played.sent.len()), (frames.len() - 1, 1), "{label}");
        assert_eq!(theirs.len(), 1, "{label}");
        return End::Lost;
    }
    let refusals = errors(&theirs);
    if label.ends_with("options, ttl 1") {
        assert_eq!((errors(&ours), refusals.len()), (refusals, 1), "{label}");
        return End::Refused;
    }
    assert!(ours == theirs, "{label}:\n{}\n{}", brief(&ours), brief(&theirs));
    if theirs.is_empty() {
        return End::Nothing;
    }
    assert_eq!(played.passed, 0, "{label}");
    assert!(played.given_up.is_empty(), "{label}: {:?}", played.given_up);
    End::Equal
}

/// Plays every case: how many ended how.
fn replay(mut player: Player) -> BTreeMap<End, usize> {
    let recording = read_recording("fragment_other.jsonl");
    let (mut open, mut mtu, mut ends) = (0, 1500, BTreeMap::new());
    player.open();
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| case[name].as_u64().expect("a number");
        let port = number("port") as u16;
        if port != open {
            let method = match text(&case, "method") {
                "NAT" => ForwardMethod::Masquerade,
                "DR" => ForwardMethod::DirectRoute,
                _ => ForwardMethod::Tunnel,
            };
            let target = dest(text(&case, "server"), number("server_port") as u16, method, 1);
            player.put(service(Protocol::Udp, text(&case, "vip"), port), target);
            open = port;
        }
        let schedules = case["schedule_icmp"].as_u64().unwrap_or(0);
        player.set_sysctl(Sysctl::ScheduleIcmp, schedules as i32);
        if number("mtu") != mtu && matches!(player, Player::Programs(..)) {
            mtu = number("mtu");
            ip(&format!("link set eth0 mtu {mtu}"));
            next_tick();
        }
        *ends.entry(play(&mut player, &case)).or_default() += 1;
    }
    ends
}

/// What both hooks make of the recording.
fn compare(hook: Hook) {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    let ends = replay(Player::Programs(Box::default(), hook));
    let (sent, host) =
        ([(End::Equal, 181), (End::Nothing, 47)], [(End::Host, 42), (End::Tiny, 12)]);
    let rest = [(End::Refused, 3), (End::Lost, 2)];
    assert_eq!(ends, BTreeMap::from_iter([sent, host, rest].concat()));
}

#[test]
fn tc_makes_receivers_get_what_they_get_from_the_kernel() {
    let test = "tc_makes_receivers_get_what_they_get_from_the_kernel";
    in_namespace(test, || compare(Hook::Tc));
}

#[test]
fn xdp_makes_receivers_get_what_they_get_from_the_kernel() {
    let test = "xdp_makes_receivers_get_what_they_get_from_the_kernel";
    in_namespace(test, || compare(Hook::Xdp));
}

#[test]
fn the_native_data_path_makes_receivers_get_what_they_get_from_the_kernel() {
    let sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 7));
    let ends = replay(Player::Native(Box::new(sim)));
    let native = [(End::Equal, 79), (End::Nothing, 15), (End::Host, 30), (End::Skipped, 163)];
    assert_eq!(ends, BTreeMap::from(native));
}
