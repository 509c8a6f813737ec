//! Packets a second through each kind of director: generator on the first CPU, director and sink
//! on the last, small UDP packets over veth.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_testkit::lab::{Lab, Topology};

use crate::line::{DR, Kind, Line, NAT, SERVER, stay_on};
use crate::programs::Programs;
use crate::{Measured, median};

/// A line's host, its kind, and the rows measured there with where their packets go.
type Plan = (&'static str, Kind, &'static [(&'static str, &'static str)]);

const LINES: &[Plan] = &[
    ("bare", Kind::Bare, &[("bare", SERVER)]),
    ("bare-tc", Kind::BareTc, &[("bare, TC", SERVER)]),
    ("forward", Kind::Forward, &[("forward", SERVER)]),
    ("nft", Kind::Nft, &[("nft", NAT)]),
    ("xdp", Kind::Rvs("xdp"), &[("XDP NAT", NAT), ("XDP DR", DR)]),
    ("tc", Kind::Rvs("tc"), &[("TC NAT", NAT), ("TC DR", DR)]),
];
/// Those of a machine that has the kernel's IPVS.
const IPVS_LINES: &[Plan] = &[
    ("bare", Kind::Bare, &[("bare", SERVER)]),
    ("forward", Kind::Forward, &[("forward", SERVER)]),
    ("ipvs", Kind::Ipvs, &[("IPVS NAT", NAT), ("IPVS DR", DR)]),
    ("xdp", Kind::Rvs("xdp"), &[("XDP NAT", NAT), ("XDP DR", DR)]),
];
const FLOWS: [u32; 2] = [1 << 10, 1 << 16];
/// Time in which a pace is tried: the director takes some milliseconds to be at work.
const TRY: Duration = Duration::from_millis(200);
/// Packets that hardly take time to send.
const FEW: u32 = 1 << 15;

/// One row, kept busy for a profiler.
pub struct Busy {
    /// Its name in the table.
    pub row: String,
    /// Its flows.
    pub flows: u32,
    /// How long, in seconds.
    pub seconds: u64,
}

/// Measures against nftables.
pub fn run(quick: bool) -> Result<Measured> {
    compare("lab", LINES, &FLOWS, "nft", quick)
}

/// Sends to one row all the time, and prints its rate.
pub fn keep_busy(busy: &Busy) -> Result<()> {
    let rows = |(host, kind, of): &'static Plan| of.iter().map(move |row| (*host, *kind, row));
    let (host, kind, (_, dst)) = LINES
        .iter()
        .flat_map(rows)
        .find(|(_, _, (row, _))| *row == busy.row)
        .context("--row: no such row")?;
    let (lab, mut programs) = start(&[host])?;
    let line = Line::build(&lab, host, 0, kind, &mut programs)?;
    programs.flows(dst.parse::<SocketAddr>()?, busy.flows)?;
    open(&mut programs, &line, busy.flows)?;
    println!("{}, {} flows: all are known", busy.row, busy.flows);
    let pace = best_pace(&mut programs, &line, TRY)?;
    println!("{:.3} million packets a second are sent", pace / 1e6);
    let packets = packets(pace, Duration::from_secs(busy.seconds));
    let rate = rate(&mut programs, &line, pace, packets)?;
    println!("{:.3} million packets a second arrive", rate / 1e6);
    Ok(())
}

