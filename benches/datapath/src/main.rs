//! What a packet costs in the data path: the real programs, run by `BPF_PROG_TEST_RUN`, against a
//! bare program and one that parses and looks up once, all in the same run and the same rounds.
//!
//! Run by `cargo xtask bench` as root in a network namespace of its own.
#![forbid(unsafe_code)]

mod frames;
mod programs;
mod report;
mod table;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;
use rvs_bench_ebpf::{BARE, Control, INSERT, LOOK_UP, RVS};
use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_XDP, Interface};
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_datapath::Sizes;
use rvs_tests_bpf::frame::{ACK, Flags, SYN, read, read_ip};
use rvs_tests_bpf::{Bench, DIRECTOR, ETH0, Hook, dest, ip, network, service};

use frames::{Client, template};
use programs::{Programs, passed, sent};
use report::Report;

/// Port of all services.
const PORT: u16 = 80;
/// First of the flows that are opened while others live.
const FRESH: u32 = 1 << 22;
/// How many are opened in a round.
const OPENED: u32 = 1 << 16;
/// Established packets in a round.
const REPEAT: u32 = 1 << 18;
/// Packets that have a test run each.
const ALONE: u32 = 2001;
const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

const HELP: &str = "\
Usage: rvs-bench [--rounds N] [--live N,N,...]

  --rounds N      measurements of each figure, of which the median counts (default 5)
  --live N,N,...  live connections, powers of two (default 1,65536,1048576)
";

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

fn main() -> Result<()> {
    let (mut rounds, mut sizes) = (5, vec![1u32, 1 << 16, 1 << 20]);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("rounds") => rounds = parser.value()?.parse()?,
            Long("live") => {
                let text = parser.value()?.string()?;
                sizes = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if sizes.iter().any(|size| !size.is_power_of_two() || *size > FRESH) {
        bail!("--live takes powers of two up to {FRESH}");
    }
    if rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    stay_on_one_cpu()?;
    network();
    ip("route add default via 10.0.0.2");
    ip("route add default via fd01::2");
    let largest = sizes.iter().copied().max().unwrap_or(1);
    let mut bench = Bench::with_sizes(&Sizes {
        connections: (largest * 2).max(OPENED * 4),
        services: 256,
        destinations: 4096,
    });
    let programs = Programs::load(&mut bench, largest + OPENED)?;
    let mut lab = Lab { bench, programs, rounds, alone: 0.0 };
    lab.configure()?;
    println!(
        "Nanoseconds a packet, the wrapper around each program included · ratio to the bare program \
         · ratio to\nparse + one hash look-up (new connections: to the insert), by live connections. \
         Medians of {rounds} rounds.\nTUN by TC: DR, and the difference between the two in runs of \
         one packet.\n"
    );
    for (family, name) in [(Family::V4, "IPv4, 64 bytes"), (Family::V6, "IPv6, 80 bytes")] {
        let mut report = Report::default();
        let mut known = 0;
        for live in &sizes {
            lab.measure(family, known..*live, &mut report)?;
            known = *live;
        }
        print!("{}", report.markdown(name));
    }
    Ok(())
}

/// Moves to the last CPU, for good: the first has most of the machine's interrupts.
fn stay_on_one_cpu() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut set = rustix::thread::CpuSet::new();
    set.set(last);
    rustix::thread::sched_setaffinity(None, &set).context("stay on one CPU")
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
    /// Services, and `eth0` as an interface that XDP sends out of.
    fn configure(&mut self) -> Result<()> {
        // Test runs of XDP need a receive queue that XDP knows: veth has one with GRO.
        let status =
            std::process::Command::new("ethtool").args(["-K", "eth0", "gro", "on"]).status();
        ensure!(status.is_ok_and(|status| status.success()), "ethtool -K eth0 gro on");
        let flags = INTERFACE_KNOWN | INTERFACE_XDP;
        let interface = self.bench.datapath.maps().interfaces.get(ETH0 as usize);
        interface.context("eth0's index")?.set(Interface { mac: DIRECTOR, flags });
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
        Ok(())
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
        ensure!(active == live, "{}: {active} of {live} connections are active", target.row);
        ensure!(table::live(maps, family) == (live * entries) as usize, "{}: entries", target.row);
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
                    ensure!(found == live + OPENED * entries, "{row}: {found} entries");
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
