//! An INIT from the same address and port again, as a real kernel's IPVS took it
//! (`tests/oracle/recorded/sctp_reuse.jsonl`, by `sctp.py`).

use std::net::SocketAddr;

use rvs_core::control::{Change, Datapath};
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags};
use rvs_tests_bpf::sctp::build;
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, read_recording, service};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// Round robin begins with the destination that was added last.
const ADDRS: [(&str, &str); 2] = [("first", "10.1.0.12"), ("other", "10.1.0.11")];

fn addr_of(who: &str) -> &'static str {
    ADDRS.into_iter().find(|(name, _)| *name == who).expect("one of the two").1
}

fn name_of(addr: &str) -> &'static str {
    ADDRS.into_iter().find(|(_, known)| *known == addr).expect("one of the two").0
}

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

/// Gives the frame to the hook, and to TC what XDP passes; whether it went on.
fn forwarded(bench: &mut Bench, hook: Hook, frame: &[u8]) -> bool {
    let mut outcome = bench.run(hook, frame);
    if hook == Hook::Xdp && outcome.verdict == Verdict::Pass {
        outcome = bench.run(Hook::Tc, frame);
    }
    outcome.verdict == Verdict::Sent && outcome.frame[14 + 9] == 132
}

fn play(bench: &mut Bench, hook: Hook, line: &Value, port: u16) {
    for (name, value) in line["sysctl"].as_object().expect("settings") {
        let sysctl = Sysctl::ALL.iter().find(|sysctl| sysctl.name() == name).expect("a setting");
        let value = value.as_i64().expect("a number") as i32;
        bench.datapath.set_sysctl(*sysctl, value).expect("it can be set");
    }
    let masquerade = line["forward"] == "-m";
    let method = if masquerade { ForwardMethod::Masquerade } else { ForwardMethod::DirectRoute };
    let persistent = line["persistent"] == true;
    let flags = if persistent { ServiceFlags::PERSISTENT } else { ServiceFlags::empty() };
    let config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags,
        timeout: 60,
        netmask: u32::MAX,
        engine: None,
    };
    let (key, vip) = (service(Protocol::Sctp, "10.9.1.1", port), at("10.9.1.1", port));
    let client = at("10.0.0.2", 40000);
    let dest_of = |who: &str, weight| dest(addr_of(who), port, method, weight);
    bench.service_with(key, config, &[dest_of("other", 1), dest_of("first", 1)]);
    for step in line["path"].as_array().expect("a path") {
        let chunk = number(&step[1]) as u8;
        let frame = if step[0] == "in" {
            build(client, vip, chunk)
        } else {
            build(at(addr_of("first"), port), client, chunk)
        };
        assert!(forwarded(bench, hook, &frame), "{line}");
    }
    match text(&line["change"]) {
        "none" => {}
        "weight0" => {
            let dests = [dest_of("other", 1), dest_of("first", 0)];
            bench.change(key, config, &dests, Change::Dests);
        }
        "deleted" => bench.change(key, config, &[dest_of("other", 1)], Change::Dests),
        other => panic!("change {other}"),
    }
    for answer in ["first_packet", "same_packet_again"] {
        let frame = build(client, vip, number(&line["packet"]) as u8);
        let went = forwarded(bench, hook, &frame);
        let kernels = line[answer]["to_server"].as_array().expect("servers");
        assert_eq!(went, !kernels.is_empty(), "{hook:?} {answer}: {line}");
        let mut rows = Vec::new();
        bench.datapath.for_each_conn(&mut |row| {
            if row.virtual_port == port && row.client_port != 0 {
                rows.push((name_of(&row.dest.to_string()), row.state, u64::from(row.expires)));
            }
            true
        });
        // What was just replaced may still be listed by the kernel, with nothing left.
        let kernels = line[answer]["conns"].as_array().expect("rows").iter();
        let kernels: Vec<_> = kernels
            .filter(|row| number(&row[2]) > 0)
            .map(|row| (text(&row[0]), text(&row[1]), number(&row[2])))
            .collect();
        assert_eq!(rows.len(), kernels.len(), "{hook:?} {answer}: {rows:?} {line}");
        for (ours, kernels) in rows.iter().zip(&kernels) {
            assert_eq!((ours.0, ours.1), (kernels.0, kernels.1), "{hook:?} {answer}: {line}");
            assert!(ours.2.abs_diff(kernels.2) <= 2, "{ours:?} {hook:?} {answer}: {line}");
        }
    }
    for (who, kernels) in line["dests"].as_object().expect("destinations") {
        let status = bench.datapath.dest_status(&key, &dest_of(who, 1).key);
        let counts = json!([status.active_conns, status.inactive_conns]);
        assert_eq!(counts, json!([kernels[2], kernels[3]]), "{who}: {hook:?} {line}");
    }
    bench.datapath.remove_service(&key);
}

#[test]
fn an_init_again_goes_where_it_goes_in_the_kernel() {
    in_namespace("an_init_again_goes_where_it_goes_in_the_kernel", || {
        let recording = read_recording("sctp_reuse.jsonl");
        for hook in [Hook::Tc, Hook::Xdp] {
            let mut bench = Bench::new();
            let mut played = 0;
            for (line, port) in recording.lines().zip(2001..) {
                play(&mut bench, hook, &serde_json::from_str(line).expect("JSON"), port);
                played += 1;
            }
            assert_eq!(played, 61);
        }
    });
}
