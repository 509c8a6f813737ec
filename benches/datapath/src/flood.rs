//! SYNs from random sources to a table that is full: what one costs against a new connection in a
//! table with room, whether established connections survive, and whether clients who mean it still
//! get in while the flood goes on.

use anyhow::{Result, ensure};
use rvs_bench_ebpf::{Control, RVS};
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, SYN};
use rvs_tests_bpf::{Hook, dest, service};

use crate::frames::{Client, template};
use crate::programs::sent;
use crate::stage::{PORT, Room, Stage};
use crate::{Measured, median, table};

const VIP: &str = "10.200.0.1";
/// First of the legitimate flows that come during the flood.
const LEGITIMATE: u32 = 1 << 20;
/// First of the flood's; it draws from so many that hardly one comes twice.
const FLOOD: u32 = 1 << 24;
const SOURCES: u32 = 1 << 31;

/// Measures, and prints a table.
pub fn run(rounds: u32, quick: bool) -> Result<Measured> {
    let (connections, clients) = if quick { (1 << 12, 100) } else { (1 << 18, 1000) };
    // Four entries are made for each connection.
    let (entries, live) = (connections * 4, connections / 4);
    let mut stage = Stage::new(&Room { connections, services: 256, destinations: 4096, flows: 1 })?;
    let dests = (0..16)
        .map(|host| dest(&format!("10.0.0.{}", 20 + host), PORT, ForwardMethod::DirectRoute, 1));
    let key = service(Protocol::Tcp, VIP, PORT);
    stage.bench.service(key, Scheduler::Wlc, &dests.collect::<Vec<_>>());
    let vip = format!("{VIP}:{PORT}").parse()?;
    stage.establish(vip, None, 0..live)?;
    let flood = Control {
        program: RVS,
        first: FLOOD,
        mask: SOURCES - 1,
        ..template(vip, Client::Sends, SYN)
    };
    let (mut new, mut full, mut let_in) = (Vec::new(), Vec::new(), 0);
    let mut random = 0x9e37_79b9_u32;
    // The generator's state is told with the template: each run begins another sequence.
    let mut next = || {
        random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f) | 1;
        Control { random, ..flood }
    };
    for round in 0..rounds {
        table::clear(stage.bench.datapath.maps(), Family::V4, LEGITIMATE);
        let sample = (entries / 16).min(1 << 16);
        new.push(stage.programs.run(Hook::Xdp, Family::V4, &next(), sample)?.nanos);
        stage.programs.run(Hook::Xdp, Family::V4, &next(), entries * 2)?;
        let found = table::live(stage.bench.datapath.maps(), Family::V4);
        ensure!(found >= entries as usize / 100 * 95, "{found} of {entries} entries are full");
        full.push(stage.programs.run(Hook::Xdp, Family::V4, &next(), sample)?.nanos);
        for client in 0..clients {
            stage.programs.run(Hook::Xdp, Family::V4, &next(), 64)?;
            let first = LEGITIMATE + round * clients + client;
            let got_in = [SYN, ACK].iter().try_fold(true, |so_far, flags| -> Result<bool> {
                let packet =
                    Control { program: RVS, first, ..template(vip, Client::Sends, *flags) };
                let run = stage.programs.run(Hook::Xdp, Family::V4, &packet, 1)?;
                Ok(so_far && run.verdict == sent(Hook::Xdp))
            })?;
            let_in += u32::from(got_in);
        }
    }
    let maps = stage.bench.datapath.maps();
    let survived = table::live_flows(maps, 0..live);
    let measured: Measured = [
        ("flood/new", median(new)),
        ("flood/full", median(full)),
        ("flood/survived", survived as f64 / f64::from(live)),
        ("flood/let in", f64::from(let_in) / f64::from(clients * rounds)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    println!("A table of {entries} entries, {live} of them established; medians of {rounds}.\n");
    println!("| what | |\n|---|---:|");
    println!("| a SYN from a random source, room in the table | {:.0} ns |", measured["flood/new"]);
    println!("| the same, table full | {:.0} ns |", measured["flood/full"]);
    println!("| established connections after the floods | {survived} of {live} |");
    println!(
        "| new clients who got in and finished their handshake, 64 SYNs of the flood before each | \
         {let_in} of {} |",
        clients * rounds
    );
    Ok(measured)
}
