//! What counts for services and destinations that are deleted and added again while connections of
//! before live on: step by step what Linux 6.1 counted (`tests/oracle/recorded/readd.jsonl`).

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rvs_core::control::{Datapath, Stats};
use rvs_core::time::ticks;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Frame, SimDatapath};
use serde_json::Value;

use common::{Packet, dest, key, put, run, sim};

/// Destinations by service.
type Table = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// Carries out one of the recording's command lines.
fn command(sim: &mut SimDatapath, table: &mut Table, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| -> Option<SocketAddr> {
        let at = words.iter().position(|word| *word == flag)?;
        Some(words[at + 1].parse().expect("an address and a port"))
    };
    let service = after("-t");
    let dests = |table: &mut Table, change: &dyn Fn(&mut Vec<SocketAddr>)| {
        change(table.entry(service.expect("a service")).or_default());
    };
    match words[0] {
        "-A" => dests(table, &|_| {}),
        "-a" => dests(table, &|dests| dests.insert(0, after("-r").expect("a destination"))),
        "-d" => dests(table, &|dests| dests.retain(|dest| Some(*dest) != after("-r"))),
        "-D" => drop(table.remove(&service.expect("a service"))),
        "-C" => table.clear(),
        "-Z" => {
            let zeroed: Vec<_> = service.map_or(table.keys().copied().collect(), |s| vec![s]);
            zeroed.iter().for_each(|service| sim.zero(&key(Protocol::Tcp, *service)));
            if service.is_none() {
                sim.zero_everything();
            }
            return;
        }
        other => panic!("no command {other}"),
    }
    let mut gone = Vec::new();
    sim.for_each_service(&mut |key, _, _| gone.push(*key));
    for service in table.keys() {
        gone.retain(|known| *known != key(Protocol::Tcp, *service));
    }
    for service in gone {
        sim.remove_service(&service);
    }
    if let Some((service, dests)) = service.and_then(|service| table.get_key_value(&service)) {
        let dests: Vec<_> =
            dests.iter().map(|at| dest(*at, ForwardMethod::Masquerade, 1)).collect();
        let (key, flags) = (key(Protocol::Tcp, *service), ServiceFlags::empty());
        put(sim, key, Scheduler::Rr, flags, &dests);
    }
}

fn numbers(stats: Stats) -> Value {
    [stats.conns, stats.in_pkts, stats.out_pkts, stats.in_bytes, stats.out_bytes].to_vec().into()
}

/// Rows as the recording has them.
fn rows(sim: &SimDatapath, table: &Table) -> Value {
    let mut rows = serde_json::Map::new();
    for (service, dests) in table {
        let key = key(Protocol::Tcp, *service);
        rows.insert(format!("TCP {service}"), numbers(sim.service_stats(&key)));
        for at in dests {
            let config = dest(*at, ForwardMethod::Masquerade, 1);
            rows.insert(format!("-> {at}"), numbers(sim.dest_status(&key, &config.key).stats));
        }
    }
    rows.into()
}

#[test]
fn what_comes_back_counts_as_in_the_kernel() {
    let recorded = include_str!("../../../tests/oracle/recorded/readd.jsonl");
    let (mut sim, mut table, mut steps) = (sim(64), Table::new(), 0);
    for line in recorded.lines() {
        let step: Value = serde_json::from_str(line).expect("a line of JSON");
        for line in step["commands"].as_array().expect("commands") {
            command(&mut sim, &mut table, line.as_str().expect("a line"));
            sim.tick();
        }
        for packet in step["packets"].as_array().expect("packets") {
            let hex = packet[1].as_str().expect("hexadecimal");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
            let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
            frame.extend((0..hex.len()).step_by(2).map(byte));
            sim.maps().run(&mut Frame::new(&frame));
        }
        let name = step["step"].as_str().expect("a name");
        assert_eq!(rows(&sim, &table), step["rows"], "{name}");
        let mut cpus = Vec::new();
        let total = sim.everything(&mut |stats| cpus.push(*stats));
        assert_eq!(numbers(total), step["total"], "{name}: total");
        assert_eq!(cpus.into_iter().map(numbers).collect::<Vec<_>>(), [step["cpus"].clone()]);
        steps += 1;
    }
    assert_eq!(steps, 17);
    // Its connections end: what was counted stays.
    let before = sim.everything(&mut |_| {});
    sim.maps().advance(rvs_core::time::ticks(3600));
    for _ in 0..3 {
        sim.maps().sweep();
        sim.tick();
    }
    assert_eq!(sim.everything(&mut |_| {}), before);
}

/// A destination that nothing uses, deleted for so many seconds.
#[test]
fn an_unused_destination_is_remembered_as_long_as_in_the_kernel() {
    let recorded = include_str!("../../../tests/oracle/recorded/readd_idle.jsonl");
    let (vip, server) = (([10, 9, 1, 1], 90).into(), ([10, 1, 0, 14], 90).into());
    let (service, flags) = (key(Protocol::Udp, vip), ServiceFlags::empty());
    let server = dest(server, ForwardMethod::Masquerade, 1);
    for line in recorded.lines() {
        let row: Value = serde_json::from_str(line).expect("a recorded row");
        let mut sim = sim(16);
        put(&mut sim, service, Scheduler::Rr, flags, &[server]);
        for port in 4300..4303 {
            let client = ([10, 0, 0, 2], port).into();
            let packet =
                Packet { payload: vec![0; 5], ..Packet::new(Protocol::Udp, client, vip, 0) };
            run(&sim, &packet);
        }
        sim.maps().advance(ticks(300));
        sim.maps().sweep();
        put(&mut sim, service, Scheduler::Rr, flags, &[]);
        for _ in 0..row["wait"].as_u64().expect("seconds") {
            sim.tick();
            sim.maps().advance(ticks(1));
        }
        put(&mut sim, service, Scheduler::Rr, flags, &[server]);
        assert_eq!(numbers(sim.service_stats(&service)), row["service"], "{line}");
        assert_eq!(numbers(sim.dest_status(&service, &server.key).stats), row["dest"], "{line}");
    }
    assert_eq!(recorded.lines().count(), 6);
}
