//! What a packet costs in the data path: the real programs, run by `BPF_PROG_TEST_RUN`, against a
//! bare program and one that parses and looks up once, all in the same run and the same rounds; and
//! what else can be measured so: curves, a flood, two cores, memory, a sweep.
//!
//! Run by `cargo xtask bench` as root in a network namespace of its own.
#![forbid(unsafe_code)]

mod cores;
mod curves;
mod datapath;
mod flood;
mod frames;
mod memory;
mod programs;
mod report;
mod stage;
mod sweep;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use rustix::time::{ClockId, clock_gettime};

const HELP: &str = "\
Usage: rvs-bench PART [--rounds N] [--live N,N,...] [--quick] [--record FILE]

  datapath        what a packet costs by what is done with it
  curves          the same by flows, services and destinations
  flood           SYNs from random sources with a full table
  cores           two cores against one
  memory          kernel memory of the maps
  sweep           expiry, and packets meanwhile
  --rounds N      measurements of each figure, of which the median counts (default 5)
  --live N,N,...  datapath: live connections, powers of two (default 1,65536,1048576)
  --quick         the other parts: smaller, fewer rounds
  --record FILE   writes the measurements to a file, as JSON
";

/// What was measured, by name.
type Measured = BTreeMap<String, f64>;

fn main() -> Result<()> {
    let (mut rounds, mut sizes) = (None, vec![1u32, 1 << 16, 1 << 20]);
    let (mut part, mut quick, mut record) = (None, false, None::<PathBuf>);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(word) if part.is_none() => part = Some(word.string()?),
            Long("rounds") => rounds = Some(parser.value()?.parse()?),
            Long("live") => {
                let text = parser.value()?.string()?;
                sizes = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            Long("quick") => quick = true,
            Long("record") => record = Some(parser.value()?.into()),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    let most = stage::FRESH;
    if sizes.iter().any(|size| !size.is_power_of_two() || *size > most) {
        bail!("--live takes powers of two up to {most}");
    }
    let rounds = rounds.unwrap_or(if quick { 1 } else { 5 });
    if rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    stage::stay_on(stage::last_cpu()?)?;
    let measured = match part.as_deref() {
        Some("datapath") => datapath::run(rounds, &sizes)?,
        Some("curves") => curves::run(rounds, quick)?,
        Some("flood") => flood::run(rounds, quick)?,
        Some("cores") => cores::run(rounds, quick)?,
        Some("memory") => memory::run(quick)?,
        Some("sweep") => sweep::run(rounds, quick)?,
        _ => bail!("which part? --help lists them"),
    };
    let Some(path) = record else { return Ok(()) };
    let text = serde_json::to_string(&measured)?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// CPU time of something on this thread, in milliseconds, and its result.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let before = cpu();
    let result = work();
    (cpu() - before, result)
}

/// The middle one of samples.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
