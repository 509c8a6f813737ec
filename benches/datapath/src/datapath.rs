//! What a packet costs by row, family, hook and number of live connections: against a bare program
//! and one that parses and looks up once.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use rvs_bench_ebpf::{BARE, Control, INSERT, LOOK_UP, RVS};
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, Flags, SYN, read, read_ip};
use rvs_tests_bpf::{Bench, Hook, dest, service};

use crate::Measured;
use crate::frames::{self, Client, template};
use crate::programs::{Programs, passed, sent};
use crate::report::{self, Report};
use crate::stage::{FRESH, PORT, Room, Stage};
use crate::table;

/// How many are opened in a round.
const OPENED: u32 = 1 << 16;
/// Established packets in a round.
const REPEAT: u32 = 1 << 18;
/// Packets that have a test run each.
const ALONE: u32 = 2001;
const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

/// A virtual service with its one destination, or the last with sixteen.
struct Target {
    row: &'static str,
    method: ForwardMethod,
    vip: [&'static str; 2],
    server: [&'static str; 2],
}

const TARGETS: [Target; 3] = [
    Target {
        row: "established, DR",
        method: ForwardMethod::DirectRoute,
        vip: ["10.200.0.1", "fd20::1"],
        server: ["10.0.0.11", "fd01::b"],
    },
    Target {
        row: "established, NAT in",
        method: ForwardMethod::Masquerade,
        vip: ["10.200.0.2", "fd20::2"],
        server: ["10.0.0.12", "fd01::c"],
    },
    Target {
        row: "established, TUN",
        method: ForwardMethod::Tunnel,
        vip: ["10.200.0.3", "fd20::3"],
        server: ["10.0.0.13", "fd01::d"],
    },
];
/// Services with 16 destinations, wlc.
const CROWDED: [(&str, ForwardMethod, [&str; 2]); 2] = [
    ("new, DR, wlc of 16", ForwardMethod::DirectRoute, ["10.200.0.4", "fd20::4"]),
    ("new, NAT, wlc of 16", ForwardMethod::Masquerade, ["10.200.0.5", "fd20::5"]),
];
/// An address that is no service's, on the same port.
const STRANGER: [&str; 2] = ["10.200.0.9", "fd20::9"];

/// Measures all rows `rounds` times with each number of live connections, and prints their tables.
pub fn run(rounds: u32, sizes: &[u32]) -> Result<Measured> {
    let largest = sizes.iter().copied().max().unwrap_or(1);
    let connections = (largest * 2).max(OPENED * 4);
    let Stage { bench, programs } = Stage::new(&Room {
        connections,
        services: 256,
        destinations: 4096,
        flows: largest + OPENED,
    })?;
    let mut lab = Lab { bench, programs, rounds, alone: 0.0 };
    lab.configure();
    println!(
        "Nanoseconds a packet, the wrapper around each program included · ratio to the bare program \
         · ratio to\nparse + one hash look-up (new connections: to the insert), by live connections. \
         Medians of {rounds} rounds.\nTUN by TC: DR, and the difference between the two in runs of \
         one packet.\n"
    );
    let mut measured = Measured::new();
    for (family, name) in [(Family::V4, "IPv4, 64 bytes"), (Family::V6, "IPv6, 80 bytes")] {
        let mut report = Report::default();
        let mut known = 0;
        for live in sizes {
            lab.measure(family, known..*live, &mut report)?;
            known = *live;
        }
        print!("{}", report.markdown(name));
        measured.extend(report.medians(if family == Family::V4 {
            "datapath/4"
        } else {
            "datapath/6"
        }));
    }
    Ok(measured)
}

fn at(addrs: [&str; 2], family: Family) -> SocketAddr {
    SocketAddr::new(addrs[frames::index(family)].parse().expect("a literal"), PORT)
}

/// A template, for one program.
fn runs(program: u32, template: Control) -> Control {
    Control { program, ..template }
}

struct Lab {
    bench: Bench,
    programs: Programs,
    rounds: u32,
    /// What direct routing by TC cost when each packet had a test run, and an skb, of its own.
    alone: f64,
}

impl Lab {
    /// The services.
    fn configure(&mut self) {
        for family in 0..2 {
            for target in &TARGETS {
                let dests = [dest(target.server[family], PORT, target.method, 1)];
                let key = service(Protocol::Tcp, target.vip[family], PORT);
                self.bench.service(key, Scheduler::Rr, &dests);
            }
            for (_, method, vips) in CROWDED {
                let server = |number| match family {
                    0 => format!("10.0.0.{}", 20 + number),
                    _ => format!("fd01::{:x}", 20 + number),
                };
                let dests = (0..16).map(|number| dest(&server(number), PORT, method, 1));
                let key = service(Protocol::Tcp, vips[family], PORT);
                self.bench.service(key, Scheduler::Wlc, &dests.collect::<Vec<_>>());
            }
        }
    }

    /// All rows with `flows.end` live connections, of which the hash has `flows.start` already.
    fn measure(
        &mut self,
        family: Family,
        flows: std::ops::Range<u32>,
        report: &mut Report,
    ) -> Result<()> {
        let live = flows.end;
        let known = template(at(TARGETS[0].vip, family), Client::Sends, ACK);
        self.programs.enter(family, &known, flows)?;
        let known = Control { mask: live - 1, ..known };
        for target in &TARGETS {
            table::clear(self.bench.datapath.maps(), family, 0);
            let vip = at(target.vip, family);
            let inward = Control { mask: live - 1, ..template(vip, Client::Sends, ACK) };
            let server = at(target.server, family);
            let outward = Control { mask: live - 1, ..template(server, Client::Receives, ACK) };
            self.establish(family, target, live)?;
            for _ in 0..self.rounds {
                for hook in HOOKS {
                    if hook == Hook::Tc && target.method == ForwardMethod::Tunnel {
                        // The kernel gives an skb one outer header, which nothing takes off again.
                        let more = self.alone(family, &inward)? - self.alone;
                        let flat = report.median(TARGETS[0].row, true, live).unwrap_or_default();
                        report.add(target.row, hook, live, flat + more);
                        continue;
                    }
                    let mut cost = |row, control: Control, verdict| -> Result<()> {
                        let run = self.programs.run(hook, family, &control, REPEAT)?;
                        ensure!(run.verdict == verdict, "{row}, {hook:?}: verdict {}", run.verdict);
                        report.add(row, hook, live, run.nanos);
                        Ok(())
                    };
                    cost(report::BARE, runs(BARE, known), sent(hook))?;
                    cost(report::LOOK_UP, runs(LOOK_UP, known), sent(hook))?;
                    cost(target.row, runs(RVS, inward), sent(hook))?;
                    if target.method == ForwardMethod::Masquerade {
                        cost("established, NAT out", runs(RVS, outward), sent(hook))?;
                    }
                    if target.method == ForwardMethod::DirectRoute {
                        let stranger = template(at(STRANGER, family), Client::Sends, ACK);
                        let stranger = Control { mask: live - 1, ..stranger };
                        cost("not ours", runs(RVS, stranger), passed(hook))?;
                    }
                }
            }
            self.check(family, target, &inward, &outward)?;
            if target.method == ForwardMethod::DirectRoute {
                self.alone = self.alone(family, &inward)?;
                self.open(family, live, report)?;
            }
        }
        Ok(())
    }

    /// Median cost by TC of packets that have a test run each.
    fn alone(&mut self, family: Family, template: &Control) -> Result<f64> {
        let mut samples = Vec::new();
        for number in 1..=ALONE {
            let random = number.wrapping_mul(0x9e37_79b9);
            let control = Control { program: RVS, random, ..*template };
            let run = self.programs.run(Hook::Tc, family, &control, 1)?;
            ensure!(run.verdict == sent(Hook::Tc), "verdict {}", run.verdict);
            samples.push(run.nanos);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples[samples.len() / 2])
    }

    /// Opens `live` connections to the target and establishes them.
    fn establish(&mut self, family: Family, target: &Target, live: u32) -> Result<()> {
        let vip = at(target.vip, family);
        let both = Flags { syn: true, ack: true, ..Flags::default() };
        let mut steps = vec![template(vip, Client::Sends, SYN)];
        if target.method == ForwardMethod::Masquerade {
            steps.push(template(at(target.server, family), Client::Receives, both));
        }
        steps.push(template(vip, Client::Sends, ACK));
        for step in steps {
            let step = Control { program: RVS, mask: live - 1, in_turn: 1, ..step };
            self.programs.run(Hook::Xdp, family, &step, live)?;
        }
        let maps = self.bench.datapath.maps();
        let active: u32 = maps.dests.iter().map(|dest| dest.active.get()).sum();
        let entries = if target.method == ForwardMethod::Masquerade { 2 } else { 1 };
        ensure!(table::holds(active, live), "{}: {active} of {live} are active", target.row);
        let found = table::live(maps, family) as u32;
        ensure!(table::holds(found, live * entries), "{}: {found} entries", target.row);
        Ok(())
    }

    /// New connections beside those that live, which stay.
    fn open(&mut self, family: Family, live: u32, report: &mut Report) -> Result<()> {
        let fresh = |vip: [&str; 2], program| Control {
            program,
            first: FRESH,
            mask: u32::MAX,
            in_turn: 1,
            ..template(at(vip, family), Client::Sends, SYN)
        };
        for _ in 0..self.rounds {
            for hook in HOOKS {
                let control = fresh(TARGETS[0].vip, INSERT);
                let run = self.programs.run(hook, family, &control, OPENED)?;
                report.add(report::INSERT, hook, live, run.nanos);
                self.programs.remove(family, &control, FRESH..FRESH + OPENED)?;
                for (row, method, vip) in CROWDED {
                    let run = self.programs.run(hook, family, &fresh(vip, RVS), OPENED)?;
                    ensure!(run.verdict == sent(hook), "{row}: verdict {}", run.verdict);
                    let entries = if method == ForwardMethod::Masquerade { 2 } else { 1 };
                    let maps = self.bench.datapath.maps();
                    let found = table::live(maps, family) as u32;
                    ensure!(table::holds(found, live + OPENED * entries), "{row}: {found} entries");
                    report.add(row, hook, live, run.nanos);
                    table::clear(maps, family, FRESH);
                    for dest in maps.dests.iter().filter(|dest| dest.inactive.get() != 0) {
                        dest.inactive.set(0);
                    }
                }
            }
        }
        Ok(())
    }

    /// That what was measured did its work: one packet each way, its addresses and checksums right.
    fn check(
        &mut self,
        family: Family,
        target: &Target,
        inward: &Control,
        outward: &Control,
    ) -> Result<()> {
        for hook in HOOKS {
            let run = self.programs.run(hook, family, &runs(RVS, *inward), 1)?;
            let outer = match (target.method, family) {
                (ForwardMethod::Tunnel, Family::V4) => 20,
                (ForwardMethod::Tunnel, Family::V6) => 40,
                _ => 0,
            };
            ensure!(run.frame.len() == frames::len(family) + outer, "{}: length", target.row);
            let packet = read_ip(&run.frame[14 + outer..]);
            let masqueraded = target.method == ForwardMethod::Masquerade;
            let dst = if masqueraded { target.server } else { target.vip };
            ensure!(packet.dst == at(dst, family), "{}: {packet:?}", target.row);
            ensure!(packet.ttl == 63, "{}: {packet:?}", target.row);
            if masqueraded {
                let run = self.programs.run(hook, family, &runs(RVS, *outward), 1)?;
                let packet = read(&run.frame);
                ensure!(packet.src == at(target.vip, family), "{}: {packet:?}", target.row);
            }
        }
        Ok(())
    }
}
