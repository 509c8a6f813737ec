//! The persistence engine sip against what a real kernel's IPVS did
//! (`tests/oracle/recorded/pe_sip.jsonl`, asked by `tests/oracle/pe_sip.py`): where every datagram
//! goes, of clients and of real servers, and what is listed, through both hooks and natively.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use rvs_core::control::{Change, ConnRow, Datapath};
use rvs_core::sysctl::{self, Kind};
use rvs_core::time::ticks;
use rvs_core::types::{Protocol, ServiceKey, Timeouts};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tests_bpf::frame::{Flags, SYN, build, from_hex, read};
use rvs_tests_bpf::replay::Replay;
use rvs_tests_bpf::{Hook, Verdict, in_namespace, ip, linux61, read_recording};
use serde_json::Value;

/// Seconds by which an expiry may differ: the recording's clock went on while packets were sent and
/// rows read, and UDP's connections are given four.
const SLACK: u32 = 4;

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn socket(addr: &Value, port: &Value) -> SocketAddr {
    let port = port.as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    SocketAddr::new(text(addr).parse().expect("an address"), port)
}

/// A row of `/proc/net/ip_vs_conn` but for the seconds; and the seconds.
type Row = (String, u32);

fn address(hex: &str) -> IpAddr {
    match u32::from_str_radix(hex, 16) {
        Ok(bits) => IpAddr::from(bits.to_be_bytes()),
        Err(_) => hex.parse().expect("an IPv6 address"),
    }
}

fn port(hex: &str) -> u16 {
    u16::from_str_radix(hex, 16).expect("hexadecimal")
}

fn recorded_row(line: &str) -> Row {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = |index: usize| SocketAddr::new(address(words[index]), port(words[index + 1]));
    let engine = words[9..].join(" ");
    let row = format!("{} {} {} {} {} {engine}", words[0], at(1), at(3), at(5), words[7]);
    (row, words[8].parse().expect("seconds"))
}

fn our_row(row: &ConnRow) -> Row {
    let protocol = match row.protocol {
        0 => "IP",
        6 => "TCP",
        _ => "UDP",
    };
    let engine = row.engine.map_or(String::new(), |(engine, data)| {
        format!("{} {}", engine.name(), String::from_utf8_lossy(data.bytes()))
    });
    let client = SocketAddr::new(row.client, row.client_port);
    let service = SocketAddr::new(row.virtual_addr, row.virtual_port);
    let dest = SocketAddr::new(row.dest, row.dest_port);
    (format!("{protocol} {client} {service} {dest} {} {engine}", row.state), row.expires)
}

fn rows_of(datapath: &impl Datapath) -> Vec<Row> {
    let mut rows = Vec::new();
    datapath.for_each_conn(&mut |row| {
        rows.push(our_row(row));
        true
    });
    rows
}

/// The programs and the native core, side by side.
struct Machines {
    replay: Replay,
    sim: SimDatapath,
}