/// A lab with these directors, and the programs that send and count, this thread on the generator's CPU.
fn start(hosts: &[&'static str]) -> Result<(Lab, Programs)> {
    stay_on(0).context("the generator's CPU")?;
    let mut topology = Topology::new().prefix("rvs-bench");
    for host in hosts {
        topology = topology.attach(host, "lan", &[]);
    }
    Ok((topology.build()?, Programs::load()?))
}

/// Measures against the kernel's IPVS, which this machine must have.
pub fn run_with_ipvs(quick: bool) -> Result<Measured> {
    compare("vm", IPVS_LINES, &FLOWS[..1], "IPVS NAT", quick)
}

/// Measures all rows, in turn, and prints their table.
fn compare(
    part: &str,
    lines: &[Plan],
    numbers: &[u32],
    reference: &str,
    quick: bool,
) -> Result<Measured> {
    let (rounds, time) = if quick { (1, TRY / 4) } else { (5, TRY * 5) };
    let hosts: Vec<&str> = lines.iter().map(|(host, ..)| *host).collect();
    let (lab, mut programs) = start(&hosts)?;
    let mut rows = Vec::new();
    for (number, (host, kind, of)) in lines.iter().copied().enumerate() {
        let line = Line::build(&lab, host, number, kind, &mut programs)
            .with_context(|| format!("the line {host}"))?;
        rows.push((line, of));
    }
    let mut samples: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    let mut paces = BTreeMap::new();
    for round in 0..rounds {
        for flows in numbers.iter().copied() {
            for (line, of) in &rows {
                for (row, dst) in *of {
                    programs.flows(dst.parse::<SocketAddr>()?, flows)?;
                    if round == 0 {
                        open(&mut programs, line, flows).with_context(|| (*row).to_owned())?;
                        let pace = best_pace(&mut programs, line, time / 5)?;
                        paces.insert((row, flows), pace);
                    }
                    let pace = paces[&(row, flows)];
                    let rate = rate(&mut programs, line, pace, packets(pace, time))?;
                    ensure!(rate > 1000.0, "{row}, {flows} flows: {rate:.0} packets a second");
                    samples.entry((row, flows)).or_default().push(rate);
                }
            }
        }
    }
    let measured: Measured = samples
        .into_iter()
        .map(|((row, flows), samples)| (format!("{part}/{row}/{flows}"), median(samples)))
        .collect();
    print(&measured, part, lines, numbers, reference);
    println!("\nMedians of {rounds}.");
    Ok(measured)
}

/// Sends every flow's packets slowly enough that each flow is known to the director afterwards.
fn open(programs: &mut Programs, line: &Line, flows: u32) -> Result<()> {
    programs.in_turn(true)?;
    let before = programs.counted()?;
    let limit = Instant::now() + Duration::from_secs(20);
    while programs.counted()? - before < u64::from(flows) * 4 {
        ensure!(Instant::now() < limit, "hardly a packet gets through");
        programs.send(line.generator, FEW)?;
    }
    programs.in_turn(false)
}

/// How many packets a second to send so that the most reach the sink, in tries of this time.
///
/// That is not as many as the generator can: what a full queue refuses it frees itself, and the director
/// waits for the lock of the frames' pool then. A bare redirect carries half of what it can.
fn best_pace(programs: &mut Programs, line: &Line, time: Duration) -> Result<f64> {
    const STEP: f64 = 1.08;
    const VAIN: u32 = 4;
    let mut pace = rate(programs, line, f64::INFINITY, FEW)? / 2.0;
    let (mut best, mut most, mut vain) = (pace, 0.0, 0);
    while vain < VAIN {
        let arrived = rate(programs, line, pace, packets(pace, time))?;
        vain += 1;
        if arrived > most {
            (best, most, vain) = (pace, arrived, 0);
        }
        pace *= STEP;
    }
    Ok(best)
}

/// Packets that are sent at this pace in so much time.
fn packets(pace: f64, time: Duration) -> u32 {
    (pace * time.as_secs_f64()) as u32
}

/// Packets a second that reach the sink while so many are sent, at this pace.
fn rate(programs: &mut Programs, line: &Line, pace: f64, packets: u32) -> Result<f64> {
    programs.pace(pace)?;
    let before = programs.counted()?;
    let took = programs.send(line.generator, packets)?;
    Ok((programs.counted()? - before) as f64 / took.as_secs_f64())
}

fn print(measured: &Measured, part: &str, lines: &[Plan], numbers: &[u32], reference: &str) {
    println!(
        "Million packets a second at the sink · ratio to {reference} · ratio to the bare redirect. \
         64-byte UDP over veth, flows\ndrawn at random; generator (live XDP frames) on one core, \
         director and sink (XDP) on the other.\nAs many are sent as let the most through.\n"
    );
    let heads: String = numbers.iter().map(|flows| format!(" {flows} flows |")).collect();
    println!("| director |{heads}\n|---|{}", "---:|".repeat(numbers.len()));
    for (row, _) in lines.iter().flat_map(|(.., rows)| *rows) {
        let cell = |flows: &u32| {
            let of = |row: &str| measured.get(&format!("{part}/{row}/{flows}")).copied();
            let rate = of(row).unwrap_or(f64::NAN);
            let to = |row: &str| rate / of(row).unwrap_or(f64::NAN);
            format!(" {:.3} · {:.2} · {:.2} |", rate / 1e6, to(reference), to("bare"))
        };
        println!("| {row} |{}", numbers.iter().map(cell).collect::<String>());
    }
}
