//! Settings of `net.ipv4.vs`, and what a SYN does to a connection that is there, against what a real
//! kernel's IPVS did (`tests/oracle/recorded/settings.jsonl`, `reuse.jsonl`).

use std::net::{IpAddr, SocketAddr};

use rvs_core::control::Datapath;
use rvs_core::sysctl::{self, Kind, Sysctl};
use rvs_core::time::ticks;
use rvs_tests_bpf::replay::{Replay, Row};
use rvs_tests_bpf::{Hook, in_namespace, read_recording};
use serde_json::Value;

const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

/// Pages of memory that are left: few enough for the thresholds of the recording.
const MEMORY: u64 = 50_000;

/// Seconds by which an expiry may differ: the recording's clock went on while it was read.
const SLACK: u32 = 2;

fn recording(name: &str) -> Vec<Value> {
    read_recording(name)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|n| n.try_into().ok()).expect("a number")
}

fn socket(addr: &Value, port: &Value) -> SocketAddr {
    let port = u16::try_from(number(port)).expect("a port");
    SocketAddr::new(text(addr).parse().expect("an address"), port)
}

/// The name of a setting as the table of settings has it, and its default.
fn known(name: &str) -> (&'static str, Kind) {
    let mut settings = sysctl::SETTINGS.into_iter();
    settings.find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no setting {name}"))
}

fn value_of(replay: &Replay, name: &str) -> String {
    match known(name).1 {
        Kind::Changes(sysctl) => replay.bench.datapath.sysctl(sysctl).to_string(),
        Kind::Second(first, sysctl, _) => {
            format!("{first}\t{}", replay.bench.datapath.sysctl(sysctl))
        }
    }
}

/// Puts a setting back.
fn reset(replay: &mut Replay, name: &str) {
    let (name, kind) = known(name);
    if let Kind::Changes(sysctl) = kind {
        replay.set(name, &sysctl.default().to_string());
    }
}

/// What of a connection is compared: client's port, destination, state; and apart, its expiry.
type Seen = ((u16, IpAddr, String), u32);

fn seen(row: &Row) -> Seen {
    ((row.client.port(), row.dest.ip(), row.state.clone()), row.expires)
}

fn assert_same(mut ours: Vec<Seen>, mut kernels: Vec<Seen>, case: &str) {
    ours.sort();
    kernels.sort();
    let close = |(a, b): (&Seen, &Seen)| a.0 == b.0 && a.1.abs_diff(b.1) <= SLACK;
    let same = ours.len() == kernels.len() && ours.iter().zip(&kernels).all(close);
    assert!(same, "{case}\nours: {ours:?}\nthe kernel's: {kernels:?}");
}

/// The rows of the service at this port.
fn rows_at(replay: &mut Replay, port: u16) -> Vec<Seen> {
    // While `drop_entry` is in force sweeps end connections at random; see dropentry.rs.
    if replay.bench.datapath.sysctl(Sysctl::DropEntry) < 2 {
        // A template goes once its connections have gone.
        replay.sweep();
        replay.sweep();
    }
    replay.rows().iter().filter(|row| row.vip.port() == port).map(seen).collect()
}

fn compare_rows(replay: &mut Replay, step: &Value, port: u16, case: &str) {
    let kernels = step["rows"].as_array().expect("rows").iter().map(|row| {
        let client = u16::try_from(number(&row[2])).expect("a port");
        let dest = text(&row[3]).parse().expect("an address");
        ((client, dest, text(&row[4]).to_owned()), number(&row[5]))
    });
    assert_same(rows_at(replay, port), kernels.collect(), case);
    for (addr, kernels) in step["dests"].as_object().expect("destinations") {
        let dest = replay.dest(addr.parse().expect("an address"), port);
        let (method, [weight, active, inactive, _]) = dest.expect("a destination");
        let ours = serde_json::json!([method, weight, active, inactive]);
        assert_eq!(&ours, kernels, "{case}: {addr}");
    }
}

fn play(replay: &mut Replay, scenario: &Value) {
    let name = text(&scenario["scenario"]);
    let (mut service, mut port, mut direct) = (String::new(), 0, false);
    let mut touched = Vec::new();
    for (index, step) in scenario["steps"].as_array().expect("steps").iter().enumerate() {
        let case = format!("{name}, step {index}: {step}");
        if let Some(command) = step["cmd"].as_str() {
            replay.command(command);
            let words: Vec<&str> = command.split(' ').collect();
            service = words[1..3].join(" ");
            port = words[2].parse::<SocketAddr>().expect("an address").port();
            direct |= words.contains(&"-g");
        } else if let Some([setting, value]) = step["set"].as_array().map(Vec::as_slice) {
            replay.set(known(text(setting)).0, &value.to_string());
            touched.push(text(setting));
        } else if let Some(seconds) = step["sleep"].as_f64() {
            replay.wait(ticks((seconds * 10.0) as u32) / 10);
        } else if let Some(packet) = step["packet"].as_array() {
            let (src, dst) = (socket(&packet[0], &packet[1]), socket(&packet[2], &packet[3]));
            let to = replay.packet(src, dst, text(&packet[4])).map(|at| at.ip());
            let expected = step["to"].get(0).map(|to| text(to).parse().expect("an address"));
            match dst.port() == port {
                true if direct => assert_eq!(to.is_some(), expected.is_some(), "{case}"),
                true => assert_eq!(to, expected, "{case}"),
                // A reply; one of no connection is the host's to forward.
                false => {}
            }
        } else if step["rows"].is_array() {
            compare_rows(replay, step, port, &case);
        } else {
            let (name, value) = step.as_object().and_then(|step| step.iter().next()).expect("one");
            let name = if name == "later" {
                // The recording waited for the kernel's next look; rvsd looks every second.
                replay.bench.datapath.defend(MEMORY);
                replay.wait(ticks(25) / 10);
                scenario["scenario"].as_str().and_then(|s| s.split('=').next()).expect("a name")
            } else {
                name
            };
            assert_eq!(value_of(replay, name), text(value), "{case}");
        }
    }
    replay.command(&format!("-D {service}"));
    for name in touched {
        reset(replay, name);
    }
}

