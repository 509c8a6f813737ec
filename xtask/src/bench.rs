//! The benchmark of the data path, in a network namespace of its own.

use std::process::Command;

use anyhow::Result;

use crate::sh::{cargo, openly, say, workspace};

/// Sets up, builds the benchmark, and runs it with the rest of the arguments.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let args: Vec<_> = parser.raw_args()?.collect();
    crate::setup::run()?;
    say("building the benchmark");
    openly(cargo().args(["build", "--quiet", "--release", "--package", "rvs-bench"]))?;
    rvs_testkit::lab::mount_bpffs()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(Into::into);
    let target = target.unwrap_or_else(|| workspace().join("target"));
    let mut bench = Command::new("unshare");
    bench.arg("--net").arg(target.join("release/rvs-bench")).args(args);
    openly(&mut bench)
}
