//! By which way replies of masqueraded real servers leave, with and without `snat_reroute`, where
//! policy routing asks for their source or interface, against what a real kernel's IPVS did
//! (`tests/oracle/recorded/snat_reroute.jsonl`, by `snat_reroute.py`).

use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{for_director, from_hex};
use rvs_tests_bpf::{
    Bench, Hook, Verdict, dest, in_namespace, ip, next_tick, read_recording, service,
};
use serde_json::Value;

/// Routing tables that a rule leads to: its name in the recording, its number, its gateways, and the
/// last byte of the gateways' MAC addresses. The main table's gateways have c1.
const WAYS: [(&str, u32, &str, &str, &str); 3] = [
    ("from_vip", 100, "10.0.0.3", "fd00::3", "c3"),
    ("from_server", 101, "10.0.0.4", "fd00::4", "c4"),
    ("by_interface", 102, "10.0.0.77", "fd00::77", "c5"),
];

fn network() {
    ip("addr add fd00::1/64 dev eth0 nodad");
    let gateway = |addr: &str, addr6: &str, mac: &str, table: &str| {
        for (family, addr, net) in [("-4", addr, "10.2.0.0/16"), ("-6", addr6, "fd02::/16")] {
            let mac = format!("02:00:00:00:00:{mac}");
            ip(&format!("{family} neigh replace {addr} lladdr {mac} nud permanent dev eth0"));
            ip(&format!("{family} route add {net} via {addr} dev eth0 table {table}"));
        }
    };
    gateway("10.0.0.2", "fd00::2", "c1", "main");
    for (_, table, addr, addr6, mac) in WAYS {
        gateway(addr, addr6, mac, &table.to_string());
    }
    // Without `snat_reroute` replies are forwarded as from their interface. XDP's test runs are at lo.
    for (family, interface) in [("ipv4", "eth0"), ("ipv4", "lo"), ("ipv6", "eth0"), ("ipv6", "lo")]
    {
        let path = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
        std::fs::write(&path, "1").unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

/// Adds (`add`) or deletes rules; `interface` is what packets come by.
fn rules(add: &str, family: u64, names: &[String], interface: &str) {
    let (vip, server) =
        if family == 6 { ("fd09::1", "fd01::11") } else { ("10.9.1.1", "10.1.0.11") };
    for (pref, name) in (100..).zip(names) {
        let (_, table, ..) = WAYS.iter().find(|(known, ..)| known == name).expect("a way");
        let selector = match name.as_str() {
            "from_vip" => format!("from {vip}"),
            "from_server" => format!("from {server}"),
            _ => format!("iif {interface}"),
        };
        ip(&format!("-{family} rule {add} pref {pref} {selector} lookup {table}"));
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// The frames that a side got.
fn frames(side: &Value) -> Vec<Vec<u8>> {
    let frames = side.as_array().expect("frames");
    frames.iter().map(|frame| from_hex(text(frame, "frame"))).collect()
}

/// Puts the service of a row in force.
fn configure(bench: &mut Bench, row: &Value, v6: bool) {
    let protocol = if row["protocol"] == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    let (vip, server) = if v6 { ("fd09::1", "fd01::11") } else { ("10.9.1.1", "10.1.0.11") };
    let port = row["port"].as_u64().expect("a port") as u16;
    let server = [dest(server, port, ForwardMethod::Masquerade, 1)];
    bench.service(service(protocol, vip, port), Scheduler::Rr, &server);
    let reroute = row["snat_reroute"].as_i64().expect("a number") as i32;
    bench.datapath.set_sysctl(Sysctl::SnatReroute, reroute).expect("it can be set");
}

fn replay(hook: Hook) {
    network();
    let recording = read_recording("snat_reroute.jsonl");
    let mut bench = Bench::new();
    let (mut compared, mut whole, mut in_force) = (0, Vec::new(), (0, Vec::new(), "", Value::Null));
    for line in recording.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let family = row["family"].as_u64().expect("a number");
        let names: Vec<String> = row["rules"]
            .as_array()
            .map(|names| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
            .expect("names");
        // XDP's test runs come by the loopback, which is where routes are asked for as well otherwise.
        let is_lo = hook == Hook::Xdp && row["snat_reroute"] == 0;
        let interface = if is_lo { "lo" } else { "eth0" };
        let now_in_force = (family, names, interface, row["port"].clone());
        if now_in_force != in_force {
            rules("del", in_force.0, &in_force.1, in_force.2);
            in_force = now_in_force;
            rules("add", in_force.0, &in_force.1, in_force.2);
            configure(&mut bench, &row, family == 6);
            next_tick();
        }
        let label = format!(
            "{hook:?} IPv{family} {} {:?} {} {}",
            row["protocol"], in_force.1, row["snat_reroute"], row["case"]
        );
        let frame = for_director(text(&row["in"], "frame"));
        // XDP leaves fragments and ICMP errors to TC, which the rules of this run are not for.
        let is_fast = ["opens", "reply", "again"].contains(&text(&row, "case"));
        if hook == Hook::Xdp && !is_fast {
            assert_eq!(bench.run(hook, &frame).verdict, Verdict::Pass, "{label}");
            compared += 1;
            continue;
        }
        let outcome = bench.run(hook, &frame);
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        let theirs = [frames(&row["to_client"]), frames(&row["to_server"])].concat();
        compared += 1;
        if text(&row, "case").starts_with("fragment") {
            // The kernel sends them once it has the whole datagram, cut as it likes.
            whole.push(outcome.frame[..6].to_vec());
            if text(&row, "case") == "fragment at 200" {
                let theirs: Vec<_> = theirs.iter().map(|frame| frame[..6].to_vec()).collect();
                assert_eq!(std::mem::take(&mut whole), theirs, "{label}");
            }
            continue;
        }
        assert_eq!(theirs.len(), 1, "{label}");
        assert_eq!(outcome.frame[14..], theirs[0][14..], "{label}");
        if text(&row["in"], "from_") == "r" {
            assert_eq!(outcome.frame[..6], theirs[0][..6], "{label}");
        }
    }
    assert_eq!((compared, recording.lines().count()), (252, 252));
}

/// The way of a reply is remembered for its virtual address: that of another is another.
fn side_by_side(hook: Hook) {
    network();
    rules("add", 4, &["from_vip".to_owned()], "");
    rules("add", 6, &["from_vip".to_owned()], "");
    let mut bench = Bench::new();
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address and a port") };
    let cases = [
        ("10.2.0.5:4000", "10.9.1.1:53", "10.1.0.11:53", 0xc3),
        ("10.2.0.5:4000", "10.9.1.2:53", "10.1.0.12:53", 0xc1),
        ("[fd02::5]:4000", "[fd09::1]:53", "[fd01::11]:53", 0xc3),
        ("[fd02::5]:4000", "[fd09::2]:53", "[fd01::12]:53", 0xc1),
    ];
    let build = |from, to| {
        let flags = rvs_tests_bpf::frame::Flags::default();
        rvs_tests_bpf::frame::build(Protocol::Udp, at(from), at(to), flags, b"")
    };
    for (client, vip, server, _) in cases {
        let server = [dest(&at(server).ip().to_string(), 53, ForwardMethod::Masquerade, 1)];
        let key = service(Protocol::Udp, &at(vip).ip().to_string(), 53);
        bench.service(key, Scheduler::Rr, &server);
        assert_eq!(bench.run(hook, &build(client, vip)).verdict, Verdict::Sent);
    }
    for _ in 0..3 {
        for (client, vip, server, way) in cases {
            let outcome = bench.run(hook, &build(server, client));
            assert_eq!((outcome.verdict, outcome.frame[5]), (Verdict::Sent, way), "{vip}");
        }
    }
}

#[test]
fn replies_leave_by_the_kernel_s_way_through_tc() {
    in_namespace("replies_leave_by_the_kernel_s_way_through_tc", || replay(Hook::Tc));
}

#[test]
fn replies_leave_by_the_kernel_s_way_through_xdp() {
    in_namespace("replies_leave_by_the_kernel_s_way_through_xdp", || replay(Hook::Xdp));
}

#[test]
fn ways_of_virtual_addresses_are_remembered_apart_by_tc() {
    let test = "ways_of_virtual_addresses_are_remembered_apart_by_tc";
    in_namespace(test, || side_by_side(Hook::Tc));
}

#[test]
fn ways_of_virtual_addresses_are_remembered_apart_by_xdp() {
    let test = "ways_of_virtual_addresses_are_remembered_apart_by_xdp";
    in_namespace(test, || side_by_side(Hook::Xdp));
}