impl Machines {
    fn new(hook: Hook) -> Self {
        let sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 1));
        Self { replay: Replay::new(hook), sim }
    }

    fn command(&mut self, line: &str) {
        if line == "--set 0 0 4" {
            let now = self.sim.timeouts();
            let timeouts = Timeouts { udp: 4, ..now };
            self.sim.set_timeouts(timeouts).expect("it can be set");
            self.replay.bench.datapath.set_timeouts(timeouts).expect("it can be set");
            return;
        }
        self.replay.command(line);
        let change = if line.starts_with("-E") { Change::Service } else { Change::Dests };
        let wanted: Vec<_> = self.replay.services().collect();
        let mut known: HashMap<ServiceKey, _> = HashMap::new();
        self.sim.for_each_service(&mut |key, config, dests| {
            known.insert(*key, (*config, dests.to_vec()));
        });
        for key in known.keys().filter(|key| !wanted.iter().any(|(wanted, ..)| wanted == *key)) {
            self.sim.remove_service(key);
        }
        for (key, config, dests) in wanted {
            if known.get(&key) != Some(&(config, dests.clone())) {
                self.sim.put_service(&key, &config, &dests, change).expect("there is room");
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let (name, kind) =
            sysctl::SETTINGS.into_iter().find(|(known, _)| *known == name).expect("a setting");
        self.replay.set(name, value);
        let (sysctl, value) = Kind::parse(kind, name, value).expect("a value");
        self.sim.set_sysctl(sysctl, value).expect("it can be set");
    }

    /// Deletes all services with their connections, and puts the settings back.
    fn clear(&mut self) {
        self.set("expire_nodest_conn", "1");
        let keys: Vec<ServiceKey> = self.replay.services().map(|(key, ..)| key).collect();
        for key in keys {
            let name = match key {
                ServiceKey::Address { protocol: Protocol::Tcp, addr, port } => {
                    format!("-t {}", SocketAddr::new(addr, port))
                }
                ServiceKey::Address { addr, port, .. } => {
                    format!("-u {}", SocketAddr::new(addr, port))
                }
                ServiceKey::Fwmark { mark, .. } => format!("-f {mark}"),
            };
            self.command(&format!("-D {name}"));
        }
        self.settle();
        for name in ["expire_quiescent_template", "expire_nodest_conn"] {
            self.set(name, "0");
        }
    }

    /// Gives both a frame; what leaves, which is the same but for MAC addresses.
    fn send(&mut self, frame: &[u8], mark: u32, case: &str) -> Option<Vec<u8>> {
        let outcome = self.replay.frame(frame, mark);
        let upper = if frame[12..14] == [0x08, 0] { 14 + 9 } else { 14 + 6 };
        // An ICMP error is sent, too, but not forwarded.
        let sent = outcome.verdict == Verdict::Sent && ![1, 58].contains(&outcome.frame[upper]);
        if mark == 0 {
            let mut native = Frame::new(frame);
            let forwarded = self.sim.maps().run(&mut native) == Outcome::Sent;
            assert_eq!(forwarded, sent, "natively, {case}");
            if sent && outcome.frame[upper] == frame[upper] {
                assert_eq!(native.bytes()[14..], outcome.frame[14..], "natively, {case}");
            }
        }
        sent.then_some(outcome.frame)
    }

    fn pass(&mut self, seconds: f64) {
        let step = ticks((seconds * 10.0) as u32) / 10;
        self.replay.wait(step);
        self.sim.maps().advance(step);
        self.settle();
    }

    /// What has ended goes, and what waited for it.
    fn settle(&mut self) {
        for _ in 0..2 {
            self.replay.sweep();
            self.sim.maps().sweep();
            self.sim.tick();
        }
    }
}

fn datagram(step: &Value) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let (src, dst) = (socket(&step[0], &step[1]), socket(&step[2], &step[3]));
    let payload = from_hex(text(&step[4]));
    (src, dst, build(Protocol::Udp, src, dst, Flags::default(), &payload))
}

/// Rows of this kind are compared: those of the scenario's own service and what it names.
fn compare(ours: Vec<Row>, kernels: &[Row], case: &str) {
    let due = |row: &&Row| row.1 > SLACK || row.0.ends_with("UDP ");
    let like = |a: &Row, b: &Row| a.0 == b.0 && a.1.abs_diff(b.1) <= SLACK;
    let missing = |from: &[Row], to: &[Row]| -> Vec<Row> {
        let missing = from.iter().filter(due).filter(|row| !to.iter().any(|b| like(row, b)));
        missing.cloned().collect()
    };
    let (extra, lacking) = (missing(&ours, kernels), missing(kernels, &ours));
    assert!(
        extra.is_empty() && lacking.is_empty(),
        "{case}\nours: {extra:#?}\nthe kernel's: {lacking:#?}"
    );
}

