//! `nat_icmp_send`: packets of real servers that belong to no connection, against what a real kernel's
//! IPVS did with them (`tests/oracle/recorded/nat_icmp_send.jsonl`, by `nat_icmp_send.py`).

use std::net::IpAddr;

use rvs_core::reason::Reason;
use rvs_tests_bpf::frame::{for_director, from_hex};
use rvs_tests_bpf::replay::Replay;
use rvs_tests_bpf::{Hook, Verdict, in_namespace, ip, next_tick, read_recording};
use serde_json::Value;

/// Where an Ethernet header ends.
const L3: usize = 14;

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// The frames' IP packets.
fn packets(frames: &Value) -> Vec<Vec<u8>> {
    let frames = list(frames).iter();
    let hex = |frame: &Value| from_hex(frame["frame"].as_str().expect("hexadecimal"));
    frames.map(|frame| hex(frame)[L3..].to_vec()).collect()
}

fn is_v6(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6
}

/// Type and code, if it is an ICMP message, without options or extension headers.
fn icmp(packet: &[u8]) -> Option<(u8, u8)> {
    match is_v6(packet) {
        true => (packet[6] == 58).then(|| (packet[40], packet[41])),
        false => (packet[9] == 1).then(|| (packet[20], packet[21])),
    }
}

fn is_port_unreachable(packet: &[u8]) -> bool {
    icmp(packet) == Some(if is_v6(packet) { (1, 4) } else { (3, 3) })
}

/// The packet without what a sender of errors chooses: identification, flow label.
fn without_own(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if is_v6(&packet) {
        packet[1] &= 0xf0;
        packet[2..4].fill(0);
    } else {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Runs what a row says comes before its packet.
fn prepare(replay: &mut Replay, row: &Value) {
    for command in list(&row["commands"]) {
        replay.command(command.as_str().expect("a command"));
    }
    let datapath = &replay.bench.datapath;
    for (index, dest) in datapath.destinations() {
        let source = if dest.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
        datapath.set_source(index, source.parse::<IpAddr>().expect("a literal"));
    }
    replay.set("nat_icmp_send", if row["sysctl"] == 0 { "0" } else { "1" });
}

/// Plays a row; whether the real server was answered.
fn play(replay: &mut Replay, row: &Value) -> bool {
    let label = row["case"].as_str().expect("a label");
    let frame = for_director(row["in"]["frame"].as_str().expect("hexadecimal"));
    let outcome = replay.frame(&frame, 0);
    let (sent, came) = (&outcome.frame[L3..], &frame[L3..]);
    // The kernel puts the datagram together and answers its last piece. What has no route cannot be told
    // from what is for the director (ARCHITECTURE.md); the kernel drops it before IPVS sees it.
    if label.ends_with("first fragment") || label.ends_with("to nowhere") {
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        assert!(is_port_unreachable(sent), "{label}");
        return true;
    }
    if label.ends_with("last fragment") {
        assert_eq!(outcome.verdict, Verdict::Drop, "{label}");
        return false;
    }
    let theirs = [packets(&row["to_server"]), packets(&row["to_client"])].concat();
    let Some(theirs) = theirs.first() else {
        assert_eq!(outcome.verdict, Verdict::Pass, "{label}");
        return false;
    };
    if is_port_unreachable(theirs) {
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        assert_eq!(without_own(sent), without_own(theirs), "{label}");
        return true;
    }
    let addresses = if is_v6(came) { 8..40 } else { 12..20 };
    if icmp(theirs).is_some() || theirs[addresses.clone()] == came[addresses] {
        // The host answers, or routes it on.
        assert_eq!(outcome.verdict, Verdict::Pass, "{label}");
        assert_eq!(outcome.frame, frame, "{label}");
    } else {
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        assert_eq!(sent, &theirs[..], "{label}");
    }
    false
}

fn compare(hook: Hook) {
    ip("addr add fd00::1/16 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    for addr in ["10.9.1.1/32", "10.1.0.1/32", "fd09::1/128"] {
        ip(&format!("addr add {addr} dev lo"));
    }
    let text = read_recording("nat_icmp_send.jsonl");
    let mut replay = Replay::new(hook);
    let (mut mtu, mut rows, mut answered) = (1500, 0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let wanted = row["mtu"].as_u64().unwrap_or(1500);
        if mtu != wanted {
            mtu = wanted;
            ip(&format!("link set eth0 mtu {mtu}"));
            next_tick();
        }
        prepare(&mut replay, &row);
        answered += u64::from(play(&mut replay, &row));
        rows += 1;
    }
    assert_eq!((rows, answered), (374, 154));
    let counted = [Reason::RealServer, Reason::IcmpSent].map(|reason| replay.bench.reason(reason));
    assert_eq!(counted, [answered, answered]);
}

#[test]
fn real_servers_are_answered_as_by_the_kernel_on_tc() {
    in_namespace("real_servers_are_answered_as_by_the_kernel_on_tc", || compare(Hook::Tc));
}

#[test]
fn real_servers_are_answered_as_by_the_kernel_on_xdp() {
    in_namespace("real_servers_are_answered_as_by_the_kernel_on_xdp", || compare(Hook::Xdp));
}
