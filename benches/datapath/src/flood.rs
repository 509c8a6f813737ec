//! SYNs from random sources to a table that is full: what one costs against a new connection in a
//! table with room, whether established connections survive, and whether clients who mean it still
//! get in while the flood goes on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_bench_ebpf::{Control, RVS};
use rvs_core::layout::ENTRIES;
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_datapath::sweeper::Sweeper;
use rvs_tests_bpf::frame::{ACK, SYN};
use rvs_tests_bpf::{Hook, dest, service};

use crate::frames::{Client, template};
use crate::programs::{Programs, sent};
use crate::stage::{PORT, Room, Stage, second_cpu, stay_on};
use crate::{Measured, median, table, timed};

const VIP: &str = "10.200.0.1";
/// First of the legitimate flows that come during the flood.
const LEGITIMATE: u32 = 1 << 20;
/// First of the flood's; it draws from so many that hardly one comes twice.
const FLOOD: u32 = 1 << 24;
const SOURCES: u32 = 1 << 30;

/// How large the table is, and how much comes to it.
struct Size {
    /// The table is made for so many connections, and a test run of the flood sends as many SYNs: as it
    /// begins and ends, a run waits some 10 ms for RCU.
    connections: u32,
    /// Clients who want in during the flood, and seconds that they have for it.
    clients: u32,
    seconds: u32,
    /// Time without SYNs after each run.
    rest: Duration,
}

const WHOLE: Size = Size { connections: 1 << 18, clients: 1000, seconds: 16, rest: Duration::ZERO };
/// The whole one's table is filled about twice a second. At full speed this one would be four hundred
/// times, and how many clients get in would say how much of the CPU the flood got.
const QUICK: Size =
    Size { connections: 1 << 12, clients: 100, seconds: 8, rest: Duration::from_millis(120) };

/// Measures, and prints a table.
pub fn run(rounds: u32, quick: bool) -> Result<Measured> {
    let size = if quick { QUICK } else { WHOLE };
    let Size { connections, clients, .. } = size;
    let (entries, live) = (connections * ENTRIES, connections / 4);
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
    let (mut new, mut full) = (Vec::new(), Vec::new());
    let mut random = 0x9e37_79b9_u32;
    // The generator's state is told with the template: each run begins another sequence.
    let mut next = || {
        random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f) | 1;
        Control { random, ..flood }
    };
    for _ in 0..rounds {
        table::clear(stage.bench.datapath.maps(), Family::V4, LEGITIMATE);
        let sample = (entries / 16).min(1 << 16);
        new.push(stage.programs.run(Hook::Xdp, Family::V4, &next(), sample)?.nanos);
        stage.programs.run(Hook::Xdp, Family::V4, &next(), entries * 2)?;
        // What is left free is in none of the sets that the last keys reach. Those who came more than a
        // second ago may have given their places up, which the next sweep will clear.
        let taken = table::taken(stage.bench.datapath.maps());
        ensure!(taken >= entries as usize / 100 * 90, "{taken} of {entries} entries are full");
        full.push(stage.programs.run(Hook::Xdp, Family::V4, &next(), sample)?.nanos);
    }
    // The table is full of the last flood.
    let Knocked { let_in, pace, sweeper } = knock(&mut stage, next, &size)?;
    let maps = stage.bench.datapath.maps();
    let survived = table::live_flows(maps, 0..live);
    let measured: Measured = [
        ("flood/new", median(new)),
        ("flood/full", median(full)),
        ("flood/survived", survived as f64 / f64::from(live)),
        ("flood/let in", f64::from(let_in) / f64::from(clients)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    println!("A table of {entries} entries, {live} of them established; medians of {rounds}.\n");
    println!("| what | |\n|---|---:|");
    println!("| a SYN from a random source, room in the table | {:.0} ns |", measured["flood/new"]);
    println!("| the same, table full | {:.0} ns |", measured["flood/full"]);
    println!("| established connections after the floods | {survived} of {live} |");
    println!(
        "| new clients who got in by their first SYN or one that TCP sends again, while another core floods | \
         {let_in} of {clients} |"
    );
    println!("| that flood, SYNs a second | {pace:.0} |");
    println!("| of a CPU that the sweeper takes meanwhile | {:.0} % |", sweeper * 100.0);
    Ok(measured)
}

/// When a client sends its SYN: at once, and again if nobody answers (RFC 6298, section 2).
const TRIES: [f64; 5] = [0.0, 1.0, 3.0, 7.0, 15.0];

/// What came of a flood beside clients.
struct Knocked {
    /// Clients who got in.
    let_in: u32,
    /// The flood's SYNs a second.
    pace: f64,
    /// The part of a CPU that the sweeper took.
    sweeper: f64,
}

/// Clients come, each by these tries, while another core does nothing but flood; meanwhile the table is
/// swept as rvsd does.
fn knock(
    stage: &mut Stage,
    mut flood: impl FnMut() -> Control + Send,
    &Size { connections, clients, seconds, rest }: &Size,
) -> Result<Knocked> {
    let mut other = Programs::load(&mut stage.bench, 1)?;
    let (last, over) = (second_cpu()?, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| -> Result<u64> {
            stay_on(last)?;
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                other.run(Hook::Xdp, Family::V4, &flood(), connections)?;
                sent += u64::from(connections);
                std::thread::sleep(rest);
            }
            Ok(sent)
        });
        let moved = stay_on(0);
        let came = moved.and_then(|()| come(stage, clients, seconds));
        over.store(true, Ordering::Relaxed);
        let sent = flooding.join().ok().context("the flood's thread")??;
        let ((let_in, swept), seconds) = (came?, f64::from(seconds));
        Ok(Knocked { let_in, pace: sent as f64 / seconds, sweeper: swept / 1e3 / seconds })
    })
}

/// How many of the clients get in, and the sweeper's CPU time in milliseconds.
fn come(stage: &mut Stage, clients: u32, seconds: u32) -> Result<(u32, f64)> {
    let vip = format!("{VIP}:{PORT}").parse()?;
    let mut outside: Vec<(u32, usize)> = (0..clients).map(|client| (client, 0)).collect();
    let (start, mut sweeper) = (Instant::now(), Sweeper::default());
    let (mut step, mut swept) = (start, 0.0);
    while start.elapsed().as_secs_f64() < f64::from(seconds) {
        let now = start.elapsed().as_secs_f64();
        if step.elapsed() >= Sweeper::STEP {
            swept += timed(|| sweeper.step(stage.bench.datapath.maps())).0;
            step = Instant::now();
        }
        let mut still = Vec::new();
        for (client, tries) in outside.drain(..) {
            // Not all in the same moment.
            let since = now - f64::from(client % 100) / 100.0;
            if TRIES.get(tries).is_none_or(|at| since < *at) {
                still.push((client, tries));
            } else if !connects(stage, vip, LEGITIMATE + client)? {
                still.push((client, tries + 1));
            }
        }
        outside = still;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((clients - outside.len() as u32, swept))
}

/// Whether a client's SYN is taken, and then its ACK.
fn connects(stage: &mut Stage, vip: SocketAddr, first: u32) -> Result<bool> {
    [SYN, ACK].iter().try_fold(true, |so_far, flags| {
        let packet = Control { program: RVS, first, ..template(vip, Client::Sends, *flags) };
        let run = stage.programs.run(Hook::Xdp, Family::V4, &packet, 1)?;
        Ok(so_far && run.verdict == sent(Hook::Xdp))
    })
}
