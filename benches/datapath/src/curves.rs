//! The cost of a packet as it grows: by flows, by services and by the destinations of a service.
//! Measurements are named `curves/FIGURE/SERIES/X`, in nanoseconds.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rvs_bench_ebpf::{BARE, Control, INSERT, LOOK_UP, RVS};
use rvs_core::control::{Change, Datapath as _};
use rvs_core::types::{
    Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_tests_bpf::frame::{ACK, SYN};
use rvs_tests_bpf::{Hook, dest, service};

use crate::frames::{Client, template};
use crate::programs::{passed, sent};
use crate::stage::{PORT, Room, Stage};
use crate::{Measured, median, table};

/// The service whose packets are measured; others have addresses of 10.201.0.0 and up.
const VIP: &str = "10.200.0.1";
/// An address that is no service's.
const STRANGER: &str = "10.200.0.9";
/// First of the flows that are opened while others live.
const FRESH: u32 = 1 << 24;
/// How many are opened in a sample.
const OPENED: u32 = 1 << 12;
const REPEAT: u32 = 1 << 18;
const SCHEDULERS: [(Scheduler, &str); 5] = [
    (Scheduler::Rr, "rr"),
    (Scheduler::Wrr, "wrr"),
    (Scheduler::Lc, "lc"),
    (Scheduler::Wlc, "wlc"),
    (Scheduler::Sh, "sh"),
];

/// Measures all curves and prints their points.
pub fn run(rounds: u32, quick: bool) -> Result<Measured> {
    let powers = |to: u32, step: usize| (0..=to).step_by(step).map(|power| 1u32 << power);
    let tens = |to: u32| (0..=to).map(|power| 10u32.pow(power)).collect::<Vec<_>>();
    let flows: Vec<u32> =
        powers(if quick { 12 } else { 23 }, 4).chain((!quick).then_some(1 << 23)).collect();
    let (services, dests) = if quick { (tens(2), tens(3)) } else { (tens(5), tens(4)) };
    let most = |list: &[u32]| list.last().copied().unwrap_or(1);
    let mut curves = Curves {
        stage: Stage::new(&Room {
            connections: most(&flows).max(1 << 16),
            services: most(&services) + 16,
            destinations: most(&services) + most(&dests) * 2 + 16,
            flows: most(&flows) + OPENED,
        })?,
        rounds,
        measured: Measured::new(),
    };
    curves.by_flows(&flows)?;
    curves.by_destinations(&dests)?;
    curves.by_services(&services)?;
    println!("Nanoseconds a packet, IPv4, XDP, the wrapper included; medians of {rounds}.\n");
    println!("| by | row | number | ns |\n|---|---|---:|---:|");
    for (name, nanos) in &curves.measured {
        let cells = name.trim_start_matches("curves/").replace('/', " | ");
        println!("| {cells} | {nanos:.0} |");
    }
    Ok(curves.measured)
}

struct Curves {
    stage: Stage,
    rounds: u32,
    measured: Measured,
}

impl Curves {
    fn put(&mut self, key: ServiceKey, scheduler: Scheduler, dests: u32) -> Result<()> {
        let flags = ServiceFlags::empty();
        let config =
            ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
        // Behind the default route, whose neighbour is known.
        let addr = |n: u32| format!("11.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        let server = |n| dest(&addr(n + 1), PORT, ForwardMethod::DirectRoute, 1);
        let dests: Vec<_> = (0..dests).map(server).collect();
        let datapath = &mut self.stage.bench.datapath;
        datapath.put_service(&key, &config, &dests, Change::Dests).context("put the service")?;
        datapath.take_new();
        Ok(())
    }

    /// Adds the median cost of a program's packets. New connections are forgotten again.
    fn cost(&mut self, name: String, control: Control, repeat: u32, verdict: u32) -> Result<()> {
        let mut samples = Vec::new();
        for _ in 0..self.rounds {
            let run = self.stage.programs.run(Hook::Xdp, Family::V4, &control, repeat)?;
            ensure!(run.verdict == verdict, "{name}: verdict {}", run.verdict);
            samples.push(run.nanos);
            if control.first == FRESH {
                let maps = self.stage.bench.datapath.maps();
                table::clear(maps, Family::V4, FRESH);
                for dest in maps.dests.iter().filter(|dest| dest.inactive.get() != 0) {
                    dest.inactive.set(0);
                }
            }
        }
        self.measured.insert(format!("curves/{name}"), median(samples));
        Ok(())
    }

    fn by_flows(&mut self, flows: &[u32]) -> Result<()> {
        let vip: SocketAddr = format!("{VIP}:{PORT}").parse()?;
        let key = service(Protocol::Tcp, VIP, PORT);
        self.put(key, Scheduler::Rr, 1)?;
        let known = template(vip, Client::Sends, ACK);
        let stranger = template(format!("{STRANGER}:{PORT}").parse()?, Client::Sends, ACK);
        let mut first = 0;
        for live in flows.iter().copied() {
            self.stage.establish(vip, None, first..live)?;
            let entered = Control { program: INSERT, first, mask: u32::MAX, in_turn: 1, ..known };
            self.stage.programs.run(Hook::Xdp, Family::V4, &entered, live - first)?;
            first = live;
            let of = |program, template| Control { program, mask: live - 1, ..template };
            let all = sent(Hook::Xdp);
            self.cost(format!("flows/bare/{live}"), of(BARE, known), REPEAT, all)?;
            let look_up = of(LOOK_UP, known);
            self.cost(format!("flows/parse + one hash look-up/{live}"), look_up, REPEAT, all)?;
            self.cost(format!("flows/established, DR/{live}"), of(RVS, known), REPEAT, all)?;
            let stranger = of(RVS, stranger);
            self.cost(format!("flows/not ours/{live}"), stranger, REPEAT, passed(Hook::Xdp))?;
        }
        table::clear(self.stage.bench.datapath.maps(), Family::V4, 0);
        self.stage.bench.datapath.remove_service(&key);
        Ok(())
    }

    /// New connections, and one that is established.
    fn packets(&mut self, figure: &str, row: &str, number: u32) -> Result<()> {
        let vip: SocketAddr = format!("{VIP}:{PORT}").parse()?;
        let syn = template(vip, Client::Sends, SYN);
        let fresh = Control { program: RVS, first: FRESH, mask: u32::MAX, in_turn: 1, ..syn };
        self.cost(format!("{figure}/new, DR, {row}/{number}"), fresh, OPENED, sent(Hook::Xdp))
    }

    fn by_destinations(&mut self, dests: &[u32]) -> Result<()> {
        let key = service(Protocol::Tcp, VIP, PORT);
        for number in dests.iter().copied() {
            for (scheduler, name) in SCHEDULERS {
                self.put(key, scheduler, number)?;
                self.packets("destinations", name, number)?;
                self.stage.bench.datapath.remove_service(&key);
            }
        }
        Ok(())
    }

    fn by_services(&mut self, services: &[u32]) -> Result<()> {
        let vip: SocketAddr = format!("{VIP}:{PORT}").parse()?;
        let stranger = template(format!("{STRANGER}:{PORT}").parse()?, Client::Sends, ACK);
        self.put(service(Protocol::Tcp, VIP, PORT), Scheduler::Rr, 1)?;
        let mut there = 1;
        for number in services.iter().copied() {
            for n in there..number {
                let addr = format!("10.{}.{}.{}", 201 + (n >> 16), n >> 8 & 255, n & 255);
                self.put(service(Protocol::Tcp, &addr, PORT), Scheduler::Rr, 1)?;
            }
            there = number;
            self.stage.establish(vip, None, 0..1)?;
            let known = Control { program: RVS, ..template(vip, Client::Sends, ACK) };
            let all = sent(Hook::Xdp);
            self.cost(format!("services/established, DR/{number}"), known, REPEAT, all)?;
            let stranger = Control { program: RVS, ..stranger };
            let passed = passed(Hook::Xdp);
            self.cost(format!("services/not ours/{number}"), stranger, REPEAT, passed)?;
            self.packets("services", "rr", number)?;
        }
        Ok(())
    }
}
