//! The comparison with the kernel's IPVS in the oracle VM, for longer than the tests have.

use anyhow::Result;
use lexopt::prelude::*;

use crate::sh::{cargo, openly, say};

/// Sets up, builds, and plays random scenarios for so many minutes with each hook.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut seed = std::time::UNIX_EPOCH.elapsed()?.subsec_nanos() % 1_000_000;
    let (mut minutes, mut scenarios) = (10, u32::MAX);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seed") => seed = parser.value()?.parse()?,
            Long("scenarios") => scenarios = parser.value()?.parse()?,
            Long("minutes") => minutes = parser.value()?.parse()?,
            _ => return Err(arg.unexpected().into()),
        }
    }
    crate::build::run()?;
    say(&format!("scenarios from seed {seed}, {minutes} minutes with each hook"));
    let budget = format!("{seed} {scenarios} {}", minutes * 60);
    let test = ["test", "--quiet", "--package", "rvs-tests-netns", "--test", "parity"];
    let serially = ["--", "--nocapture", "--test-threads=1"];
    openly(cargo().env("RVS_PARITY", budget).args(test).args(serially))
}
