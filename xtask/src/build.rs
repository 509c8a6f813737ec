//! The release build of the programs.

use anyhow::Result;

use crate::sh::{cargo, openly, say};

/// What is built: the programs, and the library that `rvs run` preloads.
const PACKAGES: [&str; 4] = ["rvsd", "ipvsadm", "rvs", "rvs-preload"];

/// Sets up, then builds rvsd, ipvsadm, rvs and librvs_ipvs.so.
pub fn run() -> Result<()> {
    crate::setup::run()?;
    say("building rvsd, ipvsadm, rvs and librvs_ipvs.so");
    let mut build = cargo();
    build.args(["build", "--quiet", "--release"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    openly(&mut build)
}
