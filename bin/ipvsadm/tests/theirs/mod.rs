//! The real ipvsadm 1.31 of Debian, run unmodified against a director of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::{Ended, Lab, finish};

/// The program.
pub const IPVSADM: &str = "/usr/sbin/ipvsadm";

/// `rvs`, where it is with the library that it preloads and the program.
pub fn rvs() -> Option<PathBuf> {
    let rvs = rvs_testkit::lab::binary("rvs").ok()?;
    (rvs.with_file_name("librvs_ipvs.so").exists() && Path::new(IPVSADM).exists()).then_some(rvs)
}

/// Runs it.
pub fn run(rvs: &Path, lab: &Lab, args: &[&str], stdin: Option<&str>) -> Ended {
    let mut command = Command::new(rvs);
    command.args(["run", "--", IPVSADM]).args(args).env("RVS_SOCKET", lab.socket());
    finish(&mut command, stdin)
}
