//! Which connections `drop_entry` ends, and how fast, against how many of each kind were left on a
//! real kernel (`tests/oracle/recorded/dropentry.jsonl`). Both choose at random.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rvs_tests_bpf::replay::Replay;
use rvs_tests_bpf::{Hook, in_namespace, ip, read_recording};
use serde_json::Value;

/// Connections of a kind.
const OPENED: u16 = 128;

/// Not in force while there is memory, but packets are counted; they would not be with 0.
const WATCHING: &str = "1";

/// Standard deviations of the difference of two such numbers that are taken for chance.
const CHANCE: f64 = 4.5;

fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row[name].as_str().expect("a string")
}

fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|number| number.try_into().ok()).expect("a number")
}

/// Opens the connections of a kind, as a service of its own.
fn open(replay: &mut Replay, row: &Value, port: u16) {
    let (service, options) =
        (format!("{} 10.9.1.1:{port}", text(row, "proto")), text(row, "options"));
    replay.command(&format!("-A {service} -s rr {options}"));
    replay.command(&format!("-a {service} -r 10.1.0.11:{port} -m"));
    let (vip, server) = ([10, 9, 1, 1], [10, 1, 0, 11]);
    let at = |addr: [u8; 4], port| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(addr)), port);
    for number in 0..OPENED {
        // A persistent client has one template.
        let client = if options.is_empty() { [10, 0, 0, 2] } else { [10, 2, 0, number as u8 + 1] };
        let client = at(client, 40_000 + number);
        for packet in row["packets"].as_array().expect("packets") {
            let packet = packet.as_str().expect("a string");
            let sent = match packet.strip_prefix('<') {
                Some(reply) => replay.packet(at(server, port), client, reply),
                None => replay.packet(client, at(vip, port), packet),
            };
            assert!(sent.is_some(), "{row}: {packet}");
        }
    }
}

/// How many connections and templates of each service are left.
fn left(replay: &Replay) -> BTreeMap<u16, [u16; 2]> {
    let mut left = BTreeMap::<u16, [u16; 2]>::new();
    for row in replay.rows() {
        left.entry(row.vip.port()).or_default()[usize::from(row.client.port() == 0)] += 1;
    }
    left
}

/// Whether two numbers that are left of as many differ by chance.
fn by_chance(ours: u16, kernels: u16) -> bool {
    let all = f64::from(OPENED);
    let share = (f64::from(ours) + f64::from(kernels)) / (2.0 * all);
    let deviation = (2.0 * all * share * (1.0 - share)).sqrt();
    f64::from(ours.abs_diff(kernels)) <= CHANCE * deviation
}

/// Plays the rows of one phase, which has the setting on from its start.
fn play(replay: &mut Replay, rows: &[Value], ports: &BTreeMap<String, u16>, on: bool) {
    replay.set("drop_entry", if on { "3" } else { WATCHING });
    let mut passed = 0;
    for row in rows {
        let seconds = row["seconds"].as_f64().expect("a number").round() as u32;
        replay.pass_seconds(seconds - passed);
        passed = seconds;
        let port = ports[text(row, "kind")];
        let ours = left(replay).get(&port).copied().unwrap_or_default();
        for (what, ours) in ours.into_iter().enumerate() {
            let kernels = number(&row["left"][what]);
            // Where the kernel ends none in the whole phase, nothing is left to chance.
            let of_kind = rows.iter().filter(|other| other["kind"] == row["kind"]);
            let least = of_kind.map(|other| number(&other["left"][what])).min().expect("this row");
            let ends = least != 0 && least != OPENED;
            let same = if ends { by_chance(ours, kernels) } else { ours == kernels };
            assert!(same, "{} of {row}: {ours} are left", ["connections", "templates"][what]);
        }
    }
    replay.set("drop_entry", WATCHING);
}

fn play_all(hook: Hook) {
    let text_of = read_recording("dropentry.jsonl");
    let rows: Vec<Value> =
        text_of.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let mut replay = Replay::new(hook);
    // Packets are counted from here on.
    replay.set("amemthresh", "0");
    replay.set("drop_entry", WATCHING);
    let mut ports = BTreeMap::new();
    let mut played = 0;
    for phase in rows.chunk_by(|a, b| a["phase"] == b["phase"]) {
        let name = text(&phase[0], "phase");
        let (wait, on) = match name {
            "off" | "quick" => (0, name == "quick"),
            "on, idle for 20 s" => (20, true),
            "on, idle for 64 s" => (64 - 20 - 24, true),
            other => panic!("phase {other}"),
        };
        for row in phase {
            let kind = text(row, "kind");
            if !ports.contains_key(kind) {
                let port = 2000 + ports.len() as u16;
                ports.insert(kind.to_owned(), port);
                open(&mut replay, row, port);
            }
        }
        replay.pass_seconds(wait);
        play(&mut replay, phase, &ports, on);
        played += phase.len();
    }
    assert_eq!((played, ports.len()), (rows.len(), 24));
    replay.end();
}

#[test]
fn drop_entry_ends_what_the_kernel_ends_and_as_fast() {
    in_namespace("drop_entry_ends_what_the_kernel_ends_and_as_fast", || {
        ip("route add 10.2.0.0/16 via 10.0.0.2");
        [Hook::Xdp, Hook::Tc].into_iter().for_each(play_all);
    });
}