/// Connections of one client and service that the kernel has twice: a second real server of the same
/// call has sent to the client as well. Here the flow is the later one's.
fn without_earlier(kernels: Vec<Row>, ours: &[Row]) -> (Vec<Row>, bool) {
    let flow = |row: &Row| row.0.split(' ').take(3).map(str::to_owned).collect::<Vec<_>>();
    let is_twice = |row: &Row| {
        row.0.ends_with("UDP ")
            && kernels.iter().filter(|other| flow(other) == flow(row)).count() > 1
    };
    let kept: Vec<Row> = kernels
        .iter()
        .filter(|row| !is_twice(row) || ours.iter().any(|own| own.0 == row.0))
        .cloned()
        .collect();
    let dropped = kept.len() < kernels.len();
    (kept, dropped)
}

fn compare_rows(machines: &mut Machines, scenario: &Value, step: &Value, case: &str) {
    machines.settle();
    let number = scenario["port"].as_u64().expect("a port") as u16;
    let kernels = step["rows"].as_array().expect("rows").iter().map(|row| recorded_row(text(row)));
    let kernels: Vec<Row> = kernels.collect();
    // Scenarios with other services of their own list all of theirs.
    let own = step["dests"].is_object();
    let mine = |rows: Vec<Row>| -> Vec<Row> {
        let port_of = |row: &Row, index: usize| {
            let word = row.0.split(' ').nth(index).expect("an address");
            word.parse::<SocketAddr>().expect("an address").port()
        };
        let is_listed = |row: &Row| {
            if own { port_of(row, 2) == number } else { kernels.iter().any(|k| k.0 == row.0) }
        };
        rows.into_iter().filter(is_listed).collect()
    };
    let ours = mine(rows_of(&machines.replay.bench.datapath));
    let (expected, twice) = without_earlier(kernels.clone(), &ours);
    compare(ours, &expected, case);
    if own {
        compare(mine(rows_of(&machines.sim)), &expected, &format!("natively, {case}"));
    }
    for (addr, theirs) in step["dests"].as_object().into_iter().flatten().filter(|_| !twice) {
        let addr = addr.parse().expect("an address");
        let dest = machines.replay.dest(addr, number).or_else(|| machines.replay.dest(addr, 7070));
        let (method, [weight, active, inactive, _]) = dest.expect("a destination");
        assert_eq!(
            &serde_json::json!([method, weight, active, inactive]),
            theirs,
            "{case}: {addr}"
        );
    }
}

fn play(machines: &mut Machines, scenario: &Value) {
    let name = text(&scenario["scenario"]);
    let (mut masquerades, mut clock) = (true, 0.0);
    for (index, step) in scenario["steps"].as_array().expect("steps").iter().enumerate() {
        let case = format!(
            "{name}, step {index}: {}",
            &step.to_string()[..step.to_string().len().min(300)]
        );
        if let Some(line) = step["cmd"].as_str() {
            // What the kernel refuses the director does; there is no SCTP yet.
            if step["rc"] == 0 && !line.contains("--sctp-service") {
                machines.command(line);
                masquerades &= !line.contains(" -g") && !line.contains(" -i ");
            }
        } else if let Some([name, value]) = step["set"].as_array().map(Vec::as_slice) {
            machines.set(text(name), &value.to_string());
        } else if step["packet"].is_array() {
            let (_, dst, frame) = datagram(&step["packet"]);
            let mark = if dst.ip().to_string().starts_with("10.9.2.") { 7 } else { 0 };
            let sent = machines.send(&frame, mark, &case);
            let to = step["to"].get(0).map(text);
            match sent.filter(|_| masquerades) {
                Some(frame) => {
                    assert_eq!(Some(read(&frame).dst.to_string().as_str()), to, "{case}")
                }
                None if masquerades => assert_eq!(to, None, "{case}"),
                None => {}
            }
        } else if step["reply"].is_array() {
            let (src, _, frame) = datagram(&step["reply"]);
            let seen = text(&step["seen"][0]);
            match machines.send(&frame, 0, &case) {
                Some(frame) => assert_eq!(read(&frame).src.to_string(), seen, "{case}"),
                // The host forwards it as it is.
                None => assert_eq!(src.to_string(), seen, "{case}"),
            }
        } else if step["tcp"].is_array() {
            let (src, dst) = (
                socket(&step["tcp"][0], &step["tcp"][1]),
                socket(&step["tcp"][2], &step["tcp"][3]),
            );
            let mark = if dst.ip().to_string().starts_with("10.9.2.") { 7 } else { 0 };
            let frame = build(Protocol::Tcp, src, dst, SYN, b"");
            assert_eq!(machines.send(&frame, mark, &case), None, "{case}");
            assert_eq!(step["to"], serde_json::json!([]), "{case}");
        } else if step["rows"].is_array() {
            compare_rows(machines, scenario, step, &case);
        } else if let Some(elapsed) = step["elapsed"].as_f64() {
            machines.pass(elapsed - clock);
            clock = elapsed;
        } else if step["payload"].is_string() {
            // All at once, below.
        } else {
            // Listings, which the programs' tests compare.
            let known = ["watch", "sleep", "sn"].iter().any(|word| step.get(word).is_some());
            assert!(known, "{case}");
        }
    }
    payloads(machines, scenario);
}

