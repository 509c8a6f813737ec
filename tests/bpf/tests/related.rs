//! ICMP errors about packets of connections, against what a real kernel's IPVS made of them
//! (`tests/oracle/recorded/related.jsonl`, by `related.py`).

use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, SYN, build, for_director, from_hex};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, ip, read_recording, service};
use serde_json::Value;

/// The connection that a group of cases is about.
struct Group {
    title: String,
    forward: ForwardMethod,
    v6: bool,
}

/// Groups are titled like "NAT IPv4 tcp"; the service of the n-th has port 100 + n.
fn open(bench: &mut Bench, title: &str, number: u16) -> Group {
    let words: Vec<&str> = title.split(' ').collect();
    let forward = match words[0] {
        "NAT" => ForwardMethod::Masquerade,
        "DR" => ForwardMethod::DirectRoute,
        _ => ForwardMethod::Tunnel,
    };
    let v6 = words[1] == "IPv6";
    let protocol = if words[2] == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    let port = 100 + number;
    let (client, vip, server) =
        if v6 { ("fd00::2", "fd09::1", "fd01::11") } else { ("10.0.0.2", "10.9.1.1", "10.1.0.11") };
    let server_port = if forward == ForwardMethod::Masquerade { 8080 } else { port };
    let server = [dest(server, server_port, forward, 1)];
    bench.service(service(protocol, vip, port), Scheduler::Rr, &server);
    let from = SocketAddr::new(client.parse().expect("an address"), 40000);
    let to = SocketAddr::new(vip.parse().expect("an address"), port);
    for flags in [SYN, ACK] {
        let outcome = bench.run(Hook::Tc, &build(protocol, from, to, flags, b""));
        assert_eq!(outcome.verdict, Verdict::Sent, "{title}");
    }
    Group { title: title.to_owned(), forward, v6 }
}

/// The packets that a side got, from their IP header on.
fn packets(side: &Value) -> Vec<Vec<u8>> {
    let frames = side.as_array().expect("frames");
    frames
        .iter()
        .map(|frame| from_hex(frame["frame"].as_str().expect("hexadecimal"))[14..].to_vec())
        .collect()
}

/// Source and destination.
fn addresses(packet: &[u8], v6: bool) -> &[u8] {
    if v6 { &packet[8..40] } else { &packet[12..20] }
}

fn play(bench: &mut Bench, group: &Group, case: &Value) {
    let label = case["case"].as_str().expect("a label");
    let frame = for_director(case["in"]["frame"].as_str().expect("hexadecimal"));
    let outcome = bench.run(Hook::Tc, &frame);
    let expected = [packets(&case["to_server"]), packets(&case["to_client"])].concat();
    match (outcome.verdict, expected.first()) {
        (Verdict::Sent, Some(expected)) => {
            let outer = match (group.forward, group.v6) {
                (ForwardMethod::Tunnel, false) => 20,
                (ForwardMethod::Tunnel, true) => 40,
                _ => 0,
            };
            // Outer headers have an identification of their own.
            assert_eq!(outcome.frame[14 + outer..], expected[outer..], "{label}");
        }
        // The kernel's answer came from beyond IPVS: routed on, or swallowed by the host.
        (Verdict::Pass, Some(expected)) => {
            let (there, here) = (addresses(expected, group.v6), addresses(&frame[14..], group.v6));
            assert_eq!(there, here, "{label}: passed, but the kernel translated it");
            assert!(case["to_server"].as_array().is_some_and(Vec::is_empty), "{label}: passed");
        }
        (Verdict::Pass | Verdict::Drop, None) => {}
        (verdict, expected) => panic!("{label}: {verdict:?}, the kernel {expected:?}"),
    }
}

#[test]
fn icmp_errors_are_translated_as_the_kernel_does() {
    in_namespace("icmp_errors_are_translated_as_the_kernel_does", || {
        ip("addr add fd00::1/16 dev eth0 nodad");
        ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
        let text = read_recording("related.jsonl");
        let mut bench = Bench::new();
        let mut group: Option<Group> = None;
        let (mut number, mut played) = (0, 0);
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).expect("a line of JSON");
            let label = case["case"].as_str().expect("a label");
            // What the connections were afterwards; ICMP for no connection at all.
            if case.get("in").is_none() || label.contains("ping") {
                continue;
            }
            let schedules = i32::from(label.contains("schedule_icmp=1"));
            let set = bench.datapath.set_sysctl(Sysctl::ScheduleIcmp, schedules);
            set.expect("it can be set");
            let (title, _) = label.split_once(": ").expect("a title");
            if group.as_ref().is_none_or(|group| group.title != title) {
                number += 1;
                group = Some(open(&mut bench, title, number));
            }
            play(&mut bench, group.as_ref().expect("just opened"), &case);
            played += 1;
        }
        println!("{played} cases of {number} connections");
        assert_eq!((number, played > 180), (12, true), "{played}");
        let mut states = Vec::new();
        bench.datapath.for_each_conn(&mut |row| {
            states.push(row.state);
            true
        });
        // Those that were opened, and one for an error about none in each group.
        let number_of = |state| states.iter().filter(|known| **known == state).count();
        let numbers = ["ESTABLISHED", "NONE", "UDP"].map(number_of);
        assert_eq!((states.len(), numbers), (24, [6, 6, 12]), "{states:?}");
        assert!(bench.reason(Reason::Icmp) > 0);
        // Masquerading, in both directions, for two protocols of two families.
        assert_eq!(bench.reason(Reason::BadChecksum), 8);
    });
}
