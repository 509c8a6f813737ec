//! Which destination the eBPF programs choose, against what a real kernel's IPVS chose
//! (`../shared/golden/schedulers.jsonl`; its README explains the scenarios).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rvs_core::control::{Change, Datapath};
use rvs_core::types::{
    DestConfig, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
};
use rvs_tests_bpf::frame::{SYN, build};
use rvs_tests_bpf::{Bench, Hook, dest, fwmark, in_namespace, linux61, read_recording, service};
use serde_json::Value;

/// Where the recording is: beside the checkout.
fn recording() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join("../shared/golden/schedulers.jsonl")).ok()
}

#[test]
fn schedulers_choose_what_the_kernel_chose() {
    in_namespace("schedulers_choose_what_the_kernel_chose", || {
        let Some(text) = recording() else {
            assert!(std::env::var_os("CI").is_none(), "../shared/golden is missing");
            println!("SKIPPED: ../shared/golden/schedulers.jsonl is not there");
            return;
        };
        let mut bench = Bench::new();
        let mut played = 0;
        for line in text.lines() {
            let scenario: Value = serde_json::from_str(line).expect("a line of JSON");
            let name = scenario["scheduler"].as_str().expect("a name");
            let Some(scheduler) = Scheduler::from_name(name) else { continue };
            for hook in [Hook::Xdp, Hook::Tc] {
                play(&mut bench, hook, scheduler, &scenario);
                played += 1;
            }
        }
        println!("{played} scenarios, 40 packets each");
        assert!(played >= 280, "only {played} scenarios");
    });
}

#[test]
fn schedulers_go_on_as_the_kernel_does_when_the_service_changes() {
    in_namespace("schedulers_go_on_as_the_kernel_does_when_the_service_changes", || {
        let text = read_recording("sched_changes.jsonl");
        let mut bench = Bench::new();
        let mut played = 0;
        for line in text.lines() {
            let scenario: Value = serde_json::from_str(line).expect("a line of JSON");
            if is_ours(&scenario) {
                replay(&mut bench, &scenario);
                played += 1;
            }
        }
        println!("{played} scenarios");
        assert!(played > 200, "only {played} scenarios");
    });
}

/// Whether every scheduler of the scenario is there.
fn is_ours(scenario: &Value) -> bool {
    let steps = scenario["steps"].as_array().expect("steps");
    let mut commands = steps.iter().filter_map(|step| step["cmd"].as_str());
    commands.all(|cmd| value(cmd, "-s").is_none_or(|name| Scheduler::from_name(name).is_some()))
}

/// The word after a flag.
fn value<'c>(command: &'c str, flag: &str) -> Option<&'c str> {
    let mut words = command.split(' ');
    words.find(|word| *word == flag)?;
    words.next()
}

fn replay(bench: &mut Bench, scenario: &Value) {
    let label = scenario["scenario"].as_str().expect("a label");
    let mut dests: Vec<DestConfig> = Vec::new();
    let mut current = None;
    let mut config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags: ServiceFlags::empty(),
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    };
    for step in scenario["steps"].as_array().expect("steps") {
        if let Some(command) = step["cmd"].as_str() {
            let (protocol, vip) = match value(command, "-t") {
                Some(vip) => (Protocol::Tcp, vip),
                None => (Protocol::Udp, value(command, "-u").expect("a service")),
            };
            let vip: SocketAddr = vip.parse().expect("an address");
            let key = service(protocol, &vip.ip().to_string(), vip.port());
            current = Some((protocol, key));
            if let Some(name) = value(command, "-s") {
                config.scheduler = Scheduler::from_name(name).expect("one of ours");
                let flags = value(command, "-b").unwrap_or_default();
                config.flags.set(ServiceFlags::SCHED1, flags.contains("-fallback"));
                config.flags.set(ServiceFlags::SCHED2, flags.contains("-port"));
            }
            if let Some(server) = value(command, "-r") {
                let server: SocketAddr = server.parse().expect("an address");
                let weight = value(command, "-w").map_or(1, |w| w.parse().expect("a weight"));
                let ip = server.ip().to_string();
                let new = dest(&ip, server.port(), ForwardMethod::Masquerade, weight);
                let known = dests.iter().position(|dest| dest.key == new.key);
                match (known, command.contains(" -d ")) {
                    (Some(index), true) => drop(dests.remove(index)),
                    (Some(index), false) => dests[index] = new,
                    (None, _) => dests.push(new),
                }
            }
            let edits_service = value(command, "-r").is_none();
            let change = if edits_service { Change::Service } else { Change::Dests };
            bench.change(key, config, &dests, change);
            continue;
        }
        let (protocol, _) = current.expect("a service comes first");
        let packet = step["pkt"].as_array().expect("a packet");
        let at = |address: usize| {
            let ip: IpAddr =
                packet[address].as_str().expect("an address").parse().expect("an address");
            SocketAddr::new(ip, packet[address + 1].as_u64().expect("a port") as u16)
        };
        let (src, dst) = (at(0), at(2));
        bench.run(Hook::Xdp, &build(protocol, src, dst, SYN, b""));
        let mut chosen = "-".to_owned();
        bench.datapath.for_each_conn(&mut |row| {
            if (row.client, row.client_port) == (src.ip(), src.port()) {
                chosen = row.dest.to_string();
            }
            true
        });
        let expected = canonical(step["to"].as_str().expect("a choice"));
        assert_eq!(chosen, expected, "{label}: packet from {src}");
    }
    if let Some((_, key)) = current {
        bench.datapath.remove_service(&key);
    }
    clear(bench);
}

