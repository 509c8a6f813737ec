//! One-packet scheduling, against what a real kernel's IPVS did with the same packets
//! (`tests/oracle/recorded/ops.jsonl`, by `ops.py`).

use rvs_core::control::{Change, Datapath, Stats};
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_tests_bpf::frame::{for_director, from_hex};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, read_recording, service};
use serde_json::Value;

const VIP: &str = "10.9.1.1";

fn key() -> ServiceKey {
    service(Protocol::Udp, VIP, 53)
}

fn config(title: &str) -> ServiceConfig {
    let mut flags = ServiceFlags::ONEPACKET;
    flags.set(ServiceFlags::PERSISTENT, title.contains("persistent"));
    flags.set(ServiceFlags::ONEPACKET, title != "without -o");
    ServiceConfig { scheduler: Scheduler::Rr, flags, timeout: 50, netmask: u32::MAX, engine: None }
}

/// Destinations as the script adds them for the cases of this title.
fn dests(title: &str) -> Vec<DestConfig> {
    let (forward, port) = match title.split(' ').next() {
        Some("NAT") => (ForwardMethod::Masquerade, 5353),
        Some("DR") => (ForwardMethod::DirectRoute, 53),
        Some("TUN") => (ForwardMethod::Tunnel, 53),
        _ => (ForwardMethod::Masquerade, 53),
    };
    let (count, upper) = match title {
        "thresholds of 1" => (2, 1),
        "without -o" => (1, 0),
        "-E -o" => (2, 0),
        _ => (3, 0),
    };
    let one = |number| {
        let dest = dest(&format!("10.1.0.{}", 11 + number), port, forward, 1);
        DestConfig { upper_threshold: upper, ..dest }
    };
    (0..count).map(one).collect()
}

/// The bytes from the IP header on, without an outer header, whose identification is its own.
fn inner<'f>(title: &str, packet: &'f [u8]) -> &'f [u8] {
    if title.starts_with("TUN") { &packet[20..] } else { packet }
}

/// The destination address of a packet, outer or only.
fn destination(packet: &[u8]) -> [u8; 4] {
    packet[16..20].try_into().expect("four bytes")
}

fn replay(hook: Hook) {
    let text = read_recording("ops.jsonl");
    let mut bench = Bench::new();
    let (mut current, mut played, mut before) = (String::new(), 0, Stats::default());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let label = case["case"].as_str().expect("a label");
        let (title, _) = label.split_once(": ").unwrap_or((label, ""));
        if title == "TCP service" {
            continue;
        }
        if current != title {
            if title != "-E -o" {
                bench.datapath.remove_service(&key());
                // Nothing uses the destinations any more: they begin anew.
                bench.datapath.tick();
            } else {
                bench.change(key(), config(title), &dests("without -o"), Change::Service);
            }
            bench.change(key(), config(title), &dests(title), Change::Dests);
            title.clone_into(&mut current);
            // A destination that a template still names comes back with its counters.
            before = bench.datapath.service_stats(&key());
        }
        if case.get("in").is_none() {
            afterwards(&bench, &case, title, &before);
            continue;
        }
        let frame = for_director(case["in"]["frame"].as_str().expect("hexadecimal"));
        let outcome = bench.run(hook, &frame);
        played += 1;
        if label.ends_with("a reply") {
            // Nobody translates it back: the host routes it as it is.
            assert_eq!(outcome.verdict, Verdict::Pass, "{hook:?} {label}");
            continue;
        }
        assert_eq!(outcome.verdict, Verdict::Sent, "{hook:?} {label}");
        let theirs = &from_hex(case["to_server"][0]["frame"].as_str().expect("hexadecimal"))[14..];
        let ours = &outcome.frame[14..];
        if title.starts_with("DR") {
            // Whose it is shows only in the MAC address, which is one for all here.
            assert_eq!(ours, theirs, "{hook:?} {label}");
            continue;
        }
        assert_eq!(destination(ours), destination(theirs), "{hook:?} {label}");
        assert_eq!(inner(title, ours), inner(title, theirs), "{hook:?} {label}");
    }
    assert_eq!(played, 33, "packets");
}

/// Counts, and connections of this service, after its packets.
fn afterwards(bench: &Bench, case: &Value, title: &str, before: &Stats) {
    for config in dests(title) {
        let status = bench.datapath.dest_status(&key(), &config.key);
        let theirs = &case["dests"][format!("{}:{}", config.key.addr, config.key.port)];
        let counts = [status.active_conns, status.inactive_conns].map(u64::from);
        assert_eq!([theirs[2].as_u64(), theirs[3].as_u64()], counts.map(Some), "{title}");
    }
    let mut conns = Vec::new();
    bench.datapath.for_each_conn(&mut |row| {
        if !row.template {
            conns.push((row.client_port, row.dest.to_string()));
        }
        true
    });
    let expected: &[_] = if title == "-E -o" { &[(40001, "10.1.0.11".to_owned())] } else { &[] };
    assert_eq!(conns, expected, "{title}");
    // Every datagram is a connection in the counters. The recorded ones lag behind by two seconds.
    let stats = bench.datapath.service_stats(&key());
    let packets = if matches!(title, "thresholds of 1" | "-E -o") { 3 } else { 4 };
    let conns = if title == "-E -o" { 0 } else { packets };
    let counted = (stats.conns - before.conns, stats.in_pkts - before.in_pkts, stats.out_pkts);
    assert_eq!(counted, (conns, packets, 0), "{title}");
}

#[test]
fn each_datagram_is_scheduled_by_itself_through_xdp() {
    in_namespace("each_datagram_is_scheduled_by_itself_through_xdp", || replay(Hook::Xdp));
}

#[test]
fn each_datagram_is_scheduled_by_itself_through_tc() {
    in_namespace("each_datagram_is_scheduled_by_itself_through_tc", || replay(Hook::Tc));
}
