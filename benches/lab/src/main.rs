//! What RVS forwards and carries between network namespaces, beside nftables, plain forwarding and a
//! bare program in the same run; and what its control costs at size.
//!
//! Run by `cargo xtask bench` as root in a network namespace of its own.
#![forbid(unsafe_code)]

mod control;
mod line;
mod packets;
mod programs;
mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lexopt::prelude::*;

const HELP: &str = "\
Usage: rvs-bench-lab packets|ipvs|control|stream [--quick] [--record FILE]
       rvs-bench-lab packets --row ROW [--flows N] [--seconds N]

  packets        packets a second, small UDP packets of many flows
  ipvs           the same beside the kernel's IPVS, which this machine must have
  control        loading, changing and listing 10,000 services
  stream         TCP streams and requests through NAT by TC
  --quick        shorter, smaller, fewer rounds
  --record FILE  writes the measurements to a file, as JSON
  --row ROW      sends to one row of `packets` all the time, for a profile: 20 seconds, 1,024 flows
";

/// What was measured, by name.
type Measured = BTreeMap<String, f64>;

fn main() -> Result<()> {
    let (mut part, mut quick, mut record) = (None, false, None::<PathBuf>);
    let (mut row, mut flows, mut seconds) = (None::<String>, 1 << 10, 20);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(word) if part.is_none() => part = Some(word.string()?),
            Long("quick") => quick = true,
            Long("record") => record = Some(parser.value()?.into()),
            Long("row") => row = Some(parser.value()?.string()?),
            Long("flows") => flows = parser.value()?.parse()?,
            Long("seconds") => seconds = parser.value()?.parse()?,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if let Some(row) = row {
        ensure!(part.as_deref() == Some("packets"), "--row is for packets");
        return packets::keep_busy(&packets::Busy { row, flows, seconds });
    }
    let measured = match part.as_deref() {
        Some("packets") => packets::run(quick)?,
        Some("ipvs") => packets::run_with_ipvs(quick)?,
        Some("control") => control::run(quick)?,
        Some("stream") => stream::run(quick)?,
        _ => anyhow::bail!("which part? --help lists them"),
    };
    let Some(path) = record else { return Ok(()) };
    let text = serde_json::to_string(&measured)?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The middle one of samples.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