fn play_all(hook: Hook) {
    let mut replay = Replay::new(hook);
    replay.bench.datapath.defend(MEMORY);
    let mut played = 0;
    for scenario in recording("settings.jsonl") {
        play(&mut replay, &scenario);
        played += 1;
    }
    assert_eq!(played, 69);
    replay.end();
}

#[test]
fn settings_do_to_packets_what_they_do_in_the_kernel() {
    in_namespace("settings_do_to_packets_what_they_do_in_the_kernel", || {
        HOOKS.into_iter().for_each(play_all);
    });
}

/// The change of the configuration that a line of `reuse.jsonl` is about.
fn change(replay: &mut Replay, what: &str, port: u16, first: &str, other: &str, method: &str) {
    let (service, dest) = (format!("-t 10.9.1.1:{port}"), |addr: &str| format!("{addr}:{port}"));
    let quiesce = |addr: &str| format!("-e {service} -r {} {method} -w 0", dest(addr));
    let commands = match what {
        "none" => vec![],
        "weight0" => vec![quiesce(first)],
        "all weight0" => vec![quiesce(first), quiesce(other)],
        "deleted" => vec![format!("-d {service} -r {}", dest(first))],
        "deleted+readded" => vec![
            format!("-d {service} -r {}", dest(first)),
            format!("-a {service} -r {} {method} -w 1", dest(first)),
        ],
        "service deleted" => vec![format!("-D {service}")],
        other => panic!("change {other}"),
    };
    commands.iter().for_each(|command| replay.command(command));
}

fn reuse(replay: &mut Replay, line: &Value, port: u16) {
    let case = format!("{line}");
    for (name, value) in line["sysctl"].as_object().expect("settings") {
        replay.set(known(name).0, &value.to_string());
    }
    let method = text(&line["forward"]);
    let vip: SocketAddr = format!("10.9.1.1:{port}").parse().expect("an address");
    let client: SocketAddr = "10.0.0.2:40000".parse().expect("an address");
    // Round robin begins with the destination that was added last.
    let (first, other) = ("10.1.0.12", "10.1.0.11");
    replay.command(&format!("-A -t {vip} -s rr"));
    for addr in [other, first] {
        replay.command(&format!("-a -t {vip} -r {addr}:{port} {method} -w 1"));
    }
    for step in line["path"].as_array().expect("a path") {
        let flags = text(&step[1]);
        if text(&step[0]) == "in" {
            replay.packet(client, vip, flags).expect("it is forwarded");
        } else {
            let server = SocketAddr::new(first.parse().expect("an address"), port);
            replay.packet(server, client, flags).expect("it is forwarded");
        }
    }
    change(replay, text(&line["change"]), port, first, other, method);
    let named = |who: &Value| if text(who) == "first" { first } else { other };
    for answer in ["first_packet", "same_packet_again"] {
        let to = replay.packet(client, vip, text(&line["packet"])).map(|at| at.ip().to_string());
        let expected = line[answer]["to_server"].get(0).map(named);
        assert_eq!(to.is_some(), expected.is_some(), "{answer}: {case}");
        if method == "-m" {
            assert_eq!(to.as_deref(), expected, "{answer}: {case}");
        }
        let rows = line[answer]["conns"].as_array().expect("rows").iter();
        // What was just replaced may still be listed, with nothing left.
        let rows = rows.filter(|row| number(&row[2]) > 0).map(|row| {
            let dest = named(&row[0]).parse().expect("an address");
            ((client.port(), dest, text(&row[1]).to_owned()), number(&row[2]))
        });
        assert_same(rows_at(replay, port), rows.collect(), &format!("{answer}: {case}"));
    }
    for (who, kernels) in line["dests"].as_object().expect("destinations") {
        let addr = named(&Value::from(who.as_str())).parse().expect("an address");
        let (method, [weight, active, inactive, _]) = replay.dest(addr, port).expect("it is there");
        let ours = serde_json::json!([method, weight, active, inactive]);
        assert_eq!(&ours, kernels, "{who}: {case}");
    }
    if text(&line["change"]) != "service deleted" {
        replay.command(&format!("-D -t {vip}"));
    }
}

#[test]
fn packets_of_old_connections_go_where_they_go_in_the_kernel() {
    in_namespace("packets_of_old_connections_go_where_they_go_in_the_kernel", || {
        for hook in HOOKS {
            let mut replay = Replay::new(hook);
            let lines = recording("reuse.jsonl");
            // Without any service at all the kernel looks at no packet: the host resets the
            // connection. Here it waits for its service as after any other deletion.
            let lines: Vec<&Value> = lines
                .iter()
                .filter(|line| !text(&line["state"]).contains("last service"))
                .collect();
            assert_eq!(lines.len(), 157);
            for (line, port) in lines.into_iter().zip(2001..) {
                reuse(&mut replay, line, port);
            }
            replay.set("expire_nodest_conn", "0");
            replay.end();
        }
    });
}