/// Datagrams of as many clients, and the Call-ID of each one's template.
fn payloads(machines: &mut Machines, scenario: &Value) {
    let steps = scenario["steps"].as_array().expect("steps").iter();
    let vip = socket(&scenario["vip"], &scenario["port"]);
    let mut expected = HashMap::new();
    for (index, step) in steps.filter(|step| step["payload"].is_string()).enumerate() {
        let client = IpAddr::from([10, 2, (index >> 8) as u8, index as u8]);
        let payload = from_hex(text(&step["data"]));
        let frame =
            build(Protocol::Udp, SocketAddr::new(client, 4000), vip, Flags::default(), &payload);
        let sent = machines.send(&frame, 0, &step.to_string()).is_some();
        assert_eq!(Value::from(sent), step["forwarded"], "{step}");
        if let Some(call_id) = step["pe"].as_str() {
            expected.insert(client, from_hex(call_id));
        }
    }
    let mut found = HashMap::new();
    machines.replay.bench.datapath.for_each_conn(&mut |row| {
        if let Some((_, data)) = row.engine.filter(|_| row.virtual_port == vip.port()) {
            found.insert(row.client, data.bytes().to_vec());
        }
        true
    });
    if !expected.is_empty() {
        assert_eq!((found, expected.len()), (expected, 205));
    }
}

fn play_all(hook: Hook) {
    ip("addr add fd00::1/16 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    let lines = read_recording("pe_sip.jsonl");
    let mut machines = Machines::new(hook);
    machines.command("--set 0 0 4");
    let mut played = 0;
    for line in lines.lines() {
        play(&mut machines, &serde_json::from_str(line).expect("JSON"));
        machines.clear();
        played += 1;
    }
    machines.replay.end();
    assert_eq!(played, 33);
}

#[test]
fn calls_go_where_they_go_in_the_kernel_through_xdp() {
    in_namespace("calls_go_where_they_go_in_the_kernel_through_xdp", || play_all(Hook::Xdp));
}

#[test]
fn calls_go_where_they_go_in_the_kernel_through_tc() {
    in_namespace("calls_go_where_they_go_in_the_kernel_through_tc", || play_all(Hook::Tc));
}

#[test]
fn the_same_on_linux_6_1() {
    let tests = [
        "calls_go_where_they_go_in_the_kernel_through_xdp",
        "calls_go_where_they_go_in_the_kernel_through_tc",
    ];
    let recordings = ["tests/oracle/recorded/pe_sip.jsonl"];
    linux61::pass(&tests, &recordings);
}
