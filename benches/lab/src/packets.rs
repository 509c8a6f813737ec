//! Packets a second through each kind of director: generator on the first CPU, director and sink
//! on the last, small UDP packets over veth.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_testkit::lab::Topology;

use crate::line::{DR, Kind, Line, NAT, SERVER, only};
use crate::programs::Programs;
use crate::{Measured, median};

/// The lines: host, kind, and the rows measured there with where their packets go.
const LINES: [(&str, Kind, &[(&str, &str)]); 5] = [
    ("bare", Kind::Bare, &[("bare", SERVER)]),
    ("forward", Kind::Forward, &[("forward", SERVER)]),
    ("nft", Kind::Nft, &[("nft", NAT)]),
    ("xdp", Kind::Rvs("xdp"), &[("XDP NAT", NAT), ("XDP DR", DR)]),
    ("tc", Kind::Rvs("tc"), &[("TC NAT", NAT), ("TC DR", DR)]),
];
const FLOWS: [u32; 2] = [1 << 10, 1 << 16];

/// Measures all rows, in turn, and prints their table.
pub fn run(quick: bool) -> Result<Measured> {
    let (rounds, time) =
        if quick { (1, Duration::from_millis(100)) } else { (7, Duration::from_secs(1)) };
    rustix::thread::sched_setaffinity(None, &only(0)).context("the generator's CPU")?;
    let mut topology = Topology::new().prefix("rvs-bench");
    for (host, ..) in LINES {
        topology = topology.attach(host, "lan", &[]);
    }
    let lab = topology.build()?;
    let mut programs = Programs::load()?;
    let mut rows = Vec::new();
    for (number, (host, kind, of)) in LINES.into_iter().enumerate() {
        let line = Line::build(&lab, host, number, kind, &mut programs)
            .with_context(|| format!("the line {host}"))?;
        rows.push((line, of));
    }
    let mut samples: std::collections::BTreeMap<(&str, u32), Vec<f64>> = Default::default();
    for round in 0..rounds {
        for flows in FLOWS {
            for (line, of) in &rows {
                for (row, dst) in *of {
                    programs.flows(dst.parse::<SocketAddr>()?, flows)?;
                    if round == 0 {
                        open(&mut programs, line, flows).with_context(|| (*row).to_owned())?;
                    }
                    let rate = rate(&mut programs, line, time)?;
                    ensure!(rate > 1000.0, "{row}, {flows} flows: {rate:.0} packets a second");
                    samples.entry((row, flows)).or_default().push(rate);
                }
            }
        }
    }
    let measured: Measured = samples
        .into_iter()
        .map(|((row, flows), samples)| (format!("lab/{row}/{flows}"), median(samples)))
        .collect();
    print(&measured, rounds);
    Ok(measured)
}

/// Sends every flow's packets slowly enough that each flow is known to the director afterwards.
fn open(programs: &mut Programs, line: &Line, flows: u32) -> Result<()> {
    programs.in_turn(true)?;
    let before = programs.counted()?;
    let limit = Instant::now() + Duration::from_secs(20);
    while programs.counted()? - before < u64::from(flows) * 4 {
        ensure!(Instant::now() < limit, "hardly a packet gets through");
        programs.send(line.generator)?;
    }
    programs.in_turn(false)
}

/// Packets a second that reach the sink while the generator sends all it can.
fn rate(programs: &mut Programs, line: &Line, time: Duration) -> Result<f64> {
    // The queues fill first.
    programs.send(line.generator)?;
    let (before, start) = (programs.counted()?, Instant::now());
    while start.elapsed() < time {
        programs.send(line.generator)?;
    }
    Ok((programs.counted()? - before) as f64 / start.elapsed().as_secs_f64())
}

fn print(measured: &Measured, rounds: u32) {
    println!(
        "Million packets a second at the sink · ratio to nft · ratio to the bare redirect. 64-byte \
         UDP over veth, flows\ndrawn at random; generator (live XDP frames) on one core, director \
         and sink (XDP) on the other. Medians of {rounds}.\n"
    );
    println!("| director | 1,024 flows | 65,536 flows |\n|---|---:|---:|");
    for (row, _) in LINES.iter().flat_map(|(.., rows)| *rows) {
        let cell = |flows: u32| {
            let of =
                |row: &str| measured.get(&format!("lab/{row}/{flows}")).copied().unwrap_or(0.0);
            let rate = of(row);
            format!("{:.2} · {:.2} · {:.2}", rate / 1e6, rate / of("nft"), rate / of("bare"))
        };
        println!("| {row} | {} | {} |", cell(FLOWS[0]), cell(FLOWS[1]));
    }
}