/// The mark of scenarios with a fwmark service.
const MARK: u32 = 7;

/// The scenario's destinations: the kernel's addresses end in 11, 12, 13 ...
fn dests(scenario: &Value, v6: bool) -> Vec<DestConfig> {
    let label = scenario["scenario"].as_str().expect("a label");
    let weights = scenario["weights"].as_array().expect("weights");
    let thresholds = match label {
        l if l.contains("x5-y3") => (5, 3),
        l if l.contains("x5") => (5, 0),
        _ => (0, 0),
    };
    let config = |(index, weight): (usize, &Value)| {
        let last = 11 + index;
        let addr = if v6 { format!("fd01::{last}") } else { format!("10.1.0.{last}") };
        let weight = weight.as_u64().expect("a weight") as u32;
        let mut config = dest(&addr, 80, ForwardMethod::Masquerade, weight);
        (config.upper_threshold, config.lower_threshold) = thresholds;
        config
    };
    weights.iter().enumerate().map(config).collect()
}

fn play(bench: &mut Bench, hook: Hook, scheduler: Scheduler, scenario: &Value) {
    let label = scenario["scenario"].as_str().expect("a label");
    let packets = scenario["packets"].as_array().expect("packets");
    let vip = packets[0][2].as_str().expect("an address");
    let v6 = vip.contains(':');
    let protocol = match scenario["protocol"].as_str() {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let mut flags = ServiceFlags::empty();
    let names = scenario["flags"].as_str().expect("flags");
    flags.set(ServiceFlags::SCHED1, names.contains("-fallback"));
    flags.set(ServiceFlags::SCHED2, names.contains("-port"));
    let config = ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
    let by_mark = label.starts_with("fwm-");
    if by_mark && hook == Hook::Xdp {
        return;
    }
    let family = if v6 { Family::V6 } else { Family::V4 };
    let key = if by_mark { fwmark(family, MARK) } else { service(protocol, vip, 80) };
    let mut dests = dests(scenario, v6);
    bench.service_with(key, config, &dests);
    for (number, packet) in packets.iter().enumerate() {
        if label.contains("midweight") {
            match number {
                10 => dests[3].weight = 4,
                20 => dests[1].weight = 0,
                30 => drop(dests.remove(0)),
                _ => {}
            }
            if matches!(number, 10 | 20 | 30) {
                bench.service_with(key, config, &dests);
            }
        }
        let client: IpAddr = packet[0].as_str().expect("an address").parse().expect("an address");
        let port = packet[1].as_u64().expect("a port") as u16;
        let src = SocketAddr::new(client, port);
        let dst = packet[2].as_str().expect("an address").parse().expect("an address");
        let frame = build(protocol, src, SocketAddr::new(dst, 80), SYN, b"");
        bench.run_marked(hook, &frame, if by_mark { MARK } else { 0 });
        let expected = packet[4].as_str().expect("a choice");
        let mut chosen = "-".to_owned();
        bench.datapath.for_each_conn(&mut |row| {
            if (row.client, row.client_port, row.virtual_addr) == (client, port, dst) {
                chosen = row.dest.to_string();
            }
            true
        });
        // The recording says "none" where the kernel chose .14: asked again, packet for packet, it did
        // (`tests/oracle/recorded/ovf.jsonl`). Whoever listed the connections missed that one.
        let missed = (scheduler, label, number) == (Scheduler::Ovf, "tcpsyn-midweight", 10);
        let expected = if missed { "10.1.0.14" } else { expected };
        assert_eq!(
            chosen,
            canonical(expected),
            "{hook:?} {scheduler} {label} {names} packet {number}"
        );
    }
    bench.datapath.remove_service(&key);
    clear(bench);
}

/// Addresses as Rust writes them.
fn canonical(text: &str) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |addr| addr.to_string())
}

/// Ends every connection at once, as if its time had come.
fn clear(bench: &mut Bench) {
    let maps = bench.datapath.maps();
    let past = rvs_datapath::env::now().0.wrapping_sub(1);
    for conn in maps.conns4.iter().flat_map(|set| &set.ways) {
        conn.expires.set(past);
    }
    for conn in maps.conns6.iter().flat_map(|set| &set.ways) {
        conn.expires.set(past);
    }
    rvs_datapath::sweeper::pass(maps);
    bench.datapath.tick();
    let mut left = HashMap::new();
    bench.datapath.for_each_conn(&mut |row| {
        left.insert((row.client, row.client_port), row.state);
        true
    });
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_same_on_linux_6_1() {
    let tests = ["schedulers_choose_what_the_kernel_chose"];
    let recordings = ["../shared/golden/schedulers.jsonl"];
    linux61::pass(&tests, &recordings);
}
