//! Expiry: CPU time of a pass over 1 Mi masqueraded connections, and what single packets cost on
//! another core meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_bench_ebpf::{Control, RVS};
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_datapath::{Maps, sweeper};
use rvs_tests_bpf::frame::ACK;
use rvs_tests_bpf::{Hook, dest, service};

use crate::frames::{Client, template};
use crate::programs::{Programs, sent};
use crate::stage::{self, PORT, Room, Stage, stay_on};
use crate::{Measured, median, table, timed};

const VIP: &str = "10.200.0.2";
const SERVER: &str = "10.0.0.12";

/// Measures, and prints a table.
pub fn run(rounds: u32, quick: bool) -> Result<Measured> {
    let (live, time) = if quick {
        (1 << 12, Duration::from_millis(100))
    } else {
        (1 << 20, Duration::from_secs(5))
    };
    let room = Room { connections: live, services: 256, destinations: 4096, flows: 1 };
    let mut stage = Stage::new(&room)?;
    let key = service(Protocol::Tcp, VIP, PORT);
    stage.bench.service(key, Scheduler::Rr, &[dest(SERVER, PORT, ForwardMethod::Masquerade, 1)]);
    let at = |addr: &str| format!("{addr}:{PORT}").parse();
    stage.establish(at(VIP)?, Some(at(SERVER)?), 0..live)?;
    let packet = Control { program: RVS, mask: live - 1, ..template(at(VIP)?, Client::Sends, ACK) };
    let maps = stage.bench.datapath.maps();
    // While the table fills, SYNs that find no place end half-open connections.
    while sweeper::pass(maps).cleared != 0 {}
    let entries = table::live(maps, Family::V4) as u32;
    ensure!(table::holds(entries, live * 2), "{entries} entries of {live} pairs");
    let mut cost = Vec::new();
    for _ in 0..rounds {
        cost.push(pass(maps, entries)?);
    }
    let quiet = packets(&mut stage.programs, &packet, time)?;
    let stop = AtomicBool::new(false);
    let pin = stage::pin();
    let busy = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let sweeping = scope.spawn(|| -> Result<()> {
            stay_on(0)?;
            let maps = Maps::open(&pin).context("open the pinned maps")?;
            while !stop.load(Ordering::Relaxed) {
                pass(&maps, entries)?;
            }
            Ok(())
        });
        let samples = packets(&mut stage.programs, &packet, time);
        stop.store(true, Ordering::Relaxed);
        sweeping.join().ok().context("the sweeping thread")??;
        samples
    })?;
    for conn in maps.conns4.iter().flat_map(|set| &set.ways) {
        conn.expires.set(rvs_datapath::env::now().0.wrapping_sub(1));
    }
    // The entries of a pair that are met in the other order end in the second pass.
    let (expired, found) = timed(|| [sweeper::pass(maps), sweeper::pass(maps)]);
    let cleared = found[0].cleared + found[1].cleared;
    ensure!(cleared == entries && found[1].live == 0, "{found:?} of {live} pairs");
    let rank = |samples: &[f64], part: f64| {
        let index = (samples.len() as f64 * part) as usize;
        samples.get(index.min(samples.len() - 1)).copied().unwrap_or(f64::NAN)
    };
    let measured: Measured = [
        ("sweep/CPU", median(cost)),
        ("sweep/CPU, all expired", expired),
        ("sweep/p99.99", rank(&busy, 0.9999)),
        ("sweep/p99.99, quiet", rank(&quiet, 0.9999)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    println!("{live} masqueraded connections, in tables made for as many.\n");
    println!("| what | |\n|---|---:|");
    println!("| CPU time of a pass, nothing expired | {:.1} ms |", measured["sweep/CPU"]);
    println!("| CPU time of the two passes that end and clear all | {expired:.1} ms |");
    for (name, samples) in [("no pass runs", &quiet), ("passes run without a break", &busy)] {
        println!(
            "| a packet by itself while {name}: p50, p99.99, largest of {} | {:.2}, {:.2}, {:.2} µs |",
            samples.len(),
            rank(samples, 0.5),
            rank(samples, 0.9999),
            rank(samples, 1.0)
        );
    }
    Ok(measured)
}

/// CPU time of a pass in milliseconds; an error unless it found as many entries live and no other.
fn pass(maps: &Maps, live: u32) -> Result<f64> {
    let (cost, pass) = timed(|| sweeper::pass(maps));
    ensure!((pass.live, pass.cleared) == (live, 0), "{pass:?}, not {live}");
    Ok(cost)
}

/// Microseconds of packets that have a run each, sorted.
fn packets(programs: &mut Programs, packet: &Control, time: Duration) -> Result<Vec<f64>> {
    let (mut samples, start) = (Vec::new(), Instant::now());
    let (mut random, mut lost) = (1_u32, 0);
    while start.elapsed() < time {
        random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f) | 1;
        let packet = Control { random, ..*packet };
        let run = programs.run(Hook::Xdp, Family::V4, &packet, 1)?;
        lost += u32::from(run.verdict != sent(Hook::Xdp));
        samples.push(run.nanos / 1e3);
    }
    // Of the flows that found no place.
    ensure!(lost as usize <= samples.len() / 100, "{lost} of {} packets", samples.len());
    samples.sort_by(f64::total_cmp);
    Ok(samples)
}
