//! The release build of the programs.

use anyhow::Result;

use crate::sh::{cargo, openly, say};

/// Sets up, then builds rvsd, ipvsadm and rvs.
pub fn run() -> Result<()> {
    crate::setup::run()?;
    say("building rvsd, ipvsadm and rvs");
    let mut build = cargo();
    build.args(["build", "--quiet", "--release"]);
    openly(build.args(["--package", "rvsd", "--package", "ipvsadm", "--package", "rvs"]))
}
